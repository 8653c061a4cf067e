"""How a transaction changes the counters and totals: gathered, then written once. Pure."""

from collections import Counter, defaultdict

from msgspec import Struct, field

from batchgen.items import Attempt, State
from batchgen.store.records import CallFailure, CallTotals, FailedCalls
from batchgen.store.values import RowGroup


class TotalsDelta(CallTotals):
    """What more of an experiment's calls there are, by the columns of the totals."""

    unknown_tokens: int = 0
    retried: int = 0

    def spend(self, attempt: Attempt, unknown_tokens: int) -> None:
        usage = attempt.usage
        self.calls += 1
        self.unknown_calls += attempt.outcome == "unknown"
        self.unknown_tokens += unknown_tokens
        self.latency_ms += attempt.latency_ms or 0
        self.prompt_tokens += usage.prompt_tokens or 0
        self.completion_tokens += usage.completion_tokens or 0
        self.cached_tokens += usage.cached_tokens or 0
        self.reasoning_tokens += usage.reasoning_tokens or 0
        self.cost_usd += attempt.cost_usd or 0.0


class CounterDeltas(Struct):
    """`moved` is by (experiment, state, reason), `parsed` by (experiment, parser), `failed_calls`
    by (experiment, how they failed), the others by experiment."""

    moved: Counter[tuple[int, str, str]] = field(default_factory=Counter)
    parsed: Counter[tuple[int, int]] = field(default_factory=Counter)
    totals: defaultdict[int, TotalsDelta] = field(default_factory=lambda: defaultdict(TotalsDelta))
    failed_calls: dict[tuple[int, CallFailure], FailedCalls] = field(default_factory=dict)
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

    def spend(self, experiment_id: int, attempt: Attempt, unknown_tokens: int = 0) -> None:
        """One more call was made for the experiment. `unknown_tokens`: the most it can have used,
        where the server did not say."""
        self.totals[experiment_id].spend(attempt, unknown_tokens)
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
        self.totals[experiment_id].calls -= calls
        self.totals[experiment_id].unknown_calls -= calls

    def retry(self, experiment_id: int) -> None:
        """A call of the experiment is to be repeated."""
        self.totals[experiment_id].retried += 1
