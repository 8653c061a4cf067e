"""The calls that one worker has taken ahead from the limits of its servers, where it would wait
for the others at each exchange. Pure: time is passed in (of `clock_ms`); see limits/ahead.py.

What calls used, and what servers said, is told when the worker asks again: of calls that were
refused, and of pauses, at once.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import ceil

from msgspec import Struct
from msgspec.structs import replace

from batchgen.items import Item, Outcome
from batchgen.limits import NO_LIMITS, Allowance, Limits, Returned
from batchgen.limits.ahead import AHEAD_MS, AllowedAhead, AskedAhead, tokens_of
from batchgen.store.plan import Claim, claim_of
from batchgen.store.returned import returned_of
from batchgen.store.server_wants import ServerWant

_ASK_AGAIN_MS = 100  # after less was allowed than wanted: others may have brought some back


class WantedAhead(Struct, frozen=True):
    """What is asked of a server's limits, which are these."""

    asked: AskedAhead
    limits: Limits
    call_tokens: float


class CallsAhead:
    """By server, those of a worker. An exchange may be tried again with the same outcomes."""

    def __init__(self) -> None:
        self._of: dict[str, _Server] = {}
        self._told: set[Claim] = set()  # whose outcomes are known here, and not written yet

    def wanted(
        self, wants: Sequence[ServerWant], calls: int, outcomes: Sequence[Outcome], now: int
    ) -> dict[str, WantedAhead]:
        """What to ask before these outcomes are written, and so many calls claimed."""
        limited = [want for want in wants if want.limits.any]
        if not limited:
            return {}
        new = [outcome for outcome in outcomes if claim_of(outcome.item) not in self._told]
        self._told.update(claim_of(outcome.item) for outcome in new)
        for want in limited:
            ended = [outcome for outcome in new if outcome.item.server == want.server]
            self._server(want.server).end(ended, want, now)
        return {
            want.server: wanted
            for want in limited
            if (wanted := self._server(want.server).wanted(want, min(want.slots, calls), now))
        }

    def unused(self) -> dict[str, WantedAhead]:
        """What goes back at once, since there was nothing to claim for it."""
        return {key: one.going_back() for key, one in self._of.items() if one.calls > 0}

    def were_allowed(
        self, wanted: Mapping[str, WantedAhead], allowed: Mapping[str, AllowedAhead],
        asked_at: int, epoch_ms: int,
    ) -> None:  # fmt: skip
        """What was asked at that time; `epoch_ms` is when the clock of these times began."""
        for server, one in wanted.items():
            self._server(server).was_allowed(one, allowed[server], asked_at, epoch_ms)

    def allowed(self, wants: Sequence[ServerWant], most: Mapping[str, int]) -> dict[str, Allowance]:
        """By server, how many of so many calls may be claimed now."""
        room = {want.server: min(want.slots, most.get(want.server, 0)) for want in wants}
        return {
            want.server: self._server(want.server).allowed(room[want.server])
            if want.limits.any
            else Allowance(room[want.server])
            for want in wants
        }

    def were_claimed(self, outcomes: Sequence[Outcome], items: Sequence[Item]) -> bool:
        """In an exchange that wrote these outcomes. Whether there was too little to claim."""
        if not self._of:
            return False
        self._told.difference_update(claim_of(outcome.item) for outcome in outcomes)
        for server, one in self._of.items():
            one.send([item for item in items if item.server == server and item.answer_seq is None])
        return any(one.calls > 0 and one.wanted_calls > one.newly_sent for one in self._of.values())

    def send_second_calls(self, items: Iterable[Item], limits: Mapping[str, Limits]) -> None:
        """One more call for each of these, whether or not there is room for it."""
        for item in items:
            if limits.get(item.server, NO_LIMITS).any:
                self._server(item.server).send([item])

    def _server(self, server: str) -> "_Server":
        return self._of.setdefault(server, _Server())


class _Server:
    """`calls` are in hand, with their tokens, until a time."""

    def __init__(self) -> None:
        self.calls = 0
        self.wanted_calls = 0  # by the newest exchange, in which `newly_sent` were claimed
        self.newly_sent = 0
        self._tokens = 0.0
        self._until = 0
        self._returned = Returned()
        self._is_urgent = False
        self._pause_until = 0  # of the longest one that was heard of
        self._asked = WantedAhead(AskedAhead(), NO_LIMITS, 1.0)
        self._asked_at = self._ask_again_at = 0
        self._allowance = AllowedAhead(0)
        self._sent = 0  # since it was asked
        self._has_lost = False

    def end(self, outcomes: Sequence[Outcome], want: ServerWant, now: int) -> None:
        """Calls have ended, or were never sent; and what the server said."""
        new, before = returned_of(outcomes, want), self._returned
        pause_until = now + new.pause_ms
        is_new_pause = new.pause_ms > 0 and pause_until > self._pause_until + 1
        self._pause_until = max(pause_until, self._pause_until)
        self._is_urgent |= is_new_pause or bool(new.refused_at)
        self._returned = Returned(
            before.requests + new.requests,
            before.tokens + new.tokens,
            (*before.refused_at, *new.refused_at),
            max(before.asked_ms, new.asked_ms if new.refused_at else 0),
            new.pause_ms if is_new_pause else before.pause_ms,
        )

    def wanted(self, want: ServerWant, calls: int, now: int) -> WantedAhead | None:
        """None: there is enough in hand, or it is too early to ask again."""
        if now >= self._until:
            self._lose()
        self.wanted_calls, self.newly_sent = calls, 0
        since_ms = now - self._asked_at
        is_late = self._returned != Returned() and since_ms >= self._allowance.for_ms
        are_others = want.limits != self._asked.limits  # and those in hand may be too many for them
        goes_back = are_others and self.calls > 0 and self._allowance.for_ms > AHEAD_MS
        may_ask = now >= self._ask_again_at or are_others
        tells = self._is_urgent or is_late or goes_back
        if not tells and not (calls > self.calls and may_ask):
            return None
        soon = ceil(self._sent * AHEAD_MS / max(since_ms, 1)) if calls else 0
        return WantedAhead(self._ask(calls, soon), want.limits, want.call_tokens.mean)

    def going_back(self) -> WantedAhead:
        return replace(self._asked, asked=self._ask(0, 0))

    def was_allowed(
        self, wanted: WantedAhead, allowed: AllowedAhead, asked_at: int, epoch_ms: int
    ) -> None:
        """What was told is told, and what was in hand has gone back."""
        self.calls = allowed.calls
        self._tokens = tokens_of(allowed.calls, wanted.limits, wanted.call_tokens)
        self._until = asked_at + allowed.for_ms
        self._returned = Returned()
        self._is_urgent = self._has_lost = False
        self._asked, self._asked_at = wanted, asked_at
        next_at = asked_at if allowed.next_at is None else allowed.next_at - epoch_ms
        self._ask_again_at = min(next_at, asked_at + _ASK_AGAIN_MS)
        self._allowance = allowed
        self._sent = 0

    def allowed(self, calls: int) -> Allowance:
        if calls <= self.calls:
            return Allowance(calls)
        return replace(self._allowance, calls=max(0, self.calls))

    def send(self, items: Sequence[Item]) -> None:
        self.calls -= len(items)
        self._tokens -= sum(item.reserved_tokens for item in items)
        self._sent += len(items)
        self.newly_sent += len(items)

    def _ask(self, calls: int, soon: int) -> AskedAhead:
        was_held_back = self._allowance.is_learned and self.calls <= 0 and not self._has_lost
        return AskedAhead(
            calls, soon, self._sent, self.calls, self._tokens, self._returned, was_held_back
        )

    def _lose(self) -> None:
        """What was not sent in time. What was sent without being allowed is still to be told."""
        if self.calls > 0:
            asked = self._asked
            self._tokens -= tokens_of(self.calls, asked.limits, asked.call_tokens)
            self.calls = 0
            self._has_lost = True
