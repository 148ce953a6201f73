"""AWS, as far as the credentials of a registry come from it: STS, Identity Center, metadata of machines, and ECR.

Shapes: STS and ECR API references; SSO portal `GetRoleCredentials`; EC2 user guide, "Use IMDSv2"; ECS, "Task IAM role".
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

ROLE = "arn:aws:iam::123456789012:role/mirror"
EXTERNAL_ID = "partner-of-the-mirror"
POD_TOKEN = "token-of-the-pod"
SSO_TOKEN = "token-of-the-session"
CONTAINER_TOKEN = "token-of-the-container"
_IMDS_TOKEN = "token-of-the-machine"
_SCOPE = re.compile(r"Credential=(?P<key>[^/]+)/\d+/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request")


@dataclass(frozen=True)
class Asked:
    """A signed request: what for, by whose key, where, and what it says."""

    operation: str
    key: str
    region: str
    said: dict[str, Any]


@dataclass
class Aws:
    """All services at one address. The keys of the static credentials are whatever they say; the others are named here."""

    asked: list[Asked] = field(default_factory=list)
    imds: list[str] = field(default_factory=list)
    """Paths of the instance's metadata that were read."""

    async def __call__(self, request: web.Request) -> web.Response:
        if request.path.startswith("/latest/"):
            return self._metadata(request)
        if request.path == "/federation/credentials":
            return self._identity_center(request)
        if request.path == "/container":
            good = request.headers.get("Authorization") == CONTAINER_TOKEN
            return web.json_response(_keys("ASIACONTAINER")) if good else web.Response(status=403)
        if "X-Amz-Target" in request.headers:
            return self._ecr(request, json.loads(await request.text()))
        form = {name: str(value) for name, value in (await request.post()).items()}
        return self._sts(request, form)

    def _note(self, request: web.Request, operation: str, said: dict[str, Any]) -> str:
        found = _SCOPE.search(request.headers.get("Authorization", ""))
        key, region = (found["key"], found["region"]) if found else ("", "")
        self.asked.append(Asked(operation, key, region, said))
        return key

    def _ecr(self, request: web.Request, said: dict[str, Any]) -> web.Response:
        operation = request.headers["X-Amz-Target"].rpartition(".")[2]
        key = self._note(request, operation, said)
        assert operation == "GetAuthorizationToken"
        token = base64.b64encode(f"AWS:password-of-{key}".encode()).decode()
        given = {"authorizationToken": token, "expiresAt": 1_700_043_200.0}
        return web.json_response({"authorizationData": [given]})

    def _sts(self, request: web.Request, form: dict[str, str]) -> web.Response:
        action = form["Action"]
        key = self._note(request, action, form)
        if action == "GetCallerIdentity":
            arn = f"<Arn>arn:aws:iam::123456789012:user/{key}</Arn>"
            body = f"<{action}Response><{action}Result>{arn}</{action}Result></{action}Response>"
            return web.Response(text=body, content_type="text/xml")
        if action == "AssumeRole":
            is_good, new = form["RoleArn"] == ROLE and form.get("ExternalId") == EXTERNAL_ID, "ASIAROLE"
        else:
            assert action == "AssumeRoleWithWebIdentity"
            assert key == ""  # nobody signs it
            is_good, new = form["WebIdentityToken"] == POD_TOKEN, "ASIAPOD"
        if not is_good:
            said = f"<Code>AccessDenied</Code><Message>not authorized to perform: sts:{action}</Message>"
            body = f"<ErrorResponse><Error><Type>Sender</Type>{said}</Error></ErrorResponse>"
            return web.Response(status=403, text=body, content_type="text/xml")
        given = _keys(new)
        keys = "".join(
            f"<{name}>{given[other]}</{name}>"
            for name, other in (
                ("AccessKeyId", "AccessKeyId"),
                ("SecretAccessKey", "SecretAccessKey"),
                ("SessionToken", "Token"),
                ("Expiration", "Expiration"),
            )
        )
        body = f"<{action}Response><{action}Result><Credentials>{keys}</Credentials></{action}Result></{action}Response>"
        return web.Response(text=body, content_type="text/xml")

    def _identity_center(self, request: web.Request) -> web.Response:
        if request.headers.get("x-amz-sso_bearer_token") != SSO_TOKEN:
            said = {"message": "Session token not found or invalid"}
            return web.json_response(said, status=401, headers={"x-amzn-ErrorType": "UnauthorizedException"})
        assert dict(request.query) == {"account_id": "123456789012", "role_name": "Mirror"}
        ends = int((datetime.now(UTC) + timedelta(hours=1)).timestamp() * 1000)
        given = {"accessKeyId": "ASIASSO", "secretAccessKey": "s", "sessionToken": "t", "expiration": ends}
        return web.json_response({"roleCredentials": given})

    def _metadata(self, request: web.Request) -> web.Response:
        """IMDSv2 alone: nothing without a token of the session."""
        self.imds.append(f"{request.method} {request.path}")
        if request.method == "PUT":
            assert request.headers["x-aws-ec2-metadata-token-ttl-seconds"]
            return web.Response(text=_IMDS_TOKEN)
        if request.headers.get("x-aws-ec2-metadata-token") != _IMDS_TOKEN:
            return web.Response(status=401)
        if request.path.endswith("/security-credentials/"):
            return web.Response(text="role-of-the-machine")
        return web.json_response({"Code": "Success", "Type": "AWS-HMAC", **_keys("ASIAMACHINE")})


def _keys(key: str) -> dict[str, str]:
    ends = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"AccessKeyId": key, "SecretAccessKey": "s", "Token": "t", "Expiration": ends}
