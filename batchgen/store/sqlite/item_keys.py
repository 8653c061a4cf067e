"""The keys by which items are known again: where they are kept, and looked up.

A key is random, so to sort each chunk's into `item_keys` would write nearly every page of it for
each chunk, and more of them the larger the table is. So the keys of new rows are appended to
`new_item_keys` first, and sorted in when some hundred thousand wait, or the pool ends: each page is
then written once. Whoever enqueues, one process at a time, must know those that wait. Most are
never met again, and for that `SeenKeys` is enough. Once one may have been, and when a crash has
left some, they are in a temporary table, by key: to add to that costs ten times as much.

Once keys have been sorted in, each key would be looked for among them, for most items in vain; and
once their table is larger than the cache, that reads a page, and each time that keys are sorted in,
more pages are written. So then `SeenKeys` gets all keys, by which it tells most new ones, and a
million wait; of a store that had none it has all from the first one on.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from batchgen.store.seen_keys import SeenKeys
from batchgen.store.transaction import Transaction
from batchgen.store.transactions.rows import listed
from batchgen.text.json_text import load_json

MOST_WAITING = 300_000  # a set of a few more takes twice the room
MOST_WAITING_OF_MANY = 1_000_000  # when `SeenKeys` has all, and has sorted most of these
_SORTED_AT_A_TIME = 100_000  # so long nobody else can write
SEEN_AT_A_TIME = 50_000
_FIRST_BYTES = 2  # of a key, by which they are divided


def begin_pass(db: Transaction) -> SeenKeys:
    """Before a pass over a pool: the keys that wait, and no item met. Of this connection."""
    for query in ("waiting_keys", "met_items", "met_again", "pass_in_memory",
                  "forget_waiting_keys", "forget_met_items", "forget_met_again"):  # fmt: skip
        db.execute(query)
    seen = SeenKeys(are_all=db.newest("items") == 0)
    if waiting_keys(db):
        _use_table(db, seen)
    return seen


def look_up(db: Transaction, keys: Sequence[bytes], seen: SeenKeys) -> dict[bytes, int]:
    """Those of the keys that are known, with their items; within a pass. As one row, as for each
    one Python's lock is waited for."""
    likely = seen.likely(keys)
    if seen.is_enough and seen.may_have(likely):
        _use_table(db, seen)
    elif seen.is_enough and seen.are_all:
        return {}
    if not likely:
        return {}
    places, item_ids = map(load_json, db.execute("look_up_keys", _packed_keys(likely)).fetchone())
    found = dict(zip(map(likely.__getitem__, places), item_ids, strict=True))
    return (
        {key: id_ for key, id_ in found.items() if id_ is not None} if None in item_ids else found
    )


def append_keys(
    db: Transaction, keys: Sequence[bytes], first: int, seen: SeenKeys
) -> None:  # fmt: skip
    """Of new rows, whose numbers are those from `first` on."""
    db.execute("append_keys", _packed_keys(keys) | {"first": first})
    note_keys(db, keys, first, seen)


def note_keys(db: Transaction, keys: Sequence[bytes], first: int, seen: SeenKeys) -> None:
    """For this pass alone: of rows that would be new."""
    seen.add(keys)
    if seen.is_enough:
        return
    places = sorted(range(len(keys)), key=keys.__getitem__)  # as look_up
    in_order = b"".join([keys[place] for place in places])
    noted = {"keys": in_order, "places": listed(places), "first": first}
    db.execute("note_waiting_keys", noted)


def _use_table(db: Transaction, seen: SeenKeys) -> None:
    seen.give_up()
    db.execute("recall_waiting_keys")


def count_met(db: Transaction, item_ids: Iterable[int]) -> dict[int, int]:
    """How many copies this pass has met of each of the items, as far as was noted."""
    ids = sorted(item_ids)
    (any_met,) = db.execute("any_met", {"spans": _spans(ids)}).fetchone()
    if not any_met:
        return {}
    met = _list(db, "count_met_items", {"ids": listed(ids)})
    return {id_: n for id_, n in zip(ids, met, strict=True) if n is not None}


def note_met(db: Transaction, copies: Mapping[int, int]) -> None:
    """How many copies it has met of each of these items by now."""
    once = sorted([id_ for id_, n in copies.items() if n == 1])
    again = {id_: n for id_, n in copies.items() if n > 1}
    if once:
        db.execute("note_met_items", {"spans": _spans(once)})
    if again:
        db.execute("note_met_again", {"copies": listed(again)})


def _spans(ids: Sequence[int]) -> str:
    """Numbers in their order as JSON: the first and the last of each series without a gap. Those of
    a pool that is known are one, mostly."""
    if ids and ids[-1] - ids[0] == len(ids) - 1:
        return listed([(ids[0], ids[-1])])
    ends = [place for place in range(1, len(ids)) if ids[place] != ids[place - 1] + 1]
    bounds = zip([0, *ends], [*ends, len(ids)], strict=True)
    return listed([(ids[first], ids[end - 1]) for first, end in bounds if ids])


def waiting_keys(db: Transaction) -> int:
    """How many are to be sorted in; at most, as numbers may be missing."""
    (n,) = db.execute("count_new_keys").fetchone()
    return int(n)


def is_full(waiting: int, seen: SeenKeys) -> bool:
    """Whether they are to be sorted in now."""
    may_be_more = seen.has_all and seen.is_enough
    return waiting >= (MOST_WAITING_OF_MANY if may_be_more else MOST_WAITING)


def is_worth_seeing_all(seen: SeenKeys, stored: int) -> bool:
    """Whether `seen` is to have all keys from now on: to look for one costs ten times as much as to
    read one that is stored."""
    return not seen.has_all and seen.added * 10 >= stored


def slices(waiting: int) -> Iterator[tuple[bytes, bytes | None]]:
    """The ranges in which so many keys are sorted in, a transaction each. In the last one there is
    no last key."""
    n = -(-waiting // _SORTED_AT_A_TIME)
    for number in range(n):
        yield _bound(number, n), _bound(number + 1, n) if number + 1 < n else None


def sort_in(db: Transaction, since: bytes, until: bytes | None) -> None:
    """The keys that wait, from one on and before another; once more does no harm."""
    db.execute("sort_keys_in", {"since": since, "until": until})


def forget_new_keys(db: Transaction) -> None:
    """When all of them have been sorted in."""
    db.execute("delete_new_keys")
    db.execute("waiting_keys")  # there may have been no pass on this connection
    db.execute("forget_waiting_keys")


def see_stored(db: Transaction, seen: SeenKeys, after: bytes) -> bytes | None:
    """The next keys of all that are sorted in, after one; which is the last of these. None: there
    are no more."""
    page = {"after": after, "limit": SEEN_AT_A_TIME}
    keys: list[bytes] = [key for (key,) in db.execute("key_page", page)]
    seen.add_stored(keys)
    return keys[-1] if keys else None


def _bound(number: int, n: int) -> bytes:
    place: int = number * 256**_FIRST_BYTES // n
    return place.to_bytes(_FIRST_BYTES, "big")


def items_by_keys(db: Transaction, keys: Sequence[bytes]) -> list[tuple[int, int, str]]:
    """The place among the keys, the number and the input of each item that has one of them."""
    return db.execute("items_by_keys", _packed_keys(keys)).fetchall()


def _packed_keys(keys: Sequence[bytes]) -> dict[str, object]:
    """Any number of keys as two parameters: their bytes, and a number from 0 on for each."""
    return {"keys": b"".join(keys), "numbers": listed(list(range(len(keys))))}


def _list(
    db: Transaction, query: str, parameters: Mapping[str, object]
) -> list[int | None]:  # fmt: skip
    (text,) = db.execute(query, parameters).fetchone()
    numbers: list[int | None] = load_json(text)
    return numbers
