"""What all workers together may send to a server: its row, read and written in the exchange that
claims. Or, where transactions do not take turns, in one of its own before it (ahead.py).

Of a server of which nothing is limited, none is read or written. The arithmetic is in buckets.py.
"""

from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import replace

from batchgen.items import Item, Outcome
from batchgen.limits import Allowance, Limits, Returned, allowance
from batchgen.store.calls_ahead import CallsAhead
from batchgen.store.returned import returned_of
from batchgen.store.server_wants import ServerWant
from batchgen.store.transaction import Transaction
from batchgen.store.transactions.shared_rates import read_shared_rate, write_shared_rate


class Limiters:
    """The limits of the servers during one exchange: settle, ask for allowances, take, write."""

    def __init__(self, db: Transaction, wants: Sequence[ServerWant], now: int) -> None:
        self._wants = wants
        limited = {want.server: want for want in wants if want.limits.any}
        if limited:
            db.lock("rates", sorted(limited))
        self._limiters = {server: _Limiter(db, want, now) for server, want in limited.items()}

    def settle(self, outcomes: Sequence[Outcome]) -> None:
        """Put back what calls that ended, or were never sent, did not use."""
        for server, limiter in self._limiters.items():
            limiter.settle([one for one in outcomes if one.item.server == server])

    def allow(self, most: Mapping[str, int]) -> dict[str, Allowance]:
        """By server, for that many calls, and no more than there is room for."""
        room = {want.server: min(want.slots, most.get(want.server, 0)) for want in self._wants}
        return {server: self._allowance(server, calls) for server, calls in room.items()}

    def _allowance(self, server: str, calls: int) -> Allowance:
        limiter = self._limiters.get(server)
        return limiter.allowance(calls) if limiter and calls else Allowance(calls)

    def take(self, items: Sequence[Item]) -> None:
        """What these claims will need; nothing for one whose answer is there already."""
        for server, limiter in self._limiters.items():
            limiter.take([item for item in items if item.server == server])

    def take_second_calls(self, items: Iterable[Item]) -> None:
        """What one more call for each of these will need, whether or not there is room for it."""
        for item in items:
            if limiter := self._limiters.get(item.server):
                limiter.take_second_call(item)

    def write(self) -> None:
        """Those of which more has changed than the time."""
        for limiter in self._limiters.values():
            limiter.write()


class InHand:
    """The same for a worker that has taken its calls ahead: what they use it tells elsewhere."""

    def __init__(self, ahead: CallsAhead, wants: Sequence[ServerWant]) -> None:
        self._ahead = ahead
        self._wants = wants

    def settle(self, outcomes: Sequence[Outcome]) -> None:
        """Told before."""

    def allow(self, most: Mapping[str, int]) -> dict[str, Allowance]:
        return self._ahead.allowed(self._wants, most)

    def take(self, items: Sequence[Item]) -> None:
        """Counted once the exchange is durable: it may run again."""

    def write(self) -> None:
        """Nothing is kept of it."""


class _Limiter:
    """Those of one server."""

    def __init__(self, db: Transaction, want: ServerWant, now: int) -> None:
        self._db = db
        self._want = want
        self._now = now
        self._shared = read_shared_rate(db, want.server)
        self._seen_at = self._shared.updated_at
        self._changed = now < self._seen_at  # the clock was set back
        self._allowance = Allowance(0)

    def settle(self, outcomes: Sequence[Outcome]) -> None:
        returned = returned_of(outcomes, self._want)
        if returned != Returned():
            self._shared = self._shared.settled(returned, self._now)
            self._changed = True

    def allowance(self, calls: int) -> Allowance:
        limits, call_tokens = self._want.limits, self._want.call_tokens.mean
        self._shared = self._shared.filled(limits, call_tokens, self._now)
        self._allowance = allowance(self._shared, limits, calls, call_tokens, self._now)
        return self._allowance

    def take(self, items: Sequence[Item]) -> None:
        calls = [item.reserved_tokens for item in items if item.answer_seq is None]
        if calls:
            self._shared = self._shared.taken(len(calls), sum(calls))
            self._changed = True
        if self._allowance.is_learned and len(items) == self._allowance.calls and self._seen_at:
            learned = self._shared.learned.limited_for((self._now - self._seen_at) / 1000)
            self._shared = replace(self._shared, learned=learned)
            self._changed = True

    def take_second_call(self, item: Item) -> None:
        self._shared = self._shared.taken(1, item.reserved_tokens)
        self._changed = True

    def write(self) -> None:
        if not self._changed:
            return
        write_shared_rate(self._db, self._want.server, self._shared)


def second_calls_of(
    db: Transaction, items: Iterable[Item], limits: Mapping[str, Limits], now: int
) -> None:
    """They take their share of the limits, by server."""
    wants = [ServerWant(server, limits=each) for server, each in limits.items()]
    limiters = Limiters(db, wants, now)
    limiters.take_second_calls(items)
    limiters.write()
