"""How far a scan is, told as events."""

from __future__ import annotations

from replicator.events import Events, ScanMoved


class ScanCount:
    """Counts the repositories of one scan and tells each change.

    Args:
        rule: the rule's name.
        source: its source's name.
        events: gets `ScanMoved`.
    """

    def __init__(self, rule: str, source: str, events: Events) -> None:
        self._rule = rule
        self._source = source
        self._events = events
        self._scanned = self._found = self._unlisted = 0
        self._is_listed = False

    def find(self, count: int, *, is_all: bool = False) -> None:
        """More repositories are to be scanned; with `is_all`, no others will be found."""
        self._found += count
        self._is_listed = is_all
        self._tell()

    def scan(self, *, is_listed: bool) -> None:
        """A repository was scanned; whether it could be listed as a whole."""
        self._scanned += 1
        self._unlisted += not is_listed
        self._tell()

    def __enter__(self) -> None:
        """The scan begins."""

    def __exit__(self, *_: object) -> None:
        """The scan is over."""
        self._is_listed = True
        self._tell(is_over=True)

    def _tell(self, *, is_over: bool = False) -> None:
        self._events.emit(
            ScanMoved(
                self._rule, self._source, self._scanned, self._found, self._is_listed, is_over, self._unlisted
            )
        )
