"""What to claim now, and when to look again. Pure: time is passed in (of `clock_ms`).

A claim is worth a transaction when a slot is free, its call has a permit and room at the server,
and there may be something to claim. If there was less than asked for, it is time to look again when
an item comes due, when a call of this worker ends, or after a second, since other workers add items
and give them back. If all that is left of a budget is reserved by calls in flight, it is time when
one of them is settled.

Rows that the user's functions end need no call, and take no room from those that do.
"""

from collections.abc import Mapping, Sequence
from math import log2

from batchgen.items import Outcome
from batchgen.limits import UNKNOWN_CALL, Limits, TokenMeter, Told
from batchgen.store import ClaimRequest, Exchange, ServerWant
from batchgen.worker.permits import Permits
from batchgen.worker.servers import Server, Servers
from batchgen.worker.spec import WorkSpec

# How often to look for what others add, give back or settle.
LOOK_EVERY_MS = 1000
_ABOUT_AS_FAST_MS = 20
# Calls that go out in one turn of the event loop: more would hold it up, a thousand for 0.15 s.
_CLAIMS_AT_A_TIME = 100


class Demand:
    """What one worker demands. While `draining` it claims no more; while `paused`, by an order, it
    claims nothing. `code` are the experiments whose rows functions end."""

    def __init__(
        self, spec: WorkSpec, servers: Servers, permits: Permits, meter: TokenMeter,
        code: tuple[int, ...] = (),
    ) -> None:  # fmt: skip
        self._spec = spec
        self._servers = servers
        self._permits = permits
        self._meter = meter
        self._claims_left = spec.max_items
        self._code = code
        self._look_at = 0  # when claiming may succeed
        self._look_for_code_at = 0  # when others may have brought rows that functions end
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
        return max(0, min(free_slots, self._permits.for_claims(now), most))

    def code_claims(self, free_slots: int, calls: int) -> int:
        """How many rows to claim that functions end, beside so many `calls`; with any exchange, as
        what that writes may bring some."""
        if not self._code or self.draining or self.paused:
            return 0
        most = min(free_slots, self._permits.for_code)
        if self._claims_left is not None:
            most = min(most, self._claims_left - calls)
        return max(0, most)

    def is_worth_a_claim(self, free_slots: int, now: int) -> bool:
        """Whether a claim may succeed that nothing is written with."""
        looks_for_code = now >= self._look_for_code_at and self.code_claims(free_slots, 0) > 0
        return looks_for_code or self.claims(free_slots, now) > 0

    def second_calls(self, now: int) -> int:
        """How many of the second calls that wait may go out."""
        waiting = self._permits.for_second_calls(now)
        return 0 if self.draining or self.paused else waiting

    def request(self, free_slots: int, limits: Mapping[str, Limits], now: int) -> ClaimRequest:
        """The claim, to be sent with the outcomes; for none it still says what the limits are, by
        server."""
        most = self.claims(free_slots, now)
        code = self.code_claims(free_slots - most, most)
        servers = self._in_order(now) if self._servers.are_several else self._servers
        wants = [self._want(server, most, limits[server.key], now) for server in servers]
        if self._code:  # also for none, or the others would be for these rows, too
            wants.append(ServerWant("", code, experiments=self._code, runs_code=True))
        return ClaimRequest(
            tuple(wants),
            self._spec.experiments, self._spec.until,
            selection=self._spec.selection,
            max_failures=self._spec.max_failures,
            most=most,
            run=self._spec.run,
        )  # fmt: skip

    def _in_order(self, now: int) -> list[Server]:
        """Of those of which an equal share is free, the one comes first that gives more or, if they
        give about as much, that had fewer calls."""
        ms = {server.key: server.ms_per_answer(now) for server in self._servers}
        fastest_ms = min(filter(None, ms.values()), default=0.0)
        return sorted(
            self._servers, key=lambda one: (_times_slower(ms[one.key], fastest_ms), one.calls)
        )

    def _want(self, server: Server, most: int, limits: Limits, now: int) -> ServerWant:
        pacer = server.pacer
        limits = limits.below(pacer.server.rpm)
        return ServerWant(
            server.key, min(most, self._servers.room_at(server, now)), limits,
            UNKNOWN_CALL if limits.tpm is None else self._meter.estimate,
            pause_ms=max(0, pacer.all_paused_until - now),
            asked_ms=max(0, pacer.asked_until - now),
            capacity=pacer.slots,
            trial=server.trials.request(pacer.first_calls(now), server.in_flight),
            probes=pacer.probes,
            experiments=server.experiments,
            told=self._told(server, now),
        )  # fmt: skip

    def told(self, now: int) -> dict[str, Told]:
        """By server, what the other workers are to know, and this one is to be told."""
        told = {server.key: self._told(server, now) for server in self._servers}
        return {key: one for key, one in told.items() if one is not None}

    def _told(self, server: Server, now: int) -> Told | None:
        later = max(self._look_at, self._budget_look_at)
        is_idle = self.draining or self.paused or self.is_used_up or now < later
        needs = server.in_flight if is_idle else server.needs
        return server.pacer.sharing.tells(server.in_flight, needs, now)

    def next_look_at(self, now: int) -> int | None:
        """When `claims` or `second_calls` may rise by itself; None: only by what happens here."""
        times = (
            self._look_at if self._look_at > now else None,
            self._budget_look_at if self._budget_look_at > now else None,
            self._look_for_code_at if self._look_for_code_at > now else None,
            self._servers.next_change_at(now),
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

    def found_too_little_code(self, now: int) -> None:
        """Fewer rows that functions end than asked for; others may bring some."""
        self._look_for_code_at = now + LOOK_EVERY_MS

    def learn_tokens(self, outcomes: Sequence[Outcome], limits: Mapping[str, Limits]) -> None:
        """Learn how many tokens a call uses, where a limit of the user or of a server counts
        them."""
        tpm = max((each.tpm or 0 for each in limits.values()), default=0)
        if not tpm and not any(server.pacer.server.counts_tokens for server in self._servers):
            return
        for outcome in outcomes:
            for attempt in outcome.attempts:
                usage = attempt.usage
                if usage.prompt_tokens is not None and usage.completion_tokens is not None:
                    item_bytes = len(outcome.item.input_json.encode())
                    tokens = usage.prompt_tokens + usage.completion_tokens
                    self._meter.observe(item_bytes, min(tokens, tpm or tokens))


def _times_slower(ms: float, fastest_ms: float) -> int:
    """How often twice as slow."""
    return int(log2((ms + _ABOUT_AS_FAST_MS) / (fastest_ms + _ABOUT_AS_FAST_MS)))
