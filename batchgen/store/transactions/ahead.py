"""What a worker takes from the limits of its servers ahead of its exchanges, where transactions do
not take turns: in a short one of its own, so that the exchanges need not wait for each other.

Its row says how many these are, and until when it may send them: nobody counts them after that. It
goes with the worker. The arithmetic is in limits/ahead.py.
"""

from collections.abc import Callable, Mapping

from batchgen.limits.ahead import AllowedAhead, Out, take_ahead
from batchgen.store.calls_ahead import WantedAhead
from batchgen.store.transaction import Transaction
from batchgen.store.transactions.rows import rows_of
from batchgen.store.transactions.shared_rates import read_shared_rate, write_shared_rate


def take_calls_ahead(
    db: Transaction, worker_id: int, wanted: Mapping[str, WantedAhead], clock: Callable[[], int]
) -> dict[str, AllowedAhead]:
    """By server, what of it is allowed. The time is looked at when nobody else can take any."""
    db.lock("rates", sorted(wanted))
    return {server: _take(db, worker_id, server, one, clock) for server, one in wanted.items()}


def _take(
    db: Transaction, worker_id: int, server: str, wanted: WantedAhead, clock: Callable[[], int]
) -> AllowedAhead:
    found = rows_of(db, "calls_ahead", Out, {"server": server})
    before = read_shared_rate(db, server)
    out, asked = list(found), wanted.asked
    after, allowed, ours = take_ahead(
        before, wanted.limits, asked, wanted.call_tokens, worker_id, out, clock()
    )
    if allowed.calls or asked.tells or after.learned != before.learned:
        write_shared_rate(db, server, after)
        db.execute("take_calls_ahead", {"server": server} | ours._asdict())
    return allowed
