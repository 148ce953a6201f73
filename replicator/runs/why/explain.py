"""What is known of one tag by one rule at one destination, put into the steps of a run. Pure: no site is asked here.

The steps come from the code that runs use: `policy.selection` for the filters, `policy.mapping` for the names, and
`engine.plan` for the decision.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from replicator.engine.plan.remembered import TagRoute, remembered
from replicator.engine.result import TagDecision
from replicator.errors import HoldKind
from replicator.model.companion import is_companion
from replicator.policy.backoff import is_postponed
from replicator.policy.mapping import target_repository, target_tag
from replicator.policy.rule import Rule, TagSelection
from replicator.policy.selection import (
    Traced,
    is_immutable,
    judges_each_alone,
    select_repository,
    trace,
)
from replicator.ports import Pending
from replicator.report import format_count, format_seconds
from replicator.runs.why.answer import Explanation, Step, StepVerdict, Verdict
from replicator.runs.why.asked import SourceTag
from replicator.runs.why.known import Fresh, Known
from replicator.runs.why.words import end_of_hold, filter_text, hold_kind, moment


class Explaining:
    """Puts one explanation together, step by step."""

    def __init__(self, rule: Rule, tag: SourceTag, destination: str, known: Known) -> None:
        self._rule = rule
        self._tag = tag
        self._destination = destination
        self._known = known
        self._steps: list[Step] = []
        self._target: str | None = None
        self._key: str | None = None
        self._digest: str | None = tag.digest
        self._since: float | None = None

    def explain(self) -> Explanation:
        """The explanation."""
        if (stopped := self._selected()) is not None:
            return self._ended("not selected", "nothing: the rule does not select it", stopped)
        if (stopped := self._named()) is not None:
            return self._ended("behind", "fails again", stopped)
        if not self._known.served:
            self._add("agent", "stop", f"this agent does not serve {self._destination} (agent.serves)")
            return self._ended(
                "unknown", "nothing, by this agent", f"ask the agent that serves {self._destination}"
            )
        self._scanned()
        self._demanded()
        if self._rule.tags and self._tag.tag and is_immutable(self._tables(), self._tag.tag):
            self._add("immutable", "note", "immutable: once there, the source is not asked for it again")
        return self._decided()

    # --- selection ---

    def _tables(self) -> tuple[TagSelection, ...]:
        images = self._known.images
        return self._rule.tags if images is None else (images.repositories[self._tag.repository],)

    def _selected(self) -> str | None:
        """The steps up to the filters; what would have to change, where one of them leaves the tag out."""
        rule, name = self._rule, self._tag.repository
        if not select_repository(rule.repositories, name):
            return self._repository_left_out()
        took = next((each.text for each in rule.repositories.include if each.matches(name)), "")
        images = self._known.images
        if images is None:
            self._add("repository", "pass", f"{took} selects {name}")
        elif name not in images.repositories:
            self._add("image list", "stop", f"no list of the rule names {name}")
            return f"add {name} to a list of rule {rule.name}"
        else:
            self._add("image list", "pass", f"the rule's lists name {name}")
        return self._filtered()

    def _repository_left_out(self) -> str:
        rule, name = self._rule, self._tag.repository
        excluded = next((each.text for each in rule.repositories.exclude if each.matches(name)), None)
        if excluded is not None:
            self._add("repository", "stop", f"!{excluded} leaves out {name}")
            return f"take !{excluded} from the repositories of rule {rule.name}, or narrow it"
        patterns = ", ".join(each.text for each in rule.repositories.include)
        self._add("repository", "stop", f"no pattern selects {name}; the rule has {patterns}")
        return f"add {name} to the repositories of rule {rule.name}"

    def _filtered(self) -> str | None:
        tag, tables, fresh = self._tag.tag, self._tables(), self._known.fresh
        if tag is None:
            pins = [pin for table in tables for pin in table.pins if pin.tag is None]
            if any(pin.digest == self._tag.digest for pin in pins):
                self._add("tags", "pass", "pinned by digest, without a tag")
                return None
            self._add("tags", "stop", "the digest is not pinned, and no tag was named")
            return f"name a tag, or pin the digest in the tags of rule {self._rule.name}"
        if is_companion(tag):
            self._add("tags", "stop", "it belongs to another image, with which it is copied (referrers)")
            return "ask for the image that it belongs to"
        tags = fresh.tags if fresh is not None and fresh.tags is not None else None
        created = fresh.created if fresh is not None else None
        traced = trace(tables, tags or (), created, self._known.now, tag)
        judged = tags is not None or judges_each_alone(tables)
        for table, each in zip(tables, traced, strict=True):
            self._table(table, each, judged=judged, of_many=len(tables) > 1)
        if any(each.is_selected for each in traced):
            return None
        if not judged and any(_passes_by_name(each) for each in traced):
            return None  # what the other tags are decides; a run that knows them has decided
        return self._take_in(tables, traced)

    def _table(self, table: TagSelection, traced: Traced, *, judged: bool, of_many: bool) -> None:
        what = f"tags, table {traced.number}" if of_many else "tags"
        if traced.pin is not None:
            self._digest = traced.pin.digest
            self._add(what, "pass", f"pinned to {traced.pin.digest}")
            return
        if not traced.verdicts:
            self._add(what, "pass", "no filter: every tag is selected")
        for name, taken in traced.verdicts:
            if not judged and name in _BY_OTHERS:
                self._add(
                    what,
                    "note",
                    f"{filter_text(table, name)}: depends on the other tags (--fresh asks for them)",
                )
                break
            self._add(what, "pass" if taken else "stop", filter_text(table, name))

    def _take_in(self, tables: Sequence[TagSelection], traced: Sequence[Traced]) -> str:
        stops = [
            filter_text(table, name)
            for table, each in zip(tables, traced, strict=True)
            for name, taken in each.verdicts
            if not taken
        ]
        if not stops:
            return f"another table of rule {self._rule.name} pins the tag"
        changed = " or ".join(dict.fromkeys(stops))
        return f"change {changed} in the tags of rule {self._rule.name} so that {self._tag.tag} is selected"

    # --- names ---

    def _named(self) -> str | None:
        """The names at the destination; what would have to change, where there are none."""
        rule, tag = self._rule, self._tag
        try:
            self._target = target_repository(rule, tag.repository)
            self._key = target_tag(rule, tag.tag) if tag.tag is not None else str(tag.digest)
        except ValueError as error:
            self._add("rename", "stop", str(error))
            return f"change rename of rule {rule.name}"
        at = f"{self._target}@{self._key}" if tag.tag is None else f"{self._target}:{self._key}"
        renamed = (self._target, self._key) != (tag.repository, tag.tag or self._key)
        self._add("rename" if renamed else "name", "pass", f"{self._destination}/{at}")
        return None

    def _demanded(self) -> None:
        """What the rule demands of every image."""
        if (platforms := self._rule.platforms) is not None:
            self._add("platform", "note", f"only {platforms} ({platforms.mode}), if the image has them")
        if required := self._rule.referrer_filter.require:
            self._add("referrers", "note", f"required: {', '.join(each.text for each in required)}")
        if self._rule.trust:
            self._add("trust", "note", f"demanded: {', '.join(each.name for each in self._rule.trust)}")

    # --- what runs have seen ---

    def _scanned(self) -> None:
        unit, now = self._known.unit, self._known.now
        if unit is None:
            self._add("last scan", "note", "no run has scanned the repository for this destination")
            return
        if unit.source_complete_at is not None:
            self._add(
                "last scan", "note", f"{self._rule.source} was listed {moment(unit.source_complete_at, now)}"
            )
        if unit.destination_complete_at is not None:
            text = f"{self._destination} was listed {moment(unit.destination_complete_at, now)}"
            self._add("last scan", "note", text)
        if unit.error:
            self._add("last scan", "note", f"failed: {unit.error}")

    # --- the decision ---

    def _decided(self) -> Explanation:
        fresh = self._known.fresh
        if fresh is not None:
            return self._by_answers(fresh)
        memory = self._known.memory
        pending = memory.pending
        if pending is not None and pending.hold:
            self._digest = pending.digest
            return self._held(pending.hold, hold_kind(pending.reason))
        if pending is not None and pending.digest is None:
            return self._pending("the source could not tell what the tag names")
        decision = remembered(self._rule, self._place(), memory, self._known.rules, self._known.now)
        if decision is None:
            return self._not_remembered()
        self._digest = decision.digest
        return self._by_decision(decision)

    def _by_answers(self, fresh: Fresh) -> Explanation:
        row, decision = fresh.row, fresh.decision
        if decision is not None:
            self._digest = decision.digest
        if row is not None and row.outcome == "held":
            return self._held(row.reason or "", row.hold)
        if (
            row is not None
            and row.outcome == "failed"
            and (decision is None or decision.decision != "conflict")
        ):
            return self._pending(row.reason or "")
        if decision is not None:
            return self._by_decision(decision)
        for failure in fresh.failures:
            where = f"{failure.site}: {failure.repository}" if failure.repository else failure.site
            self._add("ask", "stop", f"{where}: {failure.operation}: {failure.cause}")
        if fresh.failures:
            return self._ended("unknown", "tries again", "fix what failed")
        self._add("source", "stop", f"{self._rule.source} does not have it now")
        return self._ended("unknown", "nothing: there is nothing to copy", f"push it to {self._rule.source}")

    def _by_decision(self, decision: TagDecision) -> Explanation:
        match decision.decision:
            case "in step":
                return self._in_step()
            case "conflict":
                self._add(
                    "conflict",
                    "stop",
                    f"{decision.reason} has a different digest for {self._target}:{self._key}",
                )
                self._pending_since()
                return self._ended("conflict", "fails again", "give one of them another name with rename")
            case "held":
                return self._held(decision.reason, decision.hold)
            case "skipped":
                self._add("platform", "stop", decision.reason)
                return self._ended(
                    "not selected", "leaves it out", "platforms or missing_platform of the rule"
                )
            case _:
                return self._pending(decision.reason)

    def _in_step(self) -> Explanation:
        belief, placement, now = self._known.memory.belief, self._known.memory.placement, self._known.now
        if placement is not None:
            self._since = placement.written_at
            self._add(
                "in step", "pass", f"the whole image was first there {moment(placement.written_at, now)}"
            )
        if belief is not None:
            self._since = self._since or belief.checked_at
            self._add("in step", "pass", f"{self._destination} confirmed it {moment(belief.checked_at, now)}")
        if self._known.fresh is not None:
            self._add("in step", "pass", f"{self._destination} has it now")
        return self._ended("in step", "nothing: it is in step", None)

    def _held(self, reason: str, kind: HoldKind | None) -> Explanation:
        self._add("held", "stop", reason)
        pending = self._known.memory.pending
        if pending is not None and pending.hold == reason:
            self._since = pending.since
            self._add("held", "note", f"held since {moment(pending.since, self._known.now)}")
        looks = kind is not None and kind.may_end_soon
        following = "looks for new signatures" if looks else "leaves it as it is"
        return self._ended("held", following, end_of_hold(kind, self._rule, self._destination))

    def _pending(self, reason: str) -> Explanation:
        """Behind: what is different, what failed, and when it is tried again."""
        pending, now = self._waiting, self._known.now
        failed = pending is not None and bool(pending.error)
        if pending is None or reason != pending.error:
            self._add("plan", "stop", reason)
        self._pending_since()
        if pending is None or not failed:
            return self._ended("behind", "copies it", self._run_now())
        next_try = (
            f"tries again; by schedule not before {moment(pending.not_before, now)}"
            if is_postponed(now, pending.not_before)
            else "tries again"
        )
        return self._ended("behind", next_try, f"fix what failed: {pending.error}")

    @property
    def _waiting(self) -> Pending | None:
        """What is remembered as pending; None where the tag was held."""
        pending = self._known.memory.pending
        return None if pending is None or pending.hold else pending

    def _run_now(self) -> str:
        return (
            f"nothing but a run: replicator sync --rule {self._rule.name} --destination {self._destination}"
        )

    def _pending_since(self) -> None:
        pending, now = self._waiting, self._known.now
        if pending is None:
            return
        self._since = pending.since
        self._add("pending", "stop", f"pending since {moment(pending.since, now)}")
        if pending.error:
            tries = f"after {pending.attempts} tries" if pending.attempts > 1 else "at the first try"
            self._add("last error", "stop", f"{pending.error} ({tries})")

    def _not_remembered(self) -> Explanation:
        unit, belief = self._known.unit, self._known.memory.belief
        if belief is not None:
            self._add("owner", "note", f"rule {belief.rule} put {belief.digest} there")
        if unit is None or unit.source_complete_at is None:
            return self._ended("unknown", "scans the repository", self._run_now() + ", or why --fresh")
        if unit.unknown:
            tags = format_count(unit.unknown, "tag")
            why = f": {self._known.last_error}" if self._known.last_error else ""
            text = (
                f"{self._destination} could not be asked about {tags} of {self._target} in the last run{why}"
            )
            self._add("destination", "stop", text)
            return self._ended("unknown", "asks again", "fix what failed; why --fresh asks now")
        others = "" if judges_each_alone(self._tables()) else ", or a filter left it out"
        self._add("source", "stop", f"neither pending nor in step: the last scan did not find it{others}")
        return self._ended("unknown", "scans the repository", "why --fresh asks the sites now")

    def _place(self) -> TagRoute:
        return TagRoute(
            self._tag.repository, self._tag.tag, self._destination, self._target or "", self._key or ""
        )

    # --- the end ---

    def _add(self, what: str, verdict: StepVerdict, text: str) -> None:
        self._steps.append(Step(what, verdict, text))

    def _ended(self, verdict: Verdict, following: str, remedy: str | None) -> Explanation:
        since = None if self._since is None else dt.datetime.fromtimestamp(round(self._since, 3), dt.UTC)
        return Explanation(
            rule=self._rule.name,
            source=self._rule.source,
            repository=self._tag.repository,
            tag=self._tag.tag,
            destination=self._destination,
            target=self._target,
            target_tag=self._key if self._tag.tag is not None else None,
            digest=self._digest,
            verdict=verdict,
            since=since,
            steps=self._steps,
            next=f"{self._when()}: {following}",
            remedy=remedy,
        )

    def _when(self) -> str:
        agenda, now, rule = self._known.agenda, self._known.now, self._rule
        if agenda.paused:
            return "no run until the rule is resumed; the next one"
        if agenda.backing_off is not None:
            failed = format_count(agenda.failures, "failed run") if agenda.failures else "failures"
            return f"next run {moment(agenda.backing_off, now)} (waits after {failed})"
        if agenda.next_run is not None:
            return f"next run {moment(agenda.next_run, now)}"
        if rule.interval is not None:
            return f"next run (every {format_seconds(rule.interval)})"
        return "next run" if rule.cron is None else f"next run (cron {rule.cron.expression})"


_BY_OTHERS = frozenset({"newer_than", "latest", "age unknown"})


def _passes_by_name(traced: Traced) -> bool:
    """Whether everything that looks at names alone took the tag."""
    return all(taken for name, taken in traced.verdicts if name not in _BY_OTHERS)
