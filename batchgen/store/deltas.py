"""How a transaction changes the counters, totals and minutes: gathered, then written once. Pure."""

from collections import Counter, defaultdict
from collections.abc import Mapping

from msgspec import Struct, field
from msgspec.structs import replace

from batchgen.items import Attempt, State
from batchgen.store.minutes import Call, MinuteDelta, by_minute, minute_of
from batchgen.store.records import CallFailure, CallTotals, FailedCalls
from batchgen.store.values import RowGroup

_OF_MINUTES = [name for name in CallTotals.__struct_fields__ if name != "calls"]


class TotalsDelta(CallTotals):
    """What more of an experiment's calls there are, by the columns of the totals."""

    unknown_tokens: int = 0
    retried: int = 0

    def add(self, minute: MinuteDelta) -> None:
        """What was done in a minute."""
        self.calls += minute.calls + minute.unknown_calls
        for name in _OF_MINUTES:
            setattr(self, name, getattr(self, name) + getattr(minute, name))


class CounterDeltas(Struct):
    """`moved` is by (experiment, state, reason), `parsed` by (experiment, parser), `failed_calls`
    by (experiment, how they failed), `ends` by (experiment, when, whether failed), the others by
    experiment. What calls used is added up in the end, all at once."""

    moved: Counter[tuple[int, str, str]] = field(default_factory=Counter)
    parsed: Counter[tuple[int, int]] = field(default_factory=Counter)
    calls: defaultdict[int, list[Call]] = field(default_factory=lambda: defaultdict(list))
    others: defaultdict[int, TotalsDelta] = field(default_factory=lambda: defaultdict(TotalsDelta))
    failed_calls: dict[tuple[int, CallFailure], FailedCalls] = field(default_factory=dict)
    ends: Counter[tuple[int, int, bool]] = field(default_factory=Counter)
    superseded: Counter[int] = field(default_factory=Counter)
    ended: Counter[int] = field(default_factory=Counter)
    passed_over: Counter[int] = field(default_factory=Counter)
    overused: dict[int, float] = field(default_factory=dict)

    def move(self, experiment_id: int, state: str, delta: int, reason: str = "") -> None:
        """`delta` more items of the experiment are in this state."""
        self.moved[experiment_id, state, reason] += delta

    def parse(self, experiment_id: int, parser_id: int | None, delta: int) -> None:
        """`delta` more items of the experiment have a result by this parser, if it is by one."""
        if parser_id is not None:
            self.parsed[experiment_id, parser_id] += delta

    def supersede(self, experiment_id: int, n: int = 1) -> None:
        """So many results that were done are their items' no more."""
        self.superseded[experiment_id] += n

    def move_group(self, experiment_id: int, group: RowGroup, state: str) -> None:
        """Rows, whatever they are, go to this state, and the results that they had are theirs no
        more."""
        self.move(experiment_id, group.state, -group.n, group.reason)
        self.move(experiment_id, state, +group.n)
        self.parse(experiment_id, group.parser_id, -group.n)
        if group.state == State.DONE:
            self.supersede(experiment_id, group.n)

    def end_chains(self, experiment_id: int, n: int = 1) -> None:
        """So many more chains have ended at this step."""
        self.ended[experiment_id] += n

    def pass_over(self, experiment_id: int, n: int = 1) -> None:
        """This step was passed over for so many more rows."""
        self.passed_over[experiment_id] += n

    def overuse(self, experiment_id: int, times: float) -> None:
        """A call used so many times what was asked for it."""
        if times > self.overused.get(experiment_id, 1.0):
            self.overused[experiment_id] = times

    def end(self, experiment_id: int, now: int, *, failed: bool) -> None:
        """One more row of the experiment has ended just now, otherwise than by a stored answer that
        was parsed again."""
        self.ends[experiment_id, now, failed] += 1

    def spend(
        self, experiment_id: int, seq: int, attempt: Attempt, unknown_tokens: int = 0
    ) -> None:  # fmt: skip
        """One more call was made for the experiment, which has this number. `unknown_tokens`: the
        most it can have used, where the server did not say."""
        self.calls[experiment_id].append((seq, attempt))
        if unknown_tokens:
            self.others[experiment_id].unknown_tokens += unknown_tokens
        if attempt.reason is not None:
            status = attempt.http_status or 0
            failure = CallFailure(attempt.reason, status)
            before = self.failed_calls.get((experiment_id, failure))
            n = before.n if before else 0
            error = attempt.error or ""
            one = FailedCalls(experiment_id, attempt.reason, status, n + 1, error)
            self.failed_calls[experiment_id, failure] = one

    def forget_unknown(self, experiment_id: int, calls: int) -> None:
        """So many calls that were counted as unknown are not any more; each is spent anew."""
        self.others[experiment_id].calls -= calls
        self.others[experiment_id].unknown_calls -= calls

    def retry(self, experiment_id: int) -> None:
        """A call of the experiment is to be repeated."""
        self.others[experiment_id].retried += 1

    def minutes(self) -> dict[tuple[int, int], MinuteDelta]:
        """What was done, by (experiment, minute)."""
        found = {
            (experiment_id, minute): delta
            for experiment_id, calls in self.calls.items()
            for minute, delta in by_minute(calls).items()
        }
        for (experiment_id, now, failed), n in self.ends.items():
            delta = found.setdefault((experiment_id, minute_of(now)), MinuteDelta())
            if failed:
                delta.failed += n
            else:
                delta.done += n
        return found

    def totals(
        self, minutes: Mapping[tuple[int, int], MinuteDelta] | None = None
    ) -> dict[int, TotalsDelta]:  # fmt: skip
        """What all calls used, by experiment. `minutes`: what `minutes()` has given."""
        found: defaultdict[int, TotalsDelta] = defaultdict(TotalsDelta)
        found.update((id_, replace(delta)) for id_, delta in self.others.items())
        minutes = self.minutes() if minutes is None else minutes
        for (experiment_id, _), delta in minutes.items():
            if delta.calls or delta.unknown_calls:
                found[experiment_id].add(delta)
        return found
