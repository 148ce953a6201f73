"""Google's credentials other than a service account's key, by the extra `google`: federation, impersonation, users.

The library works in threads only. The types are loaded one by one, as it advises: a type that is not expected could run a
program or send a token elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from google.auth import aws, exceptions, identity_pool, impersonated_credentials, pluggable
from google.auth.transport.requests import Request
from google.oauth2 import credentials as users

from replicator.errors import AuthFailed, ConfigError, Unavailable
from replicator.sites.registry.identity.source import STEP

_AWS_TOKEN: Final = "urn:ietf:params:aws:token-type:aws4_request"  # noqa: S105 - the name of a type


def fetch_token(site: str, file: Path, key: Mapping[str, Any], scope: str) -> str:
    """An access token. Blocks; call it in a thread.

    Args:
        site: name of the site, for messages.
        file: where the credentials are.
        key: what the file holds.
        scope: of the token.

    Raises:
        ConfigError: the file holds credentials of an unknown type.
        AuthFailed: they are refused or incomplete.
        Unavailable: no answer.
    """
    try:
        credentials = _loaded(file, key, scope)
        credentials.refresh(Request())
    except exceptions.TransportError as error:
        raise Unavailable(site, STEP.operation, f"google-auth, {file}: {error}") from None
    except (exceptions.GoogleAuthError, ValueError) as error:
        raise AuthFailed(site, STEP.operation, f"google-auth, {file}: {error}") from None
    return str(credentials.token)


def _loaded(file: Path, key: Mapping[str, Any], scope: str) -> Any:
    match key.get("type"):
        case "authorized_user":
            return users.Credentials.from_authorized_user_info(key, scopes=[scope])
        case "impersonated_service_account":
            factory: Any = impersonated_credentials.Credentials
            return factory.from_impersonated_service_account_info(key, scopes=[scope])
        case "external_account":
            return _federated(key).from_info(key, scopes=[scope])
    expected = "service_account, external_account, impersonated_service_account or authorized_user"
    raise ConfigError([f"{file}: unknown type {key.get('type')!r}; expected {expected}"])


def _federated(key: Mapping[str, Any]) -> Any:
    source = key.get("credential_source")
    if key.get("subject_token_type") == _AWS_TOKEN:
        return aws.Credentials
    if isinstance(source, dict) and "executable" in source:
        return pluggable.Credentials
    return identity_pool.Credentials
