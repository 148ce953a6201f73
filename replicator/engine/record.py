"""What a rule's run at one destination comes to: the report's part, the state's entries, the events."""

from __future__ import annotations

from replicator.engine.context import Context
from replicator.engine.plan.compare import Action
from replicator.engine.result import (
    ActionName,
    ActionOutcome,
    ActionResult,
    DestinationResult,
    Failure,
    Outcome,
    Totals,
)
from replicator.errors import ReplicatorError, SiteError
from replicator.events import Failed, TagDone
from replicator.policy.backoff import retry_at
from replicator.policy.rule import Rule
from replicator.ports import Missing, Pending, RunRow, Unpending


class Recorder:
    """Keeps the count. Every verdict about a tag goes through one of its methods, once."""

    def __init__(self, rule: Rule, destination: str, context: Context) -> None:
        self._rule = rule
        self._context = context
        self._began = context.clock.now()
        self._told: set[Failure] = set()
        self.result = DestinationResult(destination)
        self.complete_look = True
        self.was_interrupted = False

    def unchanged(self) -> None:
        """A tag is in step already."""
        self.result.totals.tags.unchanged += 1

    def planned(self, action: Action, totals: Totals, to_send: int) -> None:
        """Only in a plan: what would be done."""
        self.result.totals.add(totals)
        self.result.totals.tags.copied += 1
        done = self._row(action, "planned", action.reason, written=to_send)
        done.blobs = totals.blobs
        self.result.actions.append(done)

    def pend(self, action: Action) -> None:
        """A tag is going to be copied: until then it is pending."""
        self._missing(action, attempts=action.attempts, error="", reason="", not_before=0.0)

    def copied(self, action: Action, totals: Totals, seconds: float) -> None:
        """A tag's copy is in step now."""
        self.result.totals.add(totals)
        self.result.totals.tags.copied += 1
        done = self._row(action, "copied", action.reason, written=totals.bytes.written)
        done.seconds = round(seconds, 3)
        self.result.actions.append(done)
        self._emit(action, "copy", "copied", delay=max(0.0, self._context.clock.now() - action.since))

    def failed(self, action: Action, error: ReplicatorError, totals: Totals | None = None) -> None:
        """A tag could not be brought in step."""
        if totals is not None:
            self.result.totals.add(totals)
        self.result.totals.tags.failed += 1
        self.result.actions.append(self._row(action, "failed", str(error)))
        self.failure(error, action.target)
        attempts = action.attempts + 1
        reason = error.reason if isinstance(error, SiteError) else "internal"
        not_before = retry_at(self._context.clock.now(), attempts)
        self._missing(action, attempts=attempts, error=str(error), reason=reason, not_before=not_before)
        self._emit(action, "copy", "failed")

    def held(self, action: Action, reason: str) -> None:
        """A tag is left as it is on purpose."""
        self.result.totals.tags.held += 1
        self.result.actions.append(self._row(action, "held", reason, name="hold"))
        self._forget(action.target, action.wish.target or action.digest)
        self._emit(action, "hold", "held")

    def postponed(self, action: Action, reason: str) -> None:
        """A tag that failed before is not tried again yet: it counts as failed and stays pending."""
        self.result.totals.tags.failed += 1
        self.result.actions.append(self._row(action, "failed", reason))

    def interrupted(self, action: Action, totals: Totals) -> None:
        """A copy was ended by a drain; it stays pending."""
        self.was_interrupted = True
        self.result.totals.add(totals)
        self.result.actions.append(self._row(action, "interrupted", "ended before it was done"))

    def kept(self, repository: str, target: str, tag: str, digest: str) -> None:
        """A tag that this rule once put there is gone at the source, and stays."""
        reason = "gone at the source; nothing is deleted"
        self.result.actions.append(ActionResult("keep", repository, target, tag, digest, "kept", reason))

    def unwanted(self, target: str, tag: str) -> None:
        """A tag that was pending is gone at the source, or no longer selected."""
        self._forget(target, tag)

    def failure(self, error: ReplicatorError, repository: str | None = None) -> None:
        """Something failed for good. One failure that many tags of a repository share is told once."""
        failure = _failure(error, repository, self.result.destination)
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

    def unseen(self, count: int) -> None:
        """So many tags are wanted in a repository that could not be looked at."""
        self.result.totals.tags.failed += count

    def warn(self, text: str) -> None:
        """Something a person should know that is no failure."""
        self.result.warnings.append(text)

    def close(self, *, interrupted: bool) -> RunRow:
        """Settles the outcome and gives the row that closes the run."""
        tags = self.result.totals.tags
        good = tags.copied + tags.unchanged
        outcome: Outcome = "ok"
        if interrupted:
            outcome = "interrupted"
        elif self.result.failures or tags.failed:
            outcome = "partial" if good else "failed"
        self.result.outcome = outcome
        return RunRow(
            rule=self._rule.name,
            destination=self.result.destination,
            started_at=self._began,
            ended_at=self._context.clock.now(),
            outcome=outcome,
            complete_look=self.complete_look and not interrupted and self._context.scope is None,
            in_step=good,
            held=tags.held,
            failed=tags.failed,
            error=_last_error(self.result),
            narrowed=self._context.scope is not None,
        )

    def _row(
        self,
        action: Action,
        outcome: ActionOutcome,
        reason: str | None,
        *,
        written: int = 0,
        name: ActionName = "copy",
    ) -> ActionResult:
        return ActionResult(
            action=name,
            repository=action.repository,
            target=action.target,
            tag=action.wish.target,
            digest=action.digest,
            outcome=outcome,
            reason=reason,
            bytes=written,
        )

    def _missing(self, action: Action, *, attempts: int, error: str, reason: str, not_before: float) -> None:
        if self._context.dry:
            return
        key = action.wish.target or action.digest
        pending = Pending(
            action.target, key, action.digest, action.since, attempts, error, reason, not_before
        )
        self._context.state.record(Missing(self._rule.name, self.result.destination, pending))

    def _forget(self, target: str, tag: str) -> None:
        if not self._context.dry:
            self._context.state.record(Unpending(self._rule.name, self.result.destination, target, tag))

    def _emit(self, action: Action, name: ActionName, outcome: str, delay: float | None = None) -> None:
        if self._context.dry:
            return
        tag = action.wish.target or action.digest
        destination = self.result.destination
        self._context.events.emit(
            TagDone(self._rule.name, destination, action.target, tag, name, outcome, delay)
        )


def _failure(error: ReplicatorError, repository: str | None, destination: str) -> Failure:
    if isinstance(error, SiteError):
        return Failure(error.site, error.repository or repository, error.operation, error.cause, error.reason)
    return Failure(destination, repository, "copy image", str(error), "internal")


def _last_error(result: DestinationResult) -> str:
    if not result.failures:
        return ""
    last = result.failures[-1]
    where = f"{last.site}: {last.repository}" if last.repository else last.site
    return f"{where}: {last.operation}: {last.cause}"
