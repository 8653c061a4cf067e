"""The rows that others were made of, read by levels from these up to their chains' first ones."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from batchgen.items import Item
from batchgen.store.chain_records import MadeOf
from batchgen.store.transaction import Transaction

if TYPE_CHECKING:  # what has no steps need not load them
    from batchgen.steps import Link
    from batchgen.store.plan_links import Made


def with_links(db: Transaction, items: list[Item], made_now: "Made") -> list[Item]:
    """The same, each with what it was made of; `made_now` are those that were made just now, of
    which it is known."""
    made = {item.id: made_now.get((item.parent_id, item.experiment_id))
            for item in items if item.parent_id is not None}  # fmt: skip
    if not made:
        return items
    unknown = [item_id for item_id, known in made.items() if known is None]
    made |= links_of(db, unknown) if unknown else {}
    return [
        replace(item, links=found.links, gathered=found.gathered)
        if (found := made.get(item.id)) is not None
        else item
        for item in items
    ]


def links_of(db: Transaction, item_ids: Sequence[int]) -> dict[int, MadeOf]:
    """By row, of those that were made of others. A gathering step's row has the root of its
    gathering for its last link: without a result, unless that is one of those that it gathers."""
    read = _Read(db)
    read.climb(item_ids)
    return {item_id: read.made_of(item_id) for item_id in item_ids if item_id in read.parents}


class _Read:
    """What has been read. `links` are the rows by their numbers, without what these gathered."""

    def __init__(self, db: Transaction) -> None:
        self._db = db
        self.links: dict[int, Link] = {}
        self.parents: dict[int, int] = {}
        self._gathered: dict[int, list[int]] = {}  # the rows that a row gathers

    def climb(self, item_ids: Iterable[int]) -> None:
        """By levels, and by primary keys. What several rows were made of is read once: the elements
        of a list are many, and each was made of all of it."""
        level = set(item_ids)
        while level:
            above, wanted = set[int](), dict[int, list[int]]()
            for made, gathered, grandparent, link in self._rows(
                "links_above", ids=self._one_of_each(level)
            ):
                self.parents[made] = link.item_id
                self._keep(link)
                if gathered is not None:
                    wanted[made] = json.loads(gathered)
                if grandparent is not None:
                    above.add(link.item_id)
            level = (above | self._gather(wanted)) - self.parents.keys()

    def _one_of_each(self, level: set[int]) -> list[int]:
        """One of the rows that were made of the same result, and all that gather."""
        if len(level) == 1:
            return list(level)
        first = dict[tuple[int, int | None, int], int]()
        which = {"ids": json.dumps(list(level))}
        for made, parent, seq, gathers in self._db.execute("parents_of", which):
            self.parents[made] = parent
            first.setdefault((parent, seq, made if gathers else 0), made)
        return list(first.values())

    def _gather(self, wanted: dict[int, list[int]]) -> set[int]:
        """The rows with these results, which other rows gather; those that were made of others."""
        seqs = [seq for gathered in wanted.values() for seq in gathered]
        if not seqs:
            return set()
        made, above = dict[int, int](), set[int]()
        for seq, _, grandparent, link in self._rows("links_gathered", seqs=seqs):
            made[seq] = link.item_id
            self._keep(link)
            if grandparent is not None:
                above.add(link.item_id)
        self._gathered |= {id_: [made[seq] for seq in seqs] for id_, seqs in wanted.items()}
        return above

    def _keep(self, link: "Link") -> None:
        if link.result_seq or link.item_id not in self.links:
            self.links[link.item_id] = link

    def _rows(
        self, query: str, **wanted: list[int]
    ) -> "Iterator[tuple[int, str | None, int | None, Link]]":
        from batchgen.steps import Link

        parameters: dict[str, Any] = {name: json.dumps(ids) for name, ids in wanted.items()}
        found = self._db.execute(query, parameters).fetchall()
        for made, gathered, above, *link in found:
            yield made, gathered, above, Link(*link)

    def made_of(self, item_id: int) -> MadeOf:
        gathered = self._gathered.get(item_id, ())
        return MadeOf(self._down_to(self.parents[item_id]), tuple(map(self._down_to, gathered)))

    def _down_to(self, item_id: int) -> "tuple[Link, ...]":
        """From the chain's first row to this one."""
        link = self.links[item_id]
        if item_id not in self.parents:
            return (link,)
        above = self.made_of(item_id)
        own = replace(link, gathered=above.gathered) if above.gathered else link
        return (*above.links, own)
