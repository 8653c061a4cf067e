"""Random rows, each as likely as any other, and the same ones again by their seed."""

from collections.abc import Iterator, Sequence
from random import Random
from typing import TYPE_CHECKING

from batchgen.items import State
from batchgen.store.page_records import Listing, Order, RandomRows
from batchgen.store.transactions.rows import listed
from batchgen.store.transactions.stretches import stretch

if TYPE_CHECKING:
    from batchgen.store.transaction import Transaction

_DRAWN_AT_ONCE, _MOST_DRAWN = 1000, 20_000
_FEW_DONE = 20_000
_MOST_ROWS_FOR_FEW = 1_000_000


def random_done(
    db: "Transaction", experiment_id: int, n: int, seed: int, upto: int | None = None
) -> RandomRows:
    """Numbers of results are drawn, and those kept by which a row is done now. Where these are few
    among very many, the others of them are looked for one by one."""
    newest = db.newest("results")
    upto = newest if upto is None else min(upto, newest)
    done = sum(row[3] for row in db.execute("counters") if row[:2] == (experiment_id, State.DONE))
    found = dict[int, int]()
    for seqs in _drawn(Random(seed), upto):
        found |= _done_by(db, experiment_id, seqs)
        if len(found) >= n:
            break
    if len(found) < min(n, done) and done <= _FEW_DONE:
        others = _few_done(db, experiment_id, done, upto) - found.keys()
        in_turn = sorted(others, key=lambda seq: Random(f"{seed}.{seq}").random())
        found |= _done_by(db, experiment_id, in_turn[: n - len(found)])
    ids = tuple(found.values())[:n]
    return RandomRows(ids, seed, upto, len(ids) == done)


def _drawn(random: Random, upto: int) -> Iterator[Sequence[int]]:
    """Numbers of results, none twice: all of them, where they are not many."""
    if upto <= _MOST_DRAWN:
        seqs = list(range(1, upto + 1))
        random.shuffle(seqs)
        yield from (seqs[n : n + _DRAWN_AT_ONCE] for n in range(0, upto, _DRAWN_AT_ONCE))
        return
    seen = set[int]()
    while len(seen) < _MOST_DRAWN:
        page = dict.fromkeys(random.randint(1, upto) for _ in range(_DRAWN_AT_ONCE))
        new = [seq for seq in page if seq not in seen]
        seen.update(new)
        yield new


def _done_by(db: "Transaction", experiment_id: int, seqs: Sequence[int]) -> dict[int, int]:
    which = {"seqs": listed(list(seqs)), "experiment_id": experiment_id}
    return dict(db.execute("done_by_results", which))


def _few_done(db: "Transaction", experiment_id: int, done: int, upto: int) -> set[int]:
    """The results by which rows are done, as far as they are found from the beginning of the pool
    on."""
    listing = Listing((experiment_id,), Order.POOL, State.DONE)
    found, place, looked_at = set[int](), None, 0
    while len(found) < done and looked_at < _MOST_ROWS_FOR_FEW:
        part = stretch(db, listing, place, back=False, limit=_DRAWN_AT_ONCE)
        which = {"ids": listed([id_ for _, id_ in part.rows])}
        found.update(seq for _, seq in db.execute("results_of_items", which))
        looked_at, place = looked_at + part.looked_at, part.end
        if place is None:
            break
    return {seq for seq in found if seq <= upto}
