"""A source and a destination that cost next to nothing, so that what is measured is who copies between them.

Run as a process of its own: `python -m bench.sink REPOSITORY TAG BLOBS BYTES`. Prints the URLs of both and the image's digest.
The source sends blobs out of a file in memory by `sendfile`; the destination has the kernel throw away what comes (MSG_TRUNC),
keeps no blob and believes every digest. A thread for each connection.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from replicator.model.digest import digest_of
from replicator.model.mediatypes import OCI_MANIFEST

_PIECE = 16 << 20
_HEAD_BYTES = 64 * 1024
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_CONFIG = "application/vnd.oci.image.config.v1+json"


@dataclass(frozen=True, slots=True)
class Content:
    """Manifests and small blobs by name; of large ones the eight bytes they begin with and the size, the rest is in `file`."""

    file: int
    manifests: dict[str, bytes] = field(default_factory=dict)
    small: dict[str, bytes] = field(default_factory=dict)
    large: dict[str, tuple[bytes, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, its body unread."""

    method: str
    path: str
    headers: dict[str, str]


def content(blobs: int, size: int, tag: str) -> tuple[Content, str]:
    """The image, and its digest."""
    file = os.memfd_create("blobs")
    block = hashlib.shake_128(b"sink", usedforsecurity=False).digest(1 << 20)
    for _ in range(-(-size // len(block))):
        os.write(file, block)
    made = Content(file)
    config = json.dumps({"tag": tag}).encode()
    made.small[digest_of(config)] = config
    for number in range(blobs):
        head = number.to_bytes(8)
        hashed = hashlib.sha256(head)
        for start in range(0, size, len(block)):
            hashed.update(os.pread(file, min(len(block), size - start), start)[8 if not start else 0 :])
        made.large[f"sha256:{hashed.hexdigest()}"] = (head, size)
    body = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": _CONFIG, "digest": digest_of(config), "size": len(config)},
            "layers": [{"mediaType": _LAYER, "digest": each, "size": size} for each in made.large],
        }
    ).encode()
    made.manifests[tag] = made.manifests[digest_of(body)] = body
    return made, digest_of(body)


def serve(answer: Callable[[socket.socket, Asked], None]) -> str:
    """Serves in threads until the process ends; the URL."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=256)

    def accept() -> None:
        while True:
            sock, _ = listening.accept()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=_converse, args=(sock, answer), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return f"http://127.0.0.1:{listening.getsockname()[1]}"


def _converse(sock: socket.socket, answer: Callable[[socket.socket, Asked], None]) -> None:
    with sock:
        while (asked := _asked(sock)) is not None:
            answer(sock, asked)


def _asked(sock: socket.socket) -> Asked | None:
    """The next request. Its head is looked at first and then taken alone, so that the body stays in the kernel."""
    wanted = 1
    while True:
        head = sock.recv(_HEAD_BYTES, socket.MSG_PEEK)
        if len(head) < wanted:
            return None
        end = head.find(b"\r\n\r\n")
        if end >= 0:
            break
        wanted = len(head)
    lines = sock.recv(end + 4).decode().split("\r\n")
    method, path, _ = lines[0].split(" ")
    pairs = (line.partition(":") for line in lines[1:] if line)
    return Asked(method, path, {name.lower(): value.strip() for name, _, value in pairs})


def _say(
    sock: socket.socket, status: str, body: bytes = b"", *, length: int | None = None, **headers: str
) -> None:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    sock.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


class Source:
    """Answers reads."""

    def __init__(self, held: Content) -> None:
        self._held = held

    def __call__(self, sock: socket.socket, asked: Asked) -> None:
        """Answers one request."""
        held, (kind, name) = self._held, asked.path.split("?")[0].rsplit("/", 2)[1:]
        if name == "list":
            tags = [each for each in held.manifests if ":" not in each]
            _say(sock, "200 OK", json.dumps({"name": "", "tags": tags}).encode())
        elif kind == "manifests" and name in held.manifests:
            self._manifest(sock, asked, held.manifests[name])
        elif kind == "blobs" and name in held.small:
            _say(sock, "200 OK", held.small[name])
        elif kind == "blobs" and name in held.large:
            self._blob(sock, asked, *held.large[name])
        else:
            _say(sock, "200 OK" if asked.path == "/v2/" else "404 Not Found")

    def _manifest(self, sock: socket.socket, asked: Asked, body: bytes) -> None:
        told = {"Content_Type": OCI_MANIFEST, "Docker_Content_Digest": digest_of(body)}
        _say(sock, "200 OK", b"" if asked.method == "HEAD" else body, length=len(body), **told)

    def _blob(self, sock: socket.socket, asked: Asked, head: bytes, size: int) -> None:
        first, _, last = asked.headers.get("range", "=-").partition("=")[2].partition("-")
        start, stop = int(first or 0), min(int(last or size - 1) + 1, size)
        if "range" in asked.headers:
            _say(
                sock,
                "206 Partial Content",
                length=stop - start,
                Content_Range=f"bytes {start}-{stop - 1}/{size}",
            )
        else:
            _say(sock, "200 OK", length=size)
        if start < len(head):
            sock.sendall(head[start:])
            start = len(head)
        while start < stop:
            start += os.sendfile(sock.fileno(), self._held.file, start, min(stop - start, _PIECE))


class Destination:
    """Takes everything, keeps manifests."""

    def __init__(self) -> None:
        self._manifests: dict[str, tuple[bytes, str]] = {}
        self._nowhere = bytearray(_PIECE)  # never written to

    def __call__(self, sock: socket.socket, asked: Asked) -> None:
        """Answers one request."""
        kind, name = asked.path.split("?")[0].rsplit("/", 2)[1:]
        length = int(asked.headers.get("content-length", 0))
        if kind == "manifests" and asked.method == "PUT":
            self._keep(sock, name, length, asked.headers.get("content-type", OCI_MANIFEST))
        elif kind == "manifests" and name in self._manifests:
            body, media_type = self._manifests[name]
            told = {"Content_Type": media_type, "Docker_Content_Digest": digest_of(body)}
            _say(sock, "200 OK", b"" if asked.method == "HEAD" else body, length=len(body), **told)
        elif asked.method in {"POST", "PUT", "PATCH"}:
            while length > 0 and (
                count := sock.recv_into(self._nowhere, min(length, _PIECE), socket.MSG_TRUNC)
            ):
                length -= count
            session = asked.path.split("?")[0] + ("1" if asked.method == "POST" else "")
            _say(sock, "201 Created" if asked.method == "PUT" else "202 Accepted", Location=session)
        else:
            _say(sock, "200 OK" if asked.path == "/v2/" else "404 Not Found")

    def _keep(self, sock: socket.socket, name: str, length: int, media_type: str) -> None:
        body = b""
        while len(body) < length and (piece := sock.recv(length - len(body))):
            body += piece
        digest = digest_of(body)
        self._manifests[name] = self._manifests[digest] = (body, media_type)
        _say(sock, "201 Created", Docker_Content_Digest=digest, Location=digest)


def main(tag: str, blobs: int, size: int) -> None:
    """Serves until the process is ended."""
    held, digest = content(blobs, size, tag)
    print(serve(Source(held)), serve(Destination()), digest, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
