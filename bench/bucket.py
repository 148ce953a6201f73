"""An S3 store of two buckets, filled with what lies in a folder, which counts what it is asked.

Run as a process of its own: `python -m bench.bucket PORT FOLDER`: the folder's content is in the bucket `source`, and
with `--both` in the bucket `destination` as well. `GET /counts` gives the counts so far.
"""

from __future__ import annotations

import argparse
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from moto.s3.models import s3_backends
from werkzeug.serving import make_server

HOST = "127.0.0.1"
REGION = "us-east-1"
BUCKETS = ("source", "destination")

Environ = dict[str, Any]


class Counting:
    """A WSGI application around another: counts requests by kind, and bytes of objects sent and received."""

    def __init__(self, app: Callable[[Environ, Any], Iterable[bytes]]) -> None:
        self._app = app
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Answers one request."""
        if environ["PATH_INFO"] == "/counts":
            start_response(f"{HTTPStatus.OK} OK", [("Content-Type", "application/json")])
            return [json.dumps(self._counts).encode()]
        kind = _kind(environ)

        def started(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            sent = int(dict(headers).get("Content-Length", 0)) if kind == "GET" else 0
            received = int(environ.get("CONTENT_LENGTH") or 0) if kind in {"PUT", "UPLOAD-PART"} else 0
            with self._lock:
                self._counts[kind] += 1
                self._counts["object bytes"] += sent + received
            return start_response(status, headers, *rest)

        return self._app(environ, started)


def _kind(environ: Environ) -> str:
    method, query = environ["REQUEST_METHOD"], parse_qs(environ["QUERY_STRING"], keep_blank_values=True)
    if method == "GET" and ("list-type" in query or "uploads" in query):
        return "LIST"
    if method == "PUT" and "HTTP_X_AMZ_COPY_SOURCE" in environ:
        return "COPY"
    return "UPLOAD-PART" if method == "PUT" and "partNumber" in query else str(method)


def fill(folder: Path, buckets: Iterable[str]) -> None:
    """Makes both buckets, and puts the folder's files into those named: straight into moto's memory."""
    backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    for bucket in BUCKETS:
        backend.create_bucket(bucket, REGION)
    for bucket in buckets:
        for path in folder.rglob("*"):
            if path.is_file():
                backend.put_object(bucket, path.relative_to(folder).as_posix(), path.read_bytes())


def main(port: int, folder: Path, buckets: Iterable[str]) -> None:
    """Serves until the process is ended."""
    fill(folder, buckets)
    app = Counting(DomainDispatcherApplication(create_backend_app))
    make_server(HOST, port, app, threaded=True, request_handler=MotoRequestHandler).serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--both", action="store_true")
    options = parser.parse_args()
    main(options.port, options.folder, BUCKETS if options.both else BUCKETS[:1])
