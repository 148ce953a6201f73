"""The token services of clouds, as far as registries' credentials come from them: Entra ID, ACR, Google, GitHub.

Shapes: Azure/acr AAD-OAuth.md; Microsoft identity platform; Google OAuth 2.0 for service accounts; Compute Engine
metadata; GitHub Docs, App installations.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

import jwt
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

APPLICATION = "11111111-2222-3333-4444-555555555555"
TENANT = "contoso.example"


def unsigned(claims: Mapping[str, Any]) -> str:
    """A token of that shape; who reads it here does not verify it."""
    parts = [{"alg": "none"}, claims]
    return (
        ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts)
        + ".c2ln"
    )


@dataclass
class Key:
    """An RSA key as a cloud gives it out, and its other half."""

    private: str
    public: str

    @classmethod
    def new(cls) -> Key:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return cls(private.decode(), public.decode())


@dataclass
class Clouds:
    """All of them at one address. `now` is their time; every request is noted in `asked`."""

    now: Callable[[], float]
    key: Key = field(default_factory=Key.new)
    secret: str = "s3cret-of-the-application"
    assertion: str = "federated-token"
    lifetime: float = 3600.0
    issued: int = 0
    asked: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)
    failing: int = 0
    """The status of every answer, if not 0."""

    async def __call__(self, request: web.Request) -> web.Response:
        body = (await request.read()).decode()
        form = dict(parse_qsl(body)) | dict(request.query)
        self.asked.append((request.path, form))
        if self.failing:
            return web.json_response({"error": "no"}, status=self.failing)
        self.issued += 1
        return self._answer(request, form, body)

    def _answer(self, request: web.Request, form: Mapping[str, str], body: str) -> web.Response:
        answer = web.Response(status=404)
        match request.path.split("/")[1:]:
            case [tenant, "oauth2", "v2.0", "token"]:
                answer = self._application(tenant, form)
            case ["metadata", "identity", "oauth2", "token"]:
                answer = self._managed(request, form)
            case ["msi", "token"]:
                answer = self._app_service(request, form)
            case ["oauth2", "exchange"]:
                answer = self._exchange(form)
            case ["token"]:
                answer = self._service_account(form)
            case ["computeMetadata", "v1", "instance", "service-accounts", "default", "token"]:
                answer = self._machine(request)
            case ["sts"]:
                answer = self._federate(form)
            case ["impersonate", account]:
                answer = self._impersonate(request, account, json.loads(body))
            case ["app", "installations", installation, "access_tokens"]:
                answer = self._installation(request, installation)
        return answer

    def _machine(self, request: web.Request) -> web.Response:
        if request.headers.get("Metadata-Flavor") != "Google":
            return web.Response(status=403)
        return web.json_response({"access_token": f"vm-{self.issued}", "expires_in": self.lifetime})

    def _application(self, tenant: str, form: Mapping[str, str]) -> web.Response:
        proven = form.get("client_secret") == self.secret or form.get("client_assertion") == self.assertion
        if tenant != TENANT or form["client_id"] != APPLICATION or not proven:
            said = {
                "error": "invalid_client",
                "error_description": "AADSTS7000215: Invalid client secret provided.",
            }
            return web.json_response(said, status=401)
        assert form["scope"] == "https://containerregistry.azure.net/.default"
        return web.json_response({"access_token": "entra-application", "expires_in": 3599})

    def _managed(self, request: web.Request, form: Mapping[str, str]) -> web.Response:
        if (
            request.headers.get("Metadata") != "true"
            or form["resource"] != "https://containerregistry.azure.net"
        ):
            return web.Response(status=400)
        return web.json_response({"access_token": "entra-managed", "expires_in": "86399"})

    def _app_service(self, request: web.Request, form: Mapping[str, str]) -> web.Response:
        """The identity endpoint of Azure App Service, Functions and Container Apps."""
        if request.headers.get("X-IDENTITY-HEADER") != self.secret:
            return web.json_response({"statusCode": 401, "message": "wrong header"}, status=401)
        assert form["resource"] == "https://containerregistry.azure.net"
        ends = str(int(self.now() + self.lifetime))
        said = {"access_token": "entra-app-service", "expires_on": ends, "token_type": "Bearer"}
        return web.json_response(said | {"resource": form["resource"]})

    def _exchange(self, form: Mapping[str, str]) -> web.Response:
        if not form["access_token"].startswith("entra-") or form["grant_type"] != "access_token":
            return web.json_response({"errors": [{"code": "UNAUTHORIZED"}]}, status=401)
        claims = {"exp": self.now() + self.lifetime, "jti": self.issued}
        return web.json_response({"refresh_token": unsigned(claims)})

    def _service_account(self, form: Mapping[str, str]) -> web.Response:
        try:
            claims = jwt.decode(
                form["assertion"],
                self.key.public,
                algorithms=["RS256"],
                options={"verify_aud": False, "verify_exp": False, "verify_iat": False},
            )
        except jwt.PyJWTError as error:
            return web.json_response({"error": "invalid_grant", "error_description": str(error)}, status=400)
        assert claims["aud"].endswith("/token")
        assert claims["exp"] - claims["iat"] == 3600
        return web.json_response({"access_token": f"ya29-{self.issued}", "expires_in": int(self.lifetime)})

    def _federate(self, form: Mapping[str, str]) -> web.Response:
        assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:token-exchange"
        token = f"sts-{form['subject_token']}"
        return web.json_response({"access_token": token, "token_type": "Bearer", "expires_in": self.lifetime})

    def _impersonate(self, request: web.Request, account: str, asked: Mapping[str, Any]) -> web.Response:
        assert account.endswith(":generateAccessToken")
        assert request.headers["Authorization"].startswith("Bearer ya29-")
        assert asked["scope"] == ["https://www.googleapis.com/auth/cloud-platform"]
        end = datetime.fromtimestamp(self.now() + self.lifetime, UTC).isoformat()
        return web.json_response({"accessToken": f"as-{account.partition(':')[0]}", "expireTime": end})

    def _installation(self, request: web.Request, installation: str) -> web.Response:
        token = request.headers["Authorization"].removeprefix("Bearer ")
        claims = jwt.decode(
            token, self.key.public, algorithms=["RS256"], options={"verify_exp": False, "verify_iat": False}
        )
        assert claims["iss"] == "4711"
        assert claims["exp"] - claims["iat"] <= 600
        end = datetime.fromtimestamp(self.now() + self.lifetime, UTC).isoformat()
        return web.json_response(
            {"token": f"ghs_{installation}_{self.issued}", "expires_at": end}, status=201
        )
