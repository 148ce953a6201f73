"""From what botocore raises to the `SiteError` that says so."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from botocore import exceptions as boto

from replicator.errors import (
    Advice,
    AuthFailed,
    Corrupt,
    Denied,
    NotFound,
    Rejected,
    SiteError,
    Throttled,
    TooSlow,
    Unavailable,
    Unsupported,
)
from replicator.scrub import scrub
from replicator.sites.objects.s3.transport import (
    AnswerTooLong,
    BrokenTransport,
    RedirectRefused,
    TruncatedBody,
)
from replicator.sites.reading import BrokenFraming, Late

_CREDENTIALS: Final = frozenset(
    {
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidToken",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
        "UnrecognizedClientException",
    }
)
_SLOWER: Final = frozenset(
    {
        "BandwidthLimitExceeded",
        "RequestLimitExceeded",
        "RequestThrottled",
        "ServiceUnavailable",
        "SlowDown",
        "SlowDownRead",  # MinIO
        "SlowDownWrite",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
        "TooManyRequestsException",
    }
)
_AGAIN: Final = frozenset(
    {"ConditionalRequestConflict", "InternalError", "OperationAborted", "RequestTimeout"}
)
_REGION: Final = frozenset(
    {
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraintException",
        "PermanentRedirect",
        "TemporaryRedirect",
    }
)
_FULL: Final = frozenset(
    {"InsufficientCapacity", "QuotaExceeded", "XMinioStorageFull", "XMinioStorageQuotaExceeded"}
)
_NOT_HERE: Final = frozenset({"NotImplemented", "XNotImplemented", "MethodNotAllowed"})
_SHOWN_CHARACTERS: Final = 200


@dataclass(frozen=True, slots=True)
class BucketAddress:
    """What an error of one bucket is about."""

    site: str
    bucket: str
    endpoint: str


def s3_error(place: BucketAddress, operation: str, error: Exception) -> SiteError:
    """What an exception of botocore or of the transport below it means and what to do about it."""
    if isinstance(error, boto.ClientError):
        return _refusal(place, operation, error)
    return _failure(place, operation, error)


def word(error: Exception) -> str:  # noqa: PLR0911 - a table
    """The error as a metric's label: the HTTP status where there was a reply."""
    match error:
        case boto.ClientError():
            return str(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", "error"))
        case boto.ConnectTimeoutError() | boto.ReadTimeoutError() | TimeoutError():
            return "timeout"
        case boto.SSLError() | ssl.SSLError():
            return "tls"
        case boto.EndpointConnectionError():
            return "connect"
        case boto.HTTPClientError() | BrokenTransport() | OSError():
            return "reset"
        case boto.IncompleteReadError():
            return "truncated"
        case BrokenFraming():
            return "malformed"
    return "error"


# --- a reply ------------------------------------------------------------------------------------------------


def _refusal(place: BucketAddress, operation: str, error: boto.ClientError) -> SiteError:  # noqa: C901, PLR0911 - a table
    told: Mapping[str, Any] = error.response.get("Error", {})
    meta: Mapping[str, Any] = error.response.get("ResponseMetadata", {})
    headers: Mapping[str, str] = meta.get("HTTPHeaders", {})
    status = int(meta.get("HTTPStatusCode", 0))
    code = str(told.get("Code", ""))
    text = _shown(str(told.get("Message") or ""))
    # A HEAD's reply has no body: botocore gives the status for a code.
    cause = f"{status} {text}" if code.isdigit() or not code else f"{code} ({status}): {text}"
    where = (place.site, operation, cause.rstrip(": "))
    if code in _SLOWER or status in {429, 503}:
        return Throttled(*where, retry_after=_seconds(headers.get("retry-after")))
    if code == "NoSuchBucket":
        text = f"bucket {place.bucket} does not exist at {place.endpoint}"
        return Rejected(place.site, operation, text, codes=(code,), status=status, advice=Advice.STOP_SITE)
    if code in _REGION or status in {301, 307}:
        return _wrong_region(place, operation, told, headers)
    if code in _CREDENTIALS or status == 401:
        return AuthFailed(*where)
    if code == "RequestTimeTooSkewed":
        text = f"{where[2]} (the clock of this machine or of the store is wrong)"
        return AuthFailed(place.site, operation, text)
    if code in _FULL or status == 507:
        return Unavailable(*where, advice=Advice.LATER, answered=True)
    if code in _NOT_HERE or status in {405, 501}:
        return Unsupported(*where)
    if code in _AGAIN or status >= 500 or status == 408:
        return Unavailable(*where, retry_after=_seconds(headers.get("retry-after")), answered=True)
    if code in {"AccessDenied", "AllAccessDisabled"} or status == 403:
        return Denied(*where)
    if code == "NoSuchKey" or (status == 404 and code in {"", "404", "NotFound"}):
        return NotFound(*where)
    return Rejected(*where, codes=(code,), status=status)


def _wrong_region(
    place: BucketAddress, operation: str, told: Mapping[str, Any], headers: Mapping[str, str]
) -> SiteError:
    region = str(told.get("Region") or headers.get("x-amz-bucket-region") or "")
    text = f"bucket {place.bucket} is in another region"
    text += f": set region = {_shown(region)!r}" if region else "; set the site's region"
    if endpoint := told.get("Endpoint"):
        text += f" (the store names {_shown(str(endpoint))})"
    return Rejected(place.site, operation, text, codes=(str(told.get("Code")),), advice=Advice.STOP_SITE)


def _seconds(text: str | None) -> float | None:
    return float(text[:9]) if text and text.isascii() and text.isdigit() else None


def _shown(text: str) -> str:
    return scrub(text, _SHOWN_CHARACTERS)


# --- no reply -----------------------------------------------------------------------------------------------


def _failure(place: BucketAddress, operation: str, error: Exception) -> SiteError:  # noqa: C901, PLR0911, PLR0912 - a table
    site, endpoint = place.site, place.endpoint
    if (bundle := _bundle_problem(error)) is not None:
        return Unavailable(site, operation, bundle, advice=Advice.STOP_SITE)
    match getattr(error, "kwargs", {}).get("error"):
        case RedirectRefused() as refused:
            return Rejected(site, operation, f"{endpoint}: {refused}", advice=Advice.STOP_SITE)
        case AnswerTooLong() as long:
            return Corrupt(site, operation, f"{endpoint}: {long}")
    match error:
        case Late(is_slow=True):
            return TooSlow(site, operation, f"{endpoint} {error.text}")
        case Late():
            return Unavailable(site, operation, f"{endpoint} {error.text}")
        case BrokenFraming():
            return Unavailable(
                site, operation, f"the answer of {endpoint} is not valid HTTP: its body breaks the framing"
            )
        case boto.NoCredentialsError():
            return AuthFailed(
                site,
                operation,
                "no credentials: none in the config, and botocore found none in the environment,"
                " ~/.aws, or of this machine's role",
            )
        case boto.PartialCredentialsError() | boto.ProfileNotFound() | boto.ConfigParseError():
            return AuthFailed(site, operation, _shown(str(error)))
        case boto.CredentialRetrievalError() | boto.MetadataRetrievalError() | boto.TokenRetrievalError():
            return AuthFailed(site, operation, _shown(str(error)), advice=Advice.LATER)
        case boto.SSLError():
            text = f"TLS with {endpoint}: {_shown(_inner(error))}"
            return Unavailable(site, operation, text, advice=Advice.STOP_SITE)
        case boto.ConnectTimeoutError():
            return Unavailable(site, operation, f"no connection to {endpoint} in time")
        case boto.ReadTimeoutError() | TimeoutError():
            return Unavailable(site, operation, f"no answer from {endpoint} in time")
        case boto.EndpointConnectionError():
            return Unavailable(site, operation, f"cannot connect to {endpoint}{_why(error)}")
        case boto.ProxyConnectionError():
            return Unavailable(site, operation, "cannot reach the proxy that the environment names")
        case boto.IncompleteReadError() | TruncatedBody():
            return Unavailable(site, operation, f"the answer of {endpoint} broke off")
        case boto.HTTPClientError() | BrokenTransport() | OSError():
            return Unavailable(site, operation, f"the connection to {endpoint} broke{_why(error)}")
        case boto.BotoCoreError() | ValueError():
            # Parameters, endpoint or bucket name that botocore does not take.
            text = _shown(str(error))
            return Rejected(site, operation, text, advice=Advice.GIVE_UP)
    return Unavailable(site, operation, f"{endpoint} does not answer as S3 does ({type(error).__name__})")


def _bundle_problem(error: Exception) -> str | None:
    """The certificates to trust cannot be read: botocore takes them from AWS_CA_BUNDLE or the profile."""
    inner = getattr(error, "kwargs", {}).get("error", error)
    if isinstance(inner, FileNotFoundError | PermissionError | IsADirectoryError) or (
        isinstance(inner, ssl.SSLError) and inner.reason in {None, "NO_CERTIFICATE_OR_CRL_FOUND", "PEM_LIB"}
    ):
        return f"cannot read the CA bundle that AWS_CA_BUNDLE (or ca_bundle in ~/.aws/config) names: {inner}"
    return None


def _inner(error: Exception) -> str:
    return str(getattr(error, "kwargs", {}).get("error", "") or error)


def _why(error: Exception) -> str:
    inner = getattr(error, "kwargs", {}).get("error", error)
    cause = getattr(inner, "os_error", inner)
    text = getattr(cause, "strerror", None) or ""
    return f": {_shown(str(text))}" if text and "Connect call failed" not in str(text) else ""
