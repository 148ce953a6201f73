"""What a rule's run at one destination comes to: the report's part, the state's entries, the events."""

from __future__ import annotations

from typing import Final

from replicator.engine.context import Context
from replicator.engine.observe.wanted import UnresolvedTag, WantedTags
from replicator.engine.plan.action import Action
from replicator.engine.plan.decision import Gone
from replicator.engine.plan.fingerprint import fingerprint_of, with_part
from replicator.engine.result import (
    ActionName,
    ActionOutcome,
    ActionResult,
    DestinationResult,
    Failure,
    Outcome,
    Totals,
    failure_of,
    last_cause,
)
from replicator.engine.units import Units
from replicator.errors import HoldKind, ReplicatorError, SiteError, Untrusted
from replicator.events import Failed, TagDone, TagPlanned, TagPostponed, TagUntrusted, Warned
from replicator.model.image import Image
from replicator.policy.backoff import retry_at
from replicator.policy.rule import Rule
from replicator.ports import (
    CatalogSeen,
    Missing,
    Pending,
    Placed,
    Placement,
    RunRow,
    TagBelief,
    Unpending,
)

_NAMED_SKIPS: Final = 3


class Recorder:
    """Keeps the count. What becomes of a tag goes through one of its methods, once.

    `units`: what its source repositories come to.
    """

    def __init__(self, rule: Rule, destination: str, context: Context) -> None:
        self._rule = rule
        self._part = rule.part
        self._context = context
        self._began = context.clock.now()
        self._told: set[Failure] = set()
        self._untrusted: set[str] = set()
        self.result = DestinationResult(destination)
        self.units = Units(rule.name, destination, context)
        self.complete_look = True
        self.was_interrupted = False
        self.skips: list[str] = []
        self._overtaken = ""
        self._catalog_at: float | None = None

    def catalog(self, repositories: frozenset[str], at: float) -> None:
        """The source was asked for its repositories and answered completely: these are the rule's."""
        shard = self._context.request.shard
        self._catalog_at = at
        if not self._context.request.dry and (shard is None or not shard.index):  # one shard of all tells it
            name, destination = self._rule.name, self.result.destination
            self._context.state.record(
                CatalogSeen(name, destination, repositories, at, is_looked_at=shard is None)
            )

    # --- tags ---

    def unchanged(self, repository: str) -> None:
        """A tag is in step already."""
        self.result.totals.tags.unchanged += 1
        self.units.count(repository, in_step=1)

    def placed(self, action: Action, *, is_verified: bool, image: Image | None = None) -> None:
        """The destination has a tag, as seen now; with all that its root leads to, where that was seen too (`is_verified`)."""
        if self._context.request.dry:
            return
        now = self._context.clock.now()
        belief = TagBelief(
            action.key,
            action.digest,
            action.source_root,
            self._rule.name,
            now,
            action.asked_wall,
            action.companion_state,
        )
        placement = None
        if is_verified:
            known = action.placement
            before = known.fingerprint if known else ""
            fingerprint = fingerprint_of(image, self._part) if image else with_part(before, self._part)
            written_at = known.written_at if known and not image else now
            placement = Placement(action.digest, fingerprint, written_at, now)
        self._context.state.record(
            Placed(self._rule.name, self.result.destination, belief, action.target, placement)
        )

    def planned(self, action: Action, totals: Totals, to_send: int, note: str = "") -> None:
        """Only in a plan: what would be done. `note` is for whoever reads the reason."""
        self.result.totals.add(totals)
        self.result.totals.tags.copied += 1
        done = self._row(action, "planned", _noted(action.reason, note), written=to_send)
        done.blobs = totals.blobs
        self.result.actions.append(done)

    def pend(self, action: Action) -> None:
        """A tag is going to be copied: until then it is pending."""
        self._missing(action, attempts=action.attempts, error="", reason="", not_before=0.0)

    def copied(self, action: Action, totals: Totals, seconds: float, note: str = "") -> None:
        """A tag's copy is in step now. `note` is for whoever reads the reason."""
        self.result.totals.add(totals)
        self.result.totals.tags.copied += 1
        self.units.count(action.repository, in_step=1)
        done = self._row(action, "copied", _noted(action.reason, note), written=totals.bytes.written)
        done.seconds = round(seconds, 3)
        self.result.actions.append(done)
        self._emit(
            action.target,
            action.key,
            "copy",
            "copied",
            delay=max(0.0, self._context.clock.now() - action.since),
        )

    def failed(
        self,
        action: Action,
        error: ReplicatorError,
        totals: Totals | None = None,
        *,
        was_queued: bool = True,
    ) -> None:
        """A tag could not be brought in step. `was_queued`: it was to be copied."""
        if totals is not None:
            self.result.totals.add(totals)
        self.result.totals.tags.failed += 1
        self.result.actions.append(self._row(action, "failed", str(error)))
        self.failure(error, action.target)
        attempts = action.attempts + 1
        reason = error.reason if isinstance(error, SiteError) else "internal"
        not_before = retry_at(self._context.clock.now(), attempts)
        self._missing(action, attempts=attempts, error=str(error), reason=reason, not_before=not_before)
        self._emit(action.target, action.key, "copy", "failed", was_queued=was_queued)

    def unresolved(
        self, batch: WantedTags, tag: UnresolvedTag, pending: Pending | None, since: float
    ) -> None:
        """The source could not tell what a selected tag names: it is pending all the same."""
        error, now = tag.error, self._context.clock.now()
        self.result.totals.tags.failed += 1
        self.failure(error)
        digest = None if pending is None else pending.digest
        self.result.actions.append(
            ActionResult(
                "copy", batch.repository, batch.target, tag.target, digest or "", "failed", str(error)
            )
        )
        attempts = 1 if pending is None else pending.attempts + 1
        self._pend(
            Pending(
                batch.target,
                tag.target,
                None,
                pending.since if pending and not pending.hold else since,
                attempts,
                str(error),
                error.reason,
                retry_at(now, attempts),
                source=batch.repository,
                asked_at=batch.asked_wall,
            )
        )
        self._emit(batch.target, tag.target, "copy", "failed", was_queued=False)

    def untrusted(self, action: Action, error: Untrusted, totals: Totals) -> None:
        """A tag is held because its image is not trusted; `error` says what is missing."""
        self.result.totals.add(totals)
        self._untrusted.add(f"{action.target}:{action.key}")
        self.held(action, f"not trusted: {error.cause}", error.hold)
        if not self._context.request.dry:
            self._context.events.emit(
                TagUntrusted(
                    self._rule.name,
                    self.result.destination,
                    action.repository,
                    action.wanted.tag,
                    action.target,
                    action.key,
                    action.digest,
                    error.cause,
                )
            )

    def held(self, action: Action, reason: str, kind: HoldKind, *, was_queued: bool = True) -> None:
        """A tag is left as it is on purpose. Nothing is recorded where that is known already.

        `was_queued`: it was to be copied, so that it has been recorded as pending since.
        """
        self.result.totals.tags.held += 1
        self.units.count(action.repository, held=1)
        self.result.actions.append(self._row(action, "held", reason, name="hold", hold=kind))
        if was_queued or action.hold != reason:
            self._missing(action, attempts=0, error="", reason=kind, not_before=0.0, hold=reason)
        self._emit(action.target, action.key, "hold", "held", was_queued=was_queued)

    def skipped(self, action: Action, reason: str) -> None:
        """The rule leaves a tag out, as its image shows: it counts as not selected, and is named in a warning."""
        self.skips.append(f"{action.target}:{action.key}: {reason}")
        self.unwanted(action.target, action.key, action.asked_wall)

    def postponed(self, action: Action, reason: str) -> None:
        """A tag that failed before is not tried again yet: it counts as failed and stays pending."""
        self.result.totals.tags.failed += 1
        self.result.actions.append(self._row(action, "failed", reason))
        if not self._context.request.dry:
            self._context.events.emit(TagPostponed(self._rule.name, self.result.destination))

    def interrupted(self, action: Action, totals: Totals) -> None:
        """A copy was ended by a drain; it stays pending."""
        self.was_interrupted = True
        self.result.totals.add(totals)
        self.result.actions.append(self._row(action, "interrupted", "ended before it was done"))

    def overtaken(self, action: Action, totals: Totals, why: str) -> None:
        """A copy was given up because another agent may have taken over; the tag stays pending."""
        if not self._overtaken:
            self._context.events.emit(Warned(self.result.destination, why))
            self.warn(why)
        self._overtaken = why
        self.interrupted(action, totals)

    def kept(self, gone: Gone) -> None:
        """A tag that this rule once put there is gone at the source, and stays."""
        reason = "gone at the source; nothing is deleted"
        self.result.actions.append(
            ActionResult("keep", gone.repository, gone.target, gone.tag, gone.digest, "kept", reason)
        )

    @property
    def untrusted_tags(self) -> frozenset[str]:
        """The tags that are held because their images are not trusted, each as `repository:tag`."""
        return frozenset(self._untrusted)

    def unwanted(self, target: str, tag: str, asked_at: float) -> None:
        """A tag that was pending or held is gone at the source, or no longer selected."""
        if not self._context.request.dry:
            self._context.state.record(
                Unpending(self._rule.name, self.result.destination, target, tag, asked_at)
            )

    def unseen(self, repository: str, count: int) -> None:
        """A repository could not be asked, of which at most `count` tags are wanted."""
        self.result.totals.tags.failed += count
        self.units.count(repository, unknown=count)

    def unreadable(self, error: SiteError) -> None:
        """The destination does not tell what a tag is there."""
        text = f"{error}; the tag cannot be read there, so it is compared with what was last written"
        self.notice(text)

    # --- the rest of the report ---

    def failure(self, error: ReplicatorError, repository: str | None = None) -> None:
        """Something failed for good. One failure that many tags of a repository share is told once."""
        failure = failure_of(error, repository, self.result.destination)
        if failure in self._told:
            return
        self._told.add(failure)
        self.result.failures.append(failure)
        self._context.events.emit(
            Failed(
                self._rule.name,
                self.result.destination,
                failure.site,
                failure.repository,
                failure.operation,
                failure.reason,
                failure.cause,
            )
        )

    def notice(self, text: str) -> None:
        """Adds a warning once; "" is none."""
        if text and text not in self.result.warnings:
            self.warn(text)

    def warn(self, text: str) -> None:
        """Adds a warning for the operator."""
        self.result.warnings.append(text)

    def close(self, *, interrupted: bool) -> RunRow:
        """Settles the outcome and gives the row that closes the run."""
        if self.skips:
            more = f" and {len(self.skips) - _NAMED_SKIPS} more" if len(self.skips) > _NAMED_SKIPS else ""
            self.warn(f"skipped: {'; '.join(self.skips[:_NAMED_SKIPS])}{more}")
        tags = self.result.totals.tags
        good = tags.copied + tags.unchanged
        outcome: Outcome = "ok"
        if interrupted:
            outcome = "interrupted"
        elif self.result.failures or tags.failed:
            outcome = "partial" if good else "failed"
        self.result.outcome = outcome
        scope = self._context.request.scope
        return RunRow(
            rule=self._rule.name,
            destination=self.result.destination,
            started_at=self._began,
            ended_at=self._context.clock.now(),
            outcome=outcome,
            complete_look=self.complete_look and not interrupted and scope is None,
            in_step=good,
            held=tags.held,
            failed=tags.failed,
            error=last_cause(self.result.failures) or self._overtaken,
            narrowed=scope is not None,
            shard=self._context.request.shard,
            catalog_at=self._catalog_at,
        )

    def _row(
        self,
        action: Action,
        outcome: ActionOutcome,
        reason: str | None,
        *,
        written: int = 0,
        name: ActionName = "copy",
        hold: HoldKind | None = None,
    ) -> ActionResult:
        return ActionResult(
            action=name,
            repository=action.repository,
            target=action.target,
            tag=action.wanted.target,
            digest=action.digest,
            outcome=outcome,
            reason=f"{reason}; {action.note}" if action.note and reason else reason,
            bytes=written,
            hold=hold,
        )

    def _missing(
        self,
        action: Action,
        *,
        attempts: int,
        error: str,
        reason: str,
        not_before: float,
        hold: str = "",
    ) -> None:
        self._pend(
            Pending(
                action.target,
                action.key,
                action.source_root,
                action.since,
                attempts,
                error,
                reason,
                not_before,
                source=action.repository,
                asked_at=action.asked_wall,
                hold=hold,
            )
        )

    def _pend(self, pending: Pending) -> None:
        if not self._context.request.dry:
            self._context.state.record(Missing(self._rule.name, self.result.destination, pending))

    def _emit(
        self,
        target: str,
        key: str,
        name: ActionName,
        outcome: str,
        delay: float | None = None,
        *,
        was_queued: bool = True,
    ) -> None:
        if self._context.request.dry:
            return
        destination = self.result.destination
        if not was_queued:
            self._context.events.emit(TagPlanned(self._rule.name, destination))
        self._context.events.emit(TagDone(self._rule.name, destination, target, key, name, outcome, delay))


def _noted(reason: str, note: str) -> str:
    return f"{reason}; {note}" if note else reason
