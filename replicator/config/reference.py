"""The reference of the config, docs/configuration.md, made from the model.

python -m replicator.config.reference > docs/configuration.md
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
import types
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from pydantic.fields import FieldInfo

from replicator.config.model import (
    AgentTable,
    BandwidthTable,
    CacheTable,
    HMACTable,
    HTTPTable,
    LimitsTable,
    NotifyTable,
    QuotaTable,
    RenameTable,
    RenameTagsTable,
    ReplacementTable,
    RuleHooksTable,
    RuleTable,
    ServerTLSTable,
    SiteTable,
    Table,
    TagsTable,
    TimeoutsTable,
    TLSTable,
    WebhookTable,
    WindowTable,
    keys_of,
    table_in,
)
from replicator.config.syntax import Syntax
from replicator.sites.registry.capabilities import CapabilityRecord

_HEAD: Final = """\
# Configuration

<!-- Made by `python -m replicator.config.reference > docs/configuration.md`; a test compares. -->

replicator reads one TOML file: the one named by `-c/--config`, else by `$REPLICATOR_CONFIG`, else `./replicator.toml`,
else `/etc/replicator/config.toml`. A config that works:

```toml
[site.hub]
url      = "https://registry.example.com"
username = "mirror"
password = { file = "/etc/replicator/hub.password" }

[site.fra]
url = "https://registry.fra.example.com"

[[rule]]
name         = "platform"
source       = "hub"
destinations = ["fra"]
repositories = ["platform/**", "!platform/scratch/**"]
tags         = { include = ["v*"], exclude = ["*-rc*"], latest = 10 }
```

`config.example.toml` shows every key. `replicator config show` prints the config as it takes effect, secrets masked;
`replicator config schema` prints a JSON Schema for editors.

**All mistakes at once.** Unknown keys, unknown sites, bad patterns, contradictions and secrets that cannot be read are
errors. All of them are reported together, each with file, key and what would be right, and the program exits with 2
before it asks any registry anything.

**More files.** Every `conf.d/*.toml` beside the config is merged in, in the order of the names: sites and rules add up.
A name that is taken, or a second `[agent]`, is an error that names both files.

**Variables.** `${NAME}` in any string value is replaced by that environment variable, which must be set. `$${` is a
literal `${`.

**Secrets** are `{ credential = "NAME" }` (a file in systemd's `$CREDENTIALS_DIRECTORY`), `{ file = "PATH" }`,
`{ env = "NAME" }` or, with a warning, a literal string. Newlines at the end of a file do not count. Files are read
again after a registry refused the secret, so a rotated secret needs no restart. A secret is never printed or logged.

**Values.** A *name* is a letter or digit, then letters, digits, `.`, `_` and `-`. A *duration* is whole numbers with the
units `w`, `d`, `h`, `m`, `s`, as in `90s`, `1h30m`, `1d`. A *size* is a number with a unit, `B`, `kB`, `MB`, `GB`, `TB`
(powers of 1000) or `KiB`, `MiB`, `GiB`, `TiB` (powers of 1024). A relative *path* starts at the folder of the file that
it stands in. In *patterns* `*` and `?` stay within one path component, `**` crosses, `[a-z]` is one of these characters,
`{a,b}` either; in tags `re:` starts a regular expression (Python's `re`) that must match the whole tag. A *version range*
is as npm writes it: `>=1.2 <2`, `^1.4`, `~2.3`, `1.x`, `1.2 - 1.4`, alternatives with `||`.
"""

_CAPABILITIES: Final = """\
## `capabilities` of a site

replicator knows the large registries by their host, recognises others by their answers, and learns from refusals. A key
here overrides that for one site.
"""

_SECTIONS: Final[tuple[tuple[str, type[Table]], ...]] = (
    ("`[agent]`", AgentTable),
    ("`cache` of the agent", CacheTable),
    ("`[site.NAME]`", SiteTable),
    ("`tls` of a site", TLSTable),
    ("`limits` of a site", LimitsTable),
    ("`bytes_per_second` of `limits`, as a table", BandwidthTable),
    ("`windows` of `bytes_per_second`", WindowTable),
    ("`timeouts` of a site", TimeoutsTable),
    ("`quota` of a site", QuotaTable),
    ("`[[rule]]`", RuleTable),
    ("`tags` of a rule", TagsTable),
    ("`rename` of a rule", RenameTable),
    ("`rename.tags` of a rule", RenameTagsTable),
    ("`regex` of `rename` and `rename.tags`", ReplacementTable),
    ("`hooks` of a rule", RuleHooksTable),
    ("`[http]`", HTTPTable),
    ("`tls` of `http`", ServerTLSTable),
    ("`[webhook.NAME]`", WebhookTable),
    ("`hmac` of a webhook", HMACTable),
    ("`[notify.NAME]`", NotifyTable),
)


def reference() -> str:
    """docs/configuration.md as it has to be."""
    parts = [_HEAD]
    for title, model in _SECTIONS:
        parts.append(f"## {title}\n\n{model.__doc__}\n\n{_table(_rows(model))}")
        if model is QuotaTable:
            parts.append(f"{_CAPABILITIES}\n{_table(_capabilities())}\n{_capabilities_doc()}")
    return "\n".join(parts)


def _table(rows: list[tuple[str, ...]]) -> str:
    lines = [("key", "type", "default", "meaning")[: len(rows[0])], ("---",) * len(rows[0]), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def _rows(model: type[Table]) -> list[tuple[str, ...]]:
    return [
        (f"`{key}`", _type_of(info), _default(info), info.description or "")
        for key, info in keys_of(model).items()
    ]


def _capabilities() -> list[tuple[str, ...]]:
    hints = get_type_hints(CapabilityRecord)
    return [
        (f"`{field.name}`", _words(hints[field.name]), f"`{_toml(field.default)}`")
        for field in dataclasses.fields(CapabilityRecord)
    ]


def _capabilities_doc() -> str:
    """The record's own description, its fields as a list."""
    return inspect.cleandoc(CapabilityRecord.__doc__ or "").replace("\n`", "\n- `") + "\n"


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    return "" if info.default in {None, ""} or info.default_factory else f"`{_toml(info.default)}`"


def _toml(value: object) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    return str(value).lower()


def _type_of(info: FieldInfo) -> str:
    syntax = next((mark for mark in info.metadata if isinstance(mark, Syntax)), None)
    return syntax.word if syntax else _words(info.annotation)


def _words(annotation: Any) -> str:
    """A type in TOML's words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{_toml(value)}`" for value in arguments)
    if origin in {Union, types.UnionType}:
        return " or ".join(_words(part) for part in arguments if part is not type(None))
    if origin is list:
        inner = table_in(annotation)
        return "table or list of tables" if inner is TagsTable else f"list of {_plural(_words(arguments[0]))}"
    if origin is dict or table_in(annotation) is not None:
        return "table"
    if syntax := next((mark for mark in arguments if isinstance(mark, Syntax)), None):
        return syntax.word
    return {str: "string", bool: "boolean", int: "integer", float: "number"}[annotation]


def _plural(word: str) -> str:
    first, space, rest = word.partition(" or ")
    return f"{first}s{space}{_plural(rest) if rest else ''}"


if __name__ == "__main__":
    sys.stdout.write(reference())
