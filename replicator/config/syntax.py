"""Values of the config with a syntax of their own: how each is written, and how it is parsed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec
from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic_core import CoreSchema, core_schema

from replicator.config.secrets import parse_secret
from replicator.config.template import parse_template
from replicator.config.units import parse_duration, parse_size
from replicator.config.urls import parse_proxy, parse_registry, parse_url
from replicator.lists.reading import parse_image_path
from replicator.model.digest import parse_digest
from replicator.model.names import parse_tag
from replicator.policy.bandwidth import parse_days, parse_time
from replicator.policy.pattern import Glob, TagPattern, parse_tag_pattern
from replicator.policy.platforms import parse_platform
from replicator.policy.referrers import parse_referrer_pattern
from replicator.policy.rule import Pin
from replicator.policy.schedule import Cron
from replicator.policy.semver import SemverRange
from replicator.sites.registry.vendors.known import KINDS
from replicator.sites.registry.vendors.senders import FORMATS
from replicator.state.place import Place, PostgresPlace, parse_postgres

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST_START: Final = re.compile(r"[a-z0-9]+:[0-9a-fA-F]{32}")
_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,80}")
_EXCLUSION: Final = re.compile(r"[0-9A-Za-z._*-]{1,128}")
_MAX_JSON_BYTES: Final = 64 * 1024


class Context(msgspec.Struct, frozen=True):
    """The context of a value: relative paths are relative to `folder`; secrets may come from `environ`."""

    folder: Path
    environ: Mapping[str, str]


class Syntax(msgspec.Struct, frozen=True):
    """The syntax of one kind of value: an `Annotated` mark that both pydantic and the reference read.

    `parse` gets the raw value. Its ValueError says what is wrong and what would be right.
    """

    word: str
    parse: Callable[[Any, Context], Any]
    schema: Mapping[str, Any]
    secret: bool = False

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(self._validate)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        described = dict(self.schema)
        if "pattern" in described:
            described["pattern"] += r"|\$\{"  # a variable may replace any part of the value
        return described

    def _validate(self, value: Any, info: ValidationInfo) -> Any:
        return self.parse(value, info.context)  # type: ignore[arg-type]  # every validation here passes a Context


class RepositoryPattern(msgspec.Struct, frozen=True):
    """One entry of `repositories`; `!` before it negates."""

    glob: Glob
    negated: bool


def parse_name(text: str) -> str:
    """A name of a rule, site or agent; raises ValueError."""
    if not _NAME.fullmatch(text):
        raise ValueError(
            f"invalid name {text[:80]!r}: write a letter or digit, then at most 63 of letters, digits, '.', '_' and '-'"
        )
    return text


def parse_kind(text: str) -> str:
    """The word of a vendor of registries; raises ValueError."""
    if text not in KINDS:
        raise ValueError(f"unknown kind {text[:80]!r}: write one of {', '.join(KINDS)}")
    return text


def parse_state(text: str) -> Place:
    """The file of a `sqlite:///ABSOLUTE` URL, or the database of a `postgresql://` one; raises ValueError."""
    scheme, colon, rest = text.partition("://")
    example = 'write "sqlite:////var/lib/replicator/state.db"'
    if colon and scheme == "postgresql":
        return PostgresPlace(parse_postgres(text))
    if not colon or scheme != "sqlite":
        raise ValueError(f"must be a URL with the scheme sqlite or postgresql; {example}")
    path = Path(rest[1:])
    if not rest.startswith("/") or not path.is_absolute() or not path.name:
        raise ValueError(f"must be the absolute path of a file, with four slashes; {example}")
    return path


def parse_path(text: str) -> Path:
    """An absolute path; raises ValueError."""
    path = Path(text)
    if not path.is_absolute():
        raise ValueError(f"{text!r} is relative; write an absolute path")
    return path


def parse_listen(text: str) -> tuple[str, int]:
    """Address and port of `ADDRESS:PORT` or `[::1]:PORT`; port 0 means any free port. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    inner = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not inner or (":" in inner) != (inner != host) or not re.fullmatch(r"[0-9]{1,5}", port):
        raise ValueError(f'invalid address {text[:80]!r}; write "127.0.0.1:9650" or "[::]:9650"')
    if int(port) > 65535:
        raise ValueError(f"invalid port {port}: must be at most 65535")
    return inner, int(port)


def parse_timezone(text: str) -> ZoneInfo:
    """A zone of the IANA database, such as `Europe/Berlin`; raises ValueError."""
    try:
        return ZoneInfo(text)
    except (OSError, KeyError, ValueError):
        raise ValueError(
            f'unknown time zone {text[:80]!r}; write a name such as "Europe/Berlin" (on Debian, the package tzdata '
            "has them)"
        ) from None


def parse_header(text: str) -> str:
    """The name of an HTTP header; raises ValueError."""
    if not _HEADER.fullmatch(text):
        raise ValueError(f'invalid header name {text[:80]!r}; write a name such as "X-Signature"')
    return text


def parse_sender(text: str) -> str:
    """A kind of notifications; raises ValueError."""
    if text not in FORMATS:
        raise ValueError(f"unknown kind {text[:80]!r}; write one of {', '.join(sorted(FORMATS))}")
    return text


def parse_argument(text: str) -> str:
    """An argument of a command; raises ValueError for a NUL character."""
    if "\0" in text:
        raise ValueError("contains a NUL character, which arguments cannot have")
    return text


def parse_lists(value: Any, context: Context) -> str:
    """The name of image lists, which may be a glob, from the root on. They need not exist yet."""
    text = _string(value)
    if not text or "://" in text or text == "-":
        raise ValueError(f"{text!r} is not a file, glob or directory")
    return str(context.folder / text)


def parse_file(value: Any, context: Context) -> Path:
    """A readable file, relative to the directory of the config; raises ValueError."""
    path = context.folder / _string(value)
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    return path


def parse_exclusion(text: str) -> str:
    """A pattern of ECR for tags; raises ValueError."""
    if not _EXCLUSION.fullmatch(text):
        raise ValueError(
            f"invalid pattern {text[:80]!r}: write at most 128 letters, digits, '.', '_', '-' and '*'"
        )
    return text


def parse_json_file(value: Any, context: Context) -> str:
    """The text of a file with a JSON object; raises ValueError."""
    path = parse_file(value, context)
    data = path.read_bytes()[: _MAX_JSON_BYTES + 1]
    try:
        document = json.loads(data) if len(data) <= _MAX_JSON_BYTES else None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise ValueError(  # noqa: TRY004 - of the value, not of its type
            f"{path} is not a JSON object of {_MAX_JSON_BYTES} bytes at most"
        )
    return data.decode()


def parse_repository_pattern(text: str) -> RepositoryPattern:
    """A glob or exact name, with `!` in front to exclude it; raises ValueError."""
    negated = text.startswith("!")
    return RepositoryPattern(Glob.parse(text[1:] if negated else text), negated)


def parse_include(text: str) -> TagPattern | Pin:
    """A tag pattern, or a digest pin: `TAG@sha256:...` or `sha256:...`; raises ValueError."""
    if text.startswith("re:"):
        return parse_tag_pattern(text)
    tag, at, digest = text.rpartition("@")
    if at:
        return Pin(parse_digest(digest), parse_tag(tag))
    if _DIGEST_START.match(text):
        return Pin(parse_digest(text))
    return parse_tag_pattern(text)


def parse_plain_pattern(text: str) -> TagPattern:
    """A tag pattern where digests are not allowed; raises ValueError."""
    if not text.startswith("re:") and ("@" in text or _DIGEST_START.match(text)):
        raise ValueError(f"{text[:150]!r} is a digest, which only include accepts; write a tag or a pattern")
    return parse_tag_pattern(text)


def parse_regex(text: str) -> re.Pattern[str]:
    """A regular expression; raises ValueError, which says where it is wrong."""
    if not text:
        raise ValueError("is empty; write a regular expression")
    try:
        return re.compile(text)
    except re.error as error:
        raise ValueError(f"invalid regular expression {text!r}: {error}") from error


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be a string")  # noqa: TRY004  # pydantic collects ValueError only
    return value


def _text(parse: Callable[[str], Any]) -> Callable[[Any, Context], Any]:
    return lambda value, _: parse(_string(value))


NAME: Final = Syntax("name", _text(parse_name), {"type": "string", "pattern": f"^{_NAME.pattern}$"})
KIND: Final = Syntax("word", _text(parse_kind), {"type": "string", "enum": list(KINDS)})
CAPABILITY: Final = Syntax("value", lambda value, _: value, {"type": ["boolean", "integer", "string"]})
URL: Final = Syntax("URL", _text(parse_url), {"type": "string", "pattern": "^(https?|s3|file)://"})
ENDPOINT: Final = Syntax("URL", _text(parse_registry), {"type": "string", "pattern": "^https?://"})
PROXY: Final = Syntax("URL", _text(parse_proxy), {"type": "string", "pattern": "^(https?://.+)?$"})
STATE: Final = Syntax(
    "URL", _text(parse_state), {"type": "string", "pattern": "^(sqlite:////|postgresql://)."}
)
PATH: Final = Syntax("absolute path", _text(parse_path), {"type": "string", "pattern": "^/"})
LISTEN: Final = Syntax("address", _text(parse_listen), {"type": "string", "pattern": r"^.+:[0-9]+$"})
TIMEZONE: Final = Syntax(
    "time zone", _text(parse_timezone), {"type": "string", "minLength": 1, "examples": ["Europe/Berlin"]}
)
CRON: Final = Syntax(
    "cron expression", _text(Cron.parse), {"type": "string", "minLength": 9, "examples": ["*/5 * * * *"]}
)
DAYS: Final = Syntax("days", _text(parse_days), {"type": "string", "examples": ["mon-fri", "sat,sun"]})
TIME: Final = Syntax("time of day", _text(parse_time), {"type": "string", "pattern": r"^\d\d:\d\d$"})
HEADER: Final = Syntax("header name", _text(parse_header), {"type": "string", "minLength": 1})
SENDER: Final = Syntax("kind", _text(parse_sender), {"type": "string", "enum": sorted(FORMATS)})
ARGUMENT: Final = Syntax("string", _text(parse_argument), {"type": "string"})
TEMPLATE: Final = Syntax(
    "JSON", _text(parse_template), {"type": "string", "contentMediaType": "application/json"}
)
EXCLUSION: Final = Syntax(
    "pattern", _text(parse_exclusion), {"type": "string", "pattern": f"^{_EXCLUSION.pattern}$"}
)
FILE: Final = Syntax("path", parse_file, {"type": "string"})
JSON_FILE: Final = Syntax("path", parse_json_file, {"type": "string"})
LISTS: Final = Syntax("path", parse_lists, {"type": "string", "minLength": 1})
IMAGE_PATH: Final = Syntax("JSONPath", _text(parse_image_path), {"type": "string", "minLength": 2})
DURATION: Final = Syntax(
    "duration",
    _text(parse_duration),
    {
        "type": "string",
        "pattern": r"^(?=.)(\d+w)?(\d+d)?(\d+h)?(\d+m)?(\d+s)?$",
        "examples": ["90s", "1h30m", "1d"],
    },
)
SIZE: Final = Syntax(
    "size",
    _text(parse_size),
    {"type": "string", "pattern": r"^\d+(\.\d+)? ?([KkMmGgTt][Ii]?)?[Bb]$", "examples": ["50MB", "512MiB"]},
)
SECRET: Final = Syntax(
    "secret",
    lambda value, context: parse_secret(value, context.folder, context.environ),
    {
        "anyOf": [{"type": "string", "minLength": 1}]
        + [
            {
                "type": "object",
                "properties": {kind: {"type": "string", "minLength": 1}},
                "required": [kind],
                "additionalProperties": False,
            }
            for kind in ("credential", "file", "env")
        ]
    },
    secret=True,
)
REPOSITORIES: Final = Syntax("pattern", _text(parse_repository_pattern), {"type": "string", "minLength": 1})
INCLUDE: Final = Syntax("pattern or digest", _text(parse_include), {"type": "string", "minLength": 1})
PATTERN: Final = Syntax("pattern", _text(parse_plain_pattern), {"type": "string", "minLength": 1})
PLATFORM: Final = Syntax(
    "platform", _text(parse_platform), {"type": "string", "pattern": "^[^/]+/[^/]+(/[^/]+)?$"}
)
SEMVER: Final = Syntax("version range", _text(SemverRange.parse), {"type": "string", "minLength": 1})
REFERRER: Final = Syntax(
    "pattern", _text(parse_referrer_pattern), {"type": "string", "minLength": 1, "examples": ["signature"]}
)
REGEX: Final = Syntax(
    "regular expression", _text(parse_regex), {"type": "string", "minLength": 1, "format": "regex"}
)
