"""Config files: finding them, reading them and merging them into one document."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from replicator.config.syntax import parse_name
from replicator.config.text import decoded
from replicator.errors import ConfigError

KeyPath = tuple[str | int, ...]
"""Keys and list indexes, starting at the top of a file or of a section."""

DEFAULT_PATHS: Final = (Path("replicator.toml"), Path("/etc/replicator/config.toml"))
MAX_FILE_BYTES: Final = 16 * 1024 * 1024
SECTIONS: Final = ("agent", "http", "fleet", "site", "rule", "webhook", "notify")
_ONCE: Final = frozenset({"agent", "http", "fleet"})
_NAMED: Final = frozenset({"site", "webhook", "notify"})

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_VARIABLE: Final = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)\}|\$\{")
_AT: Final = re.compile(r"(.*) \(at line (\d+), column (\d+)\)")


@dataclass(frozen=True, slots=True)
class Section:
    """One table of the document, variables expanded: `[agent]`, `[http]`, `[fleet]`, `[site.NAME]` (hook, notify) or `[[rule]]`.

    `unset`: the places whose variables are not set; no other problem is reported for them.
    `expanded`: the places that had variables, with the names of the variables.
    """

    file: Path
    place: KeyPath
    table: Mapping[str, Any] = field(repr=False)
    unset: frozenset[KeyPath]
    expanded: Mapping[KeyPath, frozenset[str]]

    def problem(self, place: KeyPath, text: str) -> str:
        """A problem of a place in this section, as one line."""
        return f"{self.file}: {dotted(self.place + place)}: {text}"


@dataclass(slots=True)
class Document:
    """The contents of all config files. `complete` is False if a file could not be read."""

    files: list[Path] = field(default_factory=list)
    once: dict[str, Section] = field(default_factory=dict)
    named: dict[str, dict[str, Section]] = field(default_factory=lambda: {key: {} for key in _NAMED})
    rules: list[Section] = field(default_factory=list)
    complete: bool = True

    @property
    def agent(self) -> Section | None:
        """`[agent]`, if present."""
        return self.once.get("agent")

    @property
    def http(self) -> Section | None:
        """`[http]`, if present."""
        return self.once.get("http")

    @property
    def fleet(self) -> Section | None:
        """`[fleet]`, if present."""
        return self.once.get("fleet")

    @property
    def sites(self) -> dict[str, Section]:
        """`[site.NAME]` by name."""
        return self.named["site"]

    @property
    def webhooks(self) -> dict[str, Section]:
        """`[webhook.NAME]` by name."""
        return self.named["webhook"]

    @property
    def notify(self) -> dict[str, Section]:
        """`[notify.NAME]` by name."""
        return self.named["notify"]


def dotted(place: KeyPath) -> str:
    """A place in the notation of TOML keys: `rule.platform.tags[1].semver`."""
    text = ""
    for step in place:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            key = step if _BARE.fullmatch(step) else '"' + step.replace('"', '\\"') + '"'
            text += f".{key}" if text else key
    return text


def suggest(word: str, known: Iterable[str]) -> str:
    """A hint for an unknown word: the most similar known word, else all known words."""
    words = sorted(known)
    near = difflib.get_close_matches(word, words, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"known: {', '.join(words)}" if words else "there are none"


def find(path: Path | None, environ: Mapping[str, str]) -> Path:
    """The config file: the one given, else `$REPLICATOR_CONFIG`, else the first of `DEFAULT_PATHS` that exists.

    Raises:
        ConfigError: no config file exists. A path that was given is returned unchecked.
    """
    if path is not None:
        return path
    if variable := environ.get("REPLICATOR_CONFIG"):
        return Path(variable)
    for candidate in DEFAULT_PATHS:
        if candidate.exists():
            return candidate
    tried = ", ".join(["$REPLICATOR_CONFIG (not set)", *(str(candidate) for candidate in DEFAULT_PATHS)])
    raise ConfigError(
        [
            f"no config file found: tried {tried}; use --config FILE, write one with `replicator init`, or see `replicator demo`"
        ]
    )


def read_document(main: Path, environ: Mapping[str, str], problems: list[str]) -> Document:
    """The config file, then `conf.d/*.toml` beside it in the order of their names. Adds to `problems`; never raises."""
    document = Document()
    folder = main.parent / "conf.d"
    for file in [main, *sorted(folder.glob("*.toml"))]:
        document.files.append(file)
        try:
            tables = _read(file, is_main=file is main)
        except ValueError as error:
            problems.append(str(error))
            document.complete = False
        else:
            _Merge(document, file, environ, problems).add(tables)
    return document


def _read(file: Path, *, is_main: bool) -> dict[str, Any]:
    try:
        # The main file may be a pipe, as in `-c <(sops -d config.toml)`; one in conf.d would only ever hang.
        if not is_main and not file.is_file() and file.exists():
            raise ValueError(f"{file}: is not a regular file")
        with file.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{file}: cannot be read: {error.strerror}") from error
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"{file}: is larger than {MAX_FILE_BYTES} bytes")
    try:
        return tomllib.loads(decoded(data).replace("\r\n", "\n"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: is not valid UTF-8, which TOML requires") from error
    except tomllib.TOMLDecodeError as error:
        found = _AT.fullmatch(str(error))
        where, what = (f"{file}:{found[2]}:{found[3]}", found[1]) if found else (str(file), str(error))
        if what.startswith("Unescaped '\\'"):
            what += "; put it in single quotes, as in 're:v\\d+', or write \\\\"
        raise ValueError(f"{where}: is not valid TOML: {what}") from error
    except RecursionError as error:
        raise ValueError(f"{file}: is not valid TOML: nested too deeply") from error


class _Merge:
    """Adds the tables of one file to the document."""

    def __init__(
        self, document: Document, file: Path, environ: Mapping[str, str], problems: list[str]
    ) -> None:
        self._document = document
        self._file = file
        self._environ = environ
        self._problems = problems

    def add(self, tables: Mapping[str, Any]) -> None:
        for key, value in tables.items():
            if key in _ONCE:
                self._once(key, value)
            elif key in _NAMED:
                self._named(key, value)
            elif key == "rule":
                self._rules(value)
            else:
                self._problem((key,), f"unknown key; {suggest(key, SECTIONS)}")

    def _problem(self, place: KeyPath, text: str) -> None:
        self._problems.append(f"{self._file}: {dotted(place)}: {text}")

    def _once(self, key: str, value: Any) -> None:
        other = self._document.once.get(key)
        if not isinstance(value, dict):
            self._problem((key,), f"must be a table; write [{key}]")
        elif other is not None:
            self._problem((key,), f"is already defined in {other.file}; define [{key}] only once")
        else:
            self._document.once[key] = self._section((key,), value)

    def _named(self, key: str, value: Any) -> None:
        if not isinstance(value, dict):
            self._problem((key,), f"must be a table of tables; write [{key}.NAME]")
            return
        known = self._document.named[key]
        for name, table in value.items():
            place = (key, name)
            other = known.get(name)
            if not isinstance(table, dict):
                self._problem(place, f"must be a table; write [{key}.NAME] above the keys of a {key}")
            elif other is not None:
                self._problem(
                    place, f"a {key} with this name is already defined in {other.file}; choose another name"
                )
            else:
                try:
                    parse_name(name)
                except ValueError as error:
                    self._problem(place, str(error))
                known[name] = self._section(place, table)

    def _rules(self, value: Any) -> None:
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            self._problem(("rule",), "must be a list of tables; write [[rule]] above each rule")
            return
        for index, table in enumerate(value):
            name = table.get("name")
            place: KeyPath = ("rule", name) if isinstance(name, str) and name else ("rule", index)
            other = next((rule for rule in self._document.rules if rule.table.get("name") == name), None)
            section = self._section(place, table)
            if other is not None and isinstance(name, str):
                self._problem(
                    (*place, "name"),
                    f"a rule with this name is already defined in {other.file}; choose another name",
                )
            self._document.rules.append(section)

    def _section(self, place: KeyPath, table: Mapping[str, Any]) -> Section:
        expansion = _Expansion(self._environ)
        expanded = expansion.expand(table, ())
        for at, text in expansion.problems:
            self._problem(place + at, text)
        return Section(
            self._file,
            place,
            expanded,
            frozenset(at for at, _ in expansion.problems),
            {place: frozenset(names) for place, names in expansion.names.items()},
        )


class _Expansion:
    """Expands environment variables in the string values of one section."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.problems: list[tuple[KeyPath, str]] = []
        self.names: dict[KeyPath, set[str]] = {}

    def expand(self, value: Any, place: KeyPath) -> Any:
        if isinstance(value, dict):
            return {key: self.expand(item, (*place, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self.expand(item, (*place, index)) for index, item in enumerate(value)]
        if isinstance(value, str) and "${" in value:
            return _VARIABLE.sub(lambda match: self._replace(match, place), value)
        return value

    def _replace(self, match: re.Match[str], place: KeyPath) -> str:
        name = match[1]
        if match[0] == "$${":
            return "${"
        if name is None:
            self.problems.append((place, "contains ${ without NAME}; write ${NAME}, or $${ for a literal ${"))
        elif name not in self._environ:
            self.problems.append(
                (
                    place,
                    f"the environment variable {name} is not set; set it, or write $${{ for a literal ${{",
                )
            )
        else:
            self.names.setdefault(place, set()).add(name)
            return self._environ[name]
        return match[0]
