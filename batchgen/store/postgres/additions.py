"""How new items get in; see `batchgen.store.transactions.additions`.

Keys go to their table at once. What a pass has met is kept in memory, and noted when a transaction
is durable: one that was lost with its connection runs once more."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from batchgen.errors import StoreRefusedError
from batchgen.items import NewItem
from batchgen.store.postgres.adapting import bytea_list
from batchgen.store.postgres.leases import Lease
from batchgen.store.postgres.pool_memory import MetItems, NewKeys
from batchgen.store.postgres.transaction import PostgresTransaction
from batchgen.store.seen_keys import SeenKeys
from batchgen.store.transaction import Transaction
from batchgen.store.transactions import additions
from batchgen.store.transactions.new_rows import NewRow
from batchgen.store.transactions.packed import packed
from batchgen.store.transactions.rows import listed
from batchgen.store.values import Added, Intake, NewRows

if TYPE_CHECKING:
    from batchgen.store.database import Database

_NUL, _IN_ITS_PLACE = "\0", "\ufffd"


class Pass:
    """A pass over a pool: what it has met. A pass that only counts keeps `new` keys too."""

    def __init__(self, new: NewKeys | None = None) -> None:
        self.met = MetItems()
        self.new = new

    def keep(self, chunk: "Chunk") -> None:
        """It is durable."""
        self.met.note(chunk.met)
        if self.new is not None:
            self.new.add(chunk.new)


class Chunk:
    """One transaction of a pass; both `PoolPass` and `PoolCount`."""

    def __init__(self, db: PostgresTransaction, of: Pass) -> None:
        self._db = db
        self._pass = of
        self.met: Mapping[int, int] = {}
        self.new: Sequence[bytes] = ()

    def look_up(self, keys: Sequence[bytes]) -> dict[bytes, int]:
        found = dict(self._db.rows_in_binary("look_up_keys", {"keys": bytea_list(keys)}))
        return found if self._pass.new is None else found | self._pass.new.find(keys)

    def count_met(self, item_ids: Iterable[int]) -> dict[int, int]:
        return self._pass.met.count(item_ids)

    def note_met(self, copies: Mapping[int, int]) -> None:
        self.met = copies

    def note_keys(self, keys: Sequence[bytes], first: int) -> None:  # noqa: ARG002  they follow
        self.new = keys

    def add_rows(self, intake: Intake, rows: Sequence[NewRow], first: int, priority: int) -> None:
        texts, spans = packed(row.item.input_json for row in rows)
        which = {
            "first": first, "last": first + len(rows) - 1, "priority": priority,
            "experiment_id": intake.experiment_id,
        }  # fmt: skip
        self._db.execute("add_items", {
            **which, "variant": intake.variant, "recipe_id": intake.recipe_id,
            "texts": texts, "spans": listed(spans), **_names(rows), **_samples(rows, intake),
        })  # fmt: skip
        self._db.execute("add_keys", {"first": first, "keys": b"".join([row.key for row in rows])})
        self._db.execute("add_work", which)


def _names(rows: Sequence[NewRow]) -> dict[str, object]:
    """The ids of the rows; nothing, where none has one."""
    if not any(row.item.custom_id for row in rows):
        return {"names": b"", "name_spans": "[]"}
    names, spans = packed(
        (row.item.custom_id or "").replace(_NUL, _IN_ITS_PLACE) for row in rows
    )  # fmt: skip
    return {"names": names, "name_spans": listed(spans)}


def _samples(rows: Sequence[NewRow], intake: Intake) -> dict[str, object]:
    if intake.samples == 1:
        return {"samples": "[]", "samples_of": "[]"}
    return {
        "samples": listed([row.sample for row in rows]),
        "samples_of": listed([row.sample_of for row in rows]),
    }


def items_by_keys(
    db: Transaction, keys: Sequence[bytes]
) -> Sequence[tuple[int, int, str]]:  # fmt: skip
    return db.execute("items_by_keys", {"keys": b"".join(keys)}).fetchall()


class Additions:
    """See `batchgen.store.database`. `lease` is the one under which pools are enqueued."""

    def __init__(self, database: "Database", lease: Lease) -> None:
        self._db = database
        self._lease = lease
        self._pass = Pass()

    def begin_pass(self, db: Transaction) -> SeenKeys:
        self._lease.check(db)
        self._pass = Pass()
        return SeenKeys()

    def items_by_keys(
        self, db: Transaction, keys: Sequence[bytes]
    ) -> Sequence[tuple[int, int, str]]:
        return items_by_keys(db, keys)

    async def add_items(
        self, into: Intake, items: Sequence[NewItem], priority: int, begun: Callable[[], object]
    ) -> Added:
        def add(db: Any) -> tuple[Added, Chunk]:
            begun()
            self._lease.check(db)
            _check_experiment(db, into.experiment_id)
            chunk = Chunk(db, self._pass)
            return additions.add_items(db, chunk, into, items, priority), chunk

        added, chunk = await self._db.write_beside(add)
        self._pass.keep(chunk)
        return added

    async def end_pass(self) -> None:
        """All keys are where they belong."""

    async def begin_count(self) -> int:
        first = 1 + await self._db.read(_newest_item)
        self._pass = Pass(NewKeys(first))
        return first

    async def count_new(self, into: Intake, items: Sequence[NewItem], first: int) -> NewRows:
        def count(db: Any) -> tuple[NewRows, Chunk]:
            chunk = Chunk(db, self._pass)
            return additions.count_new(chunk, into, items, first), chunk

        new, chunk = await self._db.read(count)
        self._pass.keep(chunk)
        return new


def _check_experiment(db: Transaction, experiment_id: int) -> None:
    """No foreign key does, and its rows would be nobody's."""
    if not db.execute("experiment_is_there", {"experiment_id": experiment_id}).fetchone():
        raise StoreRefusedError("The experiment was deleted while a pool was enqueued into it.")


def _newest_item(db: Transaction) -> int:
    return db.newest("items")
