"""What to claim now, and when to look again. Pure: time is passed in (of `clock_ms`).

A claim is worth a transaction when a slot is free, its call has a permit and room at the server,
and there may be something to claim. If there was less than asked for, it is time to look again when
an item comes due, when a call of this worker ends, or after a second, since other workers add items
and give them back. If all that is left of a budget is reserved by calls in flight, it is time when
one of them is settled.
"""

from collections.abc import Sequence

from batchgen.items import Outcome
from batchgen.limits import UNKNOWN_CALL, Limits, TokenMeter
from batchgen.store import ClaimRequest, Exchange, ServerWant
from batchgen.worker.pacer import Pacer
from batchgen.worker.permits import Permits
from batchgen.worker.spec import WorkSpec
from batchgen.worker.trials import Trials

# How often to look for what others add, give back or settle.
LOOK_EVERY_MS = 1000
# Calls that go out in one turn of the event loop: more would hold it up, a thousand for 0.15 s.
_CLAIMS_AT_A_TIME = 100


class Demand:
    """What one worker demands. While `draining` it claims no more; while `paused`, by an order from
    another terminal, it claims nothing."""

    def __init__(
        self, spec: WorkSpec, pacer: Pacer, permits: Permits, meter: TokenMeter, trials: Trials
    ) -> None:
        self._spec = spec
        self._trials = trials
        self._pacer = pacer
        self._permits = permits
        self._meter = meter
        self._claims_left = spec.max_items
        self._look_at = 0  # when claiming may succeed
        self._budget_look_at = 0  # when there may be more of the budget
        self._budget_is_short = False
        self.draining = False
        self.paused = False

    def claims(self, free_slots: int, now: int) -> int:
        """How many items to claim."""
        if self.draining or self.paused or now < max(self._look_at, self._budget_look_at):
            return 0
        # Where the budget is short, the others of a hundred would only come back.
        most = 1 if self._budget_is_short else _CLAIMS_AT_A_TIME
        if self._claims_left is not None:
            most = min(most, self._claims_left)
        server_room = self._pacer.room_at_server(self._meter.mean, self._permits.in_flight, now)
        return max(0, int(min(free_slots, self._permits.for_claims(now), server_room, most)))

    def second_calls(self, now: int) -> int:
        """How many of the second calls that wait may go out."""
        waiting = self._permits.for_second_calls(now)
        return 0 if self.draining or self.paused else waiting

    def request(self, free_slots: int, limits: Limits, now: int) -> ClaimRequest:
        """The claim, to be sent with the outcomes; for none it still says what the limits are."""
        limits = limits.below(self._pacer.server.rpm)
        counts_tokens = limits.tpm is not None
        server = ServerWant(
            self._trials.server, self.claims(free_slots, now), limits,
            self._meter.estimate if counts_tokens else UNKNOWN_CALL,
            pause_ms=max(0, self._pacer.limited_until - now),
            asked_ms=max(0, self._pacer.asked_until - now),
            trial=self._trials.request(self._pacer.first_calls(now)),
            probes=self._pacer.probes,
        )  # fmt: skip
        return ClaimRequest(
            (server,), self._spec.experiments, self._spec.until,
            selection=self._spec.selection,
            max_failures=self._spec.max_failures,
            run=self._spec.run,
        )  # fmt: skip

    def next_look_at(self, now: int) -> int | None:
        """When `claims` or `second_calls` may rise by itself; None: only by what happens here."""
        times = (
            self._look_at if self._look_at > now else None,
            self._budget_look_at if self._budget_look_at > now else None,
            self._pacer.next_change_at(now),
            self._pacer.server.next_at(self._meter.mean, now),
        )
        return min((at for at in times if at is not None), default=None)

    def look_now(self) -> None:
        """Something happened after which a claim may succeed."""
        self._look_at = 0

    def call_was_settled(self) -> None:
        """What the call did not use of the budget is there for other calls."""
        self._budget_look_at = 0

    def budget_was_short(self, now: int) -> None:
        """What is left is reserved by calls in flight, some of them perhaps other workers'."""
        self._budget_look_at = now + LOOK_EVERY_MS
        self._budget_is_short = True

    def claimed(self, items: int) -> None:
        if self._claims_left is not None:
            self._claims_left -= items

    @property
    def is_used_up(self) -> bool:
        """As many items are claimed as this worker was to claim."""
        return self._claims_left == 0

    def is_met(self, done: Exchange) -> bool:
        """Whether an exchange that found less than asked for shows that all is done: nothing is
        left, whoever has it, or as many are done as were wanted."""
        nothing_left = done.open == 0 and not self._spec.wait_for_more and not done.expelled
        return nothing_left or done.enough

    def found_too_few(self, due_in_ms: int | None, now: int) -> None:
        """`due_in_ms`: until an item comes due, or a limit lets one through; None: unknown."""
        wait_ms = LOOK_EVERY_MS if due_in_ms is None else max(due_in_ms, 1)
        self._look_at = now + min(LOOK_EVERY_MS, wait_ms)

    def learn_tokens(self, outcomes: Sequence[Outcome], limits: Limits) -> None:
        """Learn how many tokens a call uses, where a limit of the user or of the server counts
        them."""
        if limits.tpm is None and not self._pacer.server.counts_tokens:
            return
        for outcome in outcomes:
            for attempt in outcome.attempts:
                usage = attempt.usage
                if usage.prompt_tokens is not None and usage.completion_tokens is not None:
                    item_bytes = len(outcome.item.input_json.encode())
                    tokens = usage.prompt_tokens + usage.completion_tokens
                    self._meter.observe(item_bytes, min(tokens, limits.tpm or tokens))
