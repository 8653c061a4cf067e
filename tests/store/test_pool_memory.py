"""What a pass over a pool keeps in memory says what plain dictionaries would."""

import random
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from batchgen.store.postgres.pool_memory import MetItems, NewKeys


@given(st.lists(st.dictionaries(st.integers(1, 20_000), st.integers(1, 600), max_size=20)))
def test_items_were_met_as_often_as_was_noted_last(chunks: Sequence[dict[int, int]]) -> None:
    met, plain = MetItems(), dict[int, int]()
    for chunk in chunks:
        assert met.count(chunk) == {id_: plain[id_] for id_ in chunk if id_ in plain}
        met.note(chunk)
        plain |= chunk
    assert met.count(range(1, 20_001)) == plain


def test_an_item_of_which_there_are_hundreds_is_counted_on() -> None:
    met = MetItems()
    for n in range(250, 260):
        met.note({7: n})
        assert met.count([6, 7, 8]) == {7: n}


def test_new_keys_are_found_by_their_numbers_however_many_there_are() -> None:
    dice = random.Random(1)
    new, plain = NewKeys(first=100), dict[bytes, int]()
    for size in (0, 1, 5000, 1, 12_000):
        keys = [dice.randbytes(16) for _ in range(size)]
        assert new.find(keys) == {}
        new.add(keys)
        plain |= {key: number for number, key in enumerate(keys, 100 + len(plain))}
    assert new.find(list(plain)) == plain
    assert new.find([dice.randbytes(16) for _ in range(5000)]) == {}


def test_keys_that_want_the_same_place_are_told_apart() -> None:
    """Of equal low bits, as far as a table looks."""
    keys = [bytes([n, 0]) + bytes(4) + bytes([n, 1]) + bytes(8) for n in range(256)]
    alike = [b"\0\0" + n.to_bytes(6, "little") + bytes(8) for n in range(1, 3000)]
    new = NewKeys(first=1)
    new.add(keys + alike)
    found = new.find(keys + alike)
    assert list(found.values()) == list(range(1, len(keys) + len(alike) + 1))
