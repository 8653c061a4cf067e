"""What rows are called: by the ids of their items, wherever they are shown."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from batchgen.store import PageRow, ReadStore


class RowName(NamedTuple):
    """`id` is that of the row's item, with the places that the row has in lists (`p0[3]`), or the
    row's number where the item has none."""

    id: str
    sample: int | None = None

    def __str__(self) -> str:
        return self.id if self.sample is None else f"{self.id} #{self.sample}"


def row_name(row: PageRow, lists: Collection[int]) -> RowName:
    """`lists` are the experiments whose rows are for elements of lists."""
    origin = row.origin or row
    if not origin.custom_id:
        return RowName(str(row.id), origin.sample)
    way = () if row.origin is None else row.origin.way
    places = "".join(f"[{element}]" for id_, element in way if id_ in lists)
    return RowName(f"{origin.custom_id}{places}", origin.sample)


async def row_names(store: ReadStore, item_ids: Sequence[int]) -> dict[int, RowName]:
    """Of these rows, by their numbers; one that is not there is left out."""
    rows = await store.pages.rows(item_ids)
    lists = frozenset[int]()
    for one in await store.experiments():
        made = [row for row in rows if row.origin and row.origin.way[0][0] == one.id]
        chain = await store.chain_if_step(one) if made else None
        if chain is not None:
            lists |= chain.lists
    return {row.id: row_name(row, lists) for row in rows}
