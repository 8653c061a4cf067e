"""Where SQLite keeps the keys of items: those that wait to be sorted in, and in memory."""

from collections.abc import Iterator
from contextlib import AsyncExitStack
from hashlib import blake2b
from pathlib import Path

import pytest
from msgspec.structs import replace

from batchgen.items import NewItem
from batchgen.store import Added, OtherRecipe, PackedItems, open_store, seen_keys
from batchgen.store.seen_keys import SeenKeys
from batchgen.store.sqlite import item_keys
from batchgen.store.transactions import intake, look, verify
from tests.kits.table import RECIPE, Table, new_item, open_table


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Table]:
    with open_table(tmp_path / "batchgen.db") as opened:
        yield opened


def keys(table: Table) -> tuple[int, int]:
    """How many are sorted in, and how many wait."""
    return table.one("select count(*) from item_keys"), table.one(
        "select count(*) from new_item_keys"
    )


def sort_in(table: Table, waiting: int, slices: int | None = None) -> None:
    """As the store does, or the first slices alone, as when it is killed."""
    for since, until in list(item_keys.slices(waiting))[:slices]:
        table.run(item_keys.sort_in, since, until)
    if slices is None:
        table.run(item_keys.forget_new_keys)


POOL_OF_KEYS = [f"item {number}" for number in range(60)]


def test_items_are_known_before_and_after_their_keys_are_sorted_in(table: Table) -> None:
    assert table.enqueue(*POOL_OF_KEYS) == list(range(1, 61))
    assert keys(table) == (0, 60)
    assert table.enqueue(*POOL_OF_KEYS) == list(range(1, 61))
    sort_in(table, 60)
    assert keys(table) == (60, 0)
    assert table.enqueue(*POOL_OF_KEYS, "new") == list(range(1, 62))
    assert verify.verify_tables(table.transaction) == []


def test_keys_are_sorted_in_within_a_pass(table: Table) -> None:
    into = table.begin()
    rows = [new_item(each) for each in POOL_OF_KEYS]
    table.add(into, rows[:40])
    sort_in(table, 40)
    assert table.add(into, rows[30:]).ids == [61 - 20 + n for n in range(10)] + list(range(51, 71))
    assert table.one("select count(*) from items") == 70  # ten of them are second copies


@pytest.mark.parametrize("slices", [0, 1, 2, 3])
def test_keys_half_sorted_in_by_who_was_killed_are_sorted_in_by_the_next(
    table: Table, slices: int
) -> None:
    table.enqueue(*POOL_OF_KEYS)
    sort_in(table, 300_000, slices)  # as if there were so many: three slices
    sorted_in, waiting = keys(table)
    assert (sorted_in == 60, waiting) == (slices == 3, 60)
    assert verify.verify_tables(table.transaction) == []
    assert table.enqueue(*POOL_OF_KEYS) == list(range(1, 61))
    sort_in(table, 60)
    assert keys(table) == (60, 0)
    assert verify.verify_tables(table.transaction) == []


@pytest.mark.parametrize("waiting", [1, 100_000, 100_001, 1_000_000])
def test_slices_hold_every_key_once(waiting: int) -> None:
    found = list(item_keys.slices(waiting))
    firsts, lasts = zip(*found, strict=True)
    assert firsts == (b"\0\0", *lasts[:-1])
    assert lasts[-1] is None
    assert sorted(set(firsts)) == list(firsts)


@pytest.mark.parametrize("sorted_in", [False, True])
def test_items_are_found_by_their_ids_wherever_their_keys_are(
    table: Table, sorted_in: bool
) -> None:
    rows = [new_item({"id": name, "v": 1}, custom_id=name) for name in "xyz"]
    table.add(table.begin(), rows)
    if sorted_in:
        sort_in(table, 3)
    assert look.find_items(table.transaction, "y", None) == [2]
    found = intake.items_with_ids(
        table.transaction, item_keys.items_by_keys, 1, ["z", "no", "x"], None
    )
    assert {name: number for name, (number, _) in found.items()} == {"x": 1, "z": 3}


@pytest.mark.parametrize("most_waiting", [1, 3, 7, 100])
@pytest.mark.parametrize("most_in_set", [1, 2, 100])
async def test_copies_are_counted_wherever_the_key_of_the_first_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    most_waiting: int, most_in_set: int,
) -> None:  # fmt: skip
    """In memory, in the table of those that wait, or sorted in while the pass goes on."""
    monkeypatch.setattr(item_keys, "MOST_WAITING", most_waiting)
    monkeypatch.setattr(item_keys, "MOST_WAITING_OF_MANY", 2 * most_waiting)
    monkeypatch.setattr(seen_keys, "MOST_IN_SET", most_in_set)
    pool = [new_item(each) for each in "abcdeafgahbbic"]
    async with open_store(tmp_path / "batchgen.db", create=True) as store:
        for _ in range(2):
            ids: list[int] = []
            async with store.enqueueing("e", RECIPE, OtherRecipe.STOP) as into:
                for start in range(0, len(pool), 2):
                    ids += (await store.add_items(into, pool[start : start + 2])).ids
            assert ids == list(range(1, len(pool) + 1))
        assert await store.verify() == []


async def test_the_end_of_an_enqueueing_sorts_the_keys_in(tmp_path: Path) -> None:
    async with open_store(tmp_path / "batchgen.db", create=True) as store:
        async with store.enqueueing("e", RECIPE, OtherRecipe.STOP) as into:
            await store.add_items(into, [new_item(each) for each in "abc"])
        with open_table(tmp_path / "batchgen.db") as table:
            assert keys(table) == (3, 0)


async def test_who_was_killed_leaves_keys_that_the_next_one_sorts_in_first(tmp_path: Path) -> None:
    pool = [new_item(each) for each in "abcdef"]
    async with open_store(tmp_path / "batchgen.db", create=True) as store:
        killed = AsyncExitStack()
        into = await killed.enter_async_context(store.enqueueing("e", RECIPE, OtherRecipe.STOP))
        await store.add_items(into, pool[:4])
        assert await killed.__aexit__(KeyError, KeyError("killed"), None) is False
    async with open_store(tmp_path / "batchgen.db") as store:
        with open_table(tmp_path / "batchgen.db") as table:
            assert keys(table) == (0, 4)
            async with store.enqueueing("e", RECIPE, OtherRecipe.STOP) as into:
                assert keys(table) == (4, 0)
                assert (await store.add_items(into, pool)).ids == [1, 2, 3, 4, 5, 6]
        assert await store.verify() == []


@pytest.mark.parametrize("n", [2, 3, 35, 36])
async def test_all_keys_are_seen_once_there_are_many_and_many_of_them_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n: int
) -> None:
    monkeypatch.setattr(item_keys, "MOST_WAITING", 2)
    monkeypatch.setattr(item_keys, "SEEN_AT_A_TIME", 7)
    pool = [new_item(f"item {number}") for number in range(n)]
    more = [new_item(f"more {number}") for number in range(4)]
    async with open_store(tmp_path / "batchgen.db", create=True) as store:
        async with store.enqueueing("e", RECIPE, OtherRecipe.STOP) as into:
            await store.add_items(into, pool)
        async with store.enqueueing("e", RECIPE, OtherRecipe.STOP) as into:
            await store.add_items(into, more[:2])
            await store.add_items(into, more[2:])
            assert into.seen.has_all == (n < 36)
            assert (await store.add_items(into, pool)).ids == list(range(1, n + 1))
            assert (await store.add_items(into, [new_item("new")])).ids == [n + 5]
        assert await store.verify() == []


def test_a_key_that_looks_like_a_known_one_is_new(table: Table) -> None:
    """All of these have the same bits, and two of them the same half."""
    alike = [bytes([n, *bytes(11), 1, 2, 3, 4]) for n in (1, 2, 3)]
    halves = [*alike, alike[0][:7] + bytes([9] * 4) + alike[0][11:]]
    rows = [replace(new_item(n), key=key) for n, key in enumerate(halves)]
    into = table.begin()
    into.seen.has_all = True
    for number, row in enumerate(rows, 1):
        assert table.add(into, [row]) == Added([number], 1)
    assert table.add(table.begin(), rows) == Added([1, 2, 3, 4], 0)


def test_a_store_that_had_nothing_has_seen_all_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen_keys, "MOST_IN_SET", 700)
    keys = [blake2b(bytes([n % 256, n >> 8]), digest_size=16).digest() for n in range(4000)]
    seen = SeenKeys(are_all=True)
    assert seen.likely(keys) == []
    for start in range(0, 3000, 300):
        seen.add(keys[start : start + 300])
    assert seen.likely(keys[:3000]) == keys[:3000]
    assert len(seen.likely(keys[3000:])) < 10
    assert all(seen.may_have([key]) for key in keys[:3000])
    assert not seen.may_have(keys[3000:])


@pytest.mark.parametrize("bit", range(56))
def test_keys_that_differ_in_their_first_half_are_told_apart(bit: int) -> None:
    key = bytes(16)
    other = bytearray(key)
    other[bit // 8] ^= 1 << bit % 8
    seen = SeenKeys(are_all=True)
    seen.add([key])
    assert seen.may_have([key])
    assert not seen.may_have([bytes(other)])


def test_ids_and_samples_are_stored_with_those_that_have_none(table: Table) -> None:
    rows = [new_item({"v": 1}), new_item({"id": "b", "v": 2}, custom_id="b"), new_item({"v": 3})]
    table.add(replace(table.begin(), samples=2), rows)
    stored = "select custom_id, input, sample, sample_of from items order by id"
    assert table.db.execute(stored).fetchall() == [
        (None, '{"v": 1}', 1, None), (None, '{"v": 1}', 2, 1),
        ("b", '{"id": "b", "v": 2}', 1, None), ("b", '{"id": "b", "v": 2}', 2, 3),
        (None, '{"v": 3}', 1, None), (None, '{"v": 3}', 2, 5),
    ]  # fmt: skip


@pytest.mark.parametrize("chunk", [
    ["new", "other"], ["new", "known"], ["new", "new"], ["known"], ["known", "known", "new"], [],
    ["b: new", "other"], ["b: new", "a: changed", "new"], ["new", "b: new", "b: again"],
])  # fmt: skip
@pytest.mark.parametrize("samples", [1, 2])
def test_items_packed_beforehand_are_stored_as_those_that_are_not(
    tmp_path: Path, chunk: list[str], samples: int
) -> None:
    stored = []
    for name, kind in (("one.db", list), ("other.db", PackedItems)):
        with open_table(tmp_path / name) as table:
            into = replace(table.begin(), samples=samples)
            table.add(into, [_item("known"), _item("a: known"), _item("\u4e2d\u6587")])
            into = replace(table.begin(), samples=samples)
            added = table.add(into, kind(map(_item, chunk)))
            rows = "select id, custom_id, input, sample, sample_of from items order by id"
            stored.append((added, table.db.execute(rows).fetchall()))
            assert verify.verify_tables(table.transaction) == []
    assert stored[0] == stored[1]


def _item(text: str) -> NewItem:
    """`id: content`, or a content alone."""
    custom_id, _, content = text.rpartition(": ")
    return new_item({"v": content}, custom_id=custom_id or None)
