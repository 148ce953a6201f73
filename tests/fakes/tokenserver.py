"""A token server for registries that believe JSON web tokens: Basic in, a signed token out.

Docker's token specification; the signature is ES256 with the certificate in the header (`x5c`), which distribution
checks against its `rootcertbundle`.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from tests.fakes.auth import basic_user

SERVICE: Final = "replicator-tests"
ISSUER: Final = "replicator-tests-issuer"


@dataclass
class Signer:
    """A key, its own certificate, and the tokens it signs."""

    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def __post_init__(self) -> None:
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, ISSUER)])
        now = dt.datetime.now(dt.UTC)
        self._certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .sign(self.key, hashes.SHA256())
        )

    @property
    def bundle(self) -> bytes:
        """The certificate, PEM."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def token(self, subject: str, scopes: list[str], ttl: int) -> str:
        """A token that grants the scopes, whole."""
        now = int(time.time())
        chain = base64.b64encode(self._certificate.public_bytes(serialization.Encoding.DER)).decode()
        access = [
            {"type": kind, "name": name, "actions": actions.split(",")}
            for kind, name, actions in (_parts(scope) for scope in scopes)
        ]
        claims = {
            "iss": ISSUER,
            "sub": subject,
            "aud": SERVICE,
            "exp": now + ttl,
            "nbf": now - 10,
            "iat": now,
            "jti": secrets.token_hex(8),
            "access": access,
        }
        signed = f"{_segment({'typ': 'JWT', 'alg': 'ES256', 'x5c': [chain]})}.{_segment(claims)}"
        r, s = utils.decode_dss_signature(self.key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_unpadded(r.to_bytes(32) + s.to_bytes(32))}"


@dataclass
class TokenServer:
    """Where tokens are had. `asked` are the scopes of every request so far."""

    realm: str
    signer: Signer
    asked: list[list[str]]


@contextmanager
def token_server(users: Mapping[str, str], *, ttl: int = 300) -> Iterator[TokenServer]:
    """Serves tokens to users (pull and push and delete; anonymous clients get pull alone) from a thread."""
    signer, asked = Signer(), list[list[str]]()

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            scopes = [scope for given in query.get("scope", []) for scope in given.split()]
            asked.append(scopes)
            authorization = self.headers.get("Authorization", "")
            user = basic_user(authorization, users) if authorization else ""
            if user is None:
                self._send(401, {"details": "incorrect username or password"})
                return
            granted = scopes if user else [scope for scope in scopes if scope.endswith(":pull")]
            self._send(200, {"token": signer.token(user, granted, ttl), "expires_in": ttl})

        def do_POST(self) -> None:
            self._send(405, {"details": "only GET"})

        def _send(self, status: int, body: Mapping[str, object]) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield TokenServer(f"http://127.0.0.1:{server.server_port}/token", signer, asked)
        finally:
            server.shutdown()
            thread.join()


def _parts(scope: str) -> tuple[str, str, str]:
    kind, _, rest = scope.partition(":")
    name, _, actions = rest.rpartition(":")
    return kind, name, actions


def _segment(value: Mapping[str, object]) -> str:
    return _unpadded(json.dumps(value).encode())


def _unpadded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
