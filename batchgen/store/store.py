"""The whole store: what is written, and what is read of big tables. `read_store` has the rest of
what is read."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from msgspec.structs import replace

from batchgen.clock import now_ms
from batchgen.errors import Remedy, StoreError, UsageError
from batchgen.installed import load_psycopg
from batchgen.items import RAW, NewItem, ParserVersion, Recipe, State
from batchgen.shutdown import uninterrupted
from batchgen.store.reading import ReadStore
from batchgen.store.records import (
    AnswerDetails,
    MadePage,
    ResultRow,
    WorkerKind,
)
from batchgen.store.server_wants import AskedServer
from batchgen.store.transaction import Transaction
from batchgen.store.transactions import (
    admin,
    budget,
    intake,
    look,
    repair,
    results,
    selections,
    steering,
    twins,
    verify,
)
from batchgen.store.transactions import seat as seats
from batchgen.store.transactions.files import Files
from batchgen.store.transactions.parsers import Parsers
from batchgen.store.transactions.seat import Seat
from batchgen.store.values import (
    Added,
    AskedAgain,
    Budget,
    ChainIntake,
    EndedItem,
    Intake,
    NewRows,
    OrderChange,
    OtherRecipe,
    Selection,
    Spent,
    Twin,
)

T = TypeVar("T")
CountNew = Callable[[Sequence[NewItem]], Awaitable[NewRows]]

if TYPE_CHECKING:
    from batchgen.database_address import DatabaseAddress
    from batchgen.store.database import Database
    from batchgen.store.transactions.batches import Batches
    from batchgen.store.transactions.chains import Chains
    from batchgen.store.transactions.reviews import Reviews


@asynccontextmanager
async def open_store(address: "DatabaseAddress", *, create: bool = False) -> AsyncIterator["Store"]:
    """Open the work table in this file, or on this server, migrated to the newest schema.

    Raises UsageError when there is none and `create` is false, StoreError when it cannot be used;
    the message says what to do.
    """
    if isinstance(address, Path):
        from batchgen.store.sqlite.connection import open_database  # here: engines are on demand

        async with open_database(address, create=create) as database:
            yield Store(database)
    else:
        load_psycopg()
        from batchgen.store.postgres.connection import open_database as open_on_server

        async with open_on_server(address, create=create) as served:
            yield Store(served)


@asynccontextmanager
async def open_store_if_there(address: "DatabaseAddress") -> AsyncIterator["Store | None"]:
    """The same; None where nobody has made one yet."""
    async with AsyncExitStack() as stack:
        try:
            store = await stack.enter_async_context(open_store(address))
        except UsageError as exc:
            if exc.remedy is not Remedy.ENQUEUE_FIRST:
                raise
            store = None
        yield store


class Store(ReadStore):
    """Any number of tasks may use it; writes take turns, and reads do not wait for them. Its
    methods stand by who needs them."""

    def __init__(self, database: "Database") -> None:
        super().__init__(database)
        self._db: Database = database
        self.parsers: Parsers = Parsers(database)
        self.files = Files(database)

    @cached_property
    def chains(self) -> "Chains":
        """Its side that is about rows made of others."""
        from batchgen.store.transactions.chains import Chains  # here: most have no steps

        return Chains(self._db)

    @cached_property
    def reviews(self) -> "Reviews":
        """Its side that is about what people say of answers."""
        from batchgen.store.transactions.reviews import Reviews  # here: few commands ask

        return Reviews(self._db)

    @cached_property
    def batches(self) -> "Batches":
        """Its side that is about provider batches."""
        from batchgen.store.transactions.batches import Batches  # here: few send any

        return Batches(self._db)

    def owns(self, path: Path) -> bool:
        """Whether the database itself is kept in this file, which nobody else may write to then."""
        return self._db.owns(path)

    @property
    def is_served(self) -> bool:
        """Whether a server reads and writes, while this process does something else."""
        return self._db.is_served

    # Intake: enqueueing

    @asynccontextmanager
    async def enqueueing(
        self, experiment: str, recipe: Recipe, mode: OtherRecipe, samples: int = 1,
        parser: ParserVersion = RAW, *, chain: ChainIntake | None = None,
        patience_s: float = 300.0, say: Callable[[str], None] = lambda _: None,
    ) -> AsyncIterator[Intake]:  # fmt: skip
        """Begin to enqueue one pool into an experiment, which is made when it is new. Each item
        gets `samples` rows. The parser becomes the experiment's; what others have read stays. With
        a `chain` it has these steps; `recipe` and `parser` are those of the first one.

        While another process is enqueueing into this database it waits, which `say` is told, and
        after `patience_s` raises UsageError.
        """

        def begin(db: Transaction) -> Intake:
            into = intake.begin_intake(
                db, experiment, recipe, parser, mode, now_ms(), samples, chain
            )
            return replace(into, seen=self._db.additions.begin_pass(db)) if into.first else into

        async with self._db.only_enqueueing(patience_s, say):
            await self._db.additions.end_pass()  # that of a process that was killed
            if mode in (OtherRecipe.REPLACE, OtherRecipe.AGAIN):
                await seats.take_over_from_dead(self._db)
            yield await self._db.write(begin)
            await self._db.additions.end_pass()

    async def planned_intake(
        self, experiment_id: int, recipe: Recipe, mode: OtherRecipe, samples: int
    ) -> Intake:
        """What `enqueueing` would begin; rows that dead workers left count as running."""
        return await self._db.read(intake.planned_intake, experiment_id, recipe, mode, samples)

    @asynccontextmanager
    async def counting(self, into: Intake) -> AsyncIterator[CountNew]:
        """While inside, a pool can be counted instead: of thousands of items at a time, in the
        order of the pool, which rows `add_items` would make. Nothing is written."""
        number = await self._db.additions.begin_count()
        into = replace(into, first=number)

        async def count_new(items: Sequence[NewItem]) -> NewRows:
            nonlocal number
            new = await self._db.additions.count_new(into, items, number)
            number += new.rows
            return new

        yield count_new

    async def add_items(
        self, into: Intake, items: Sequence[NewItem], priority: int = 0,
        begun: Callable[[], object] = lambda: None,
    ) -> Added:  # fmt: skip
        """Add what is not there yet of the items and their samples, in their order. Give it
        thousands at a time. `begun` is called, on another thread, when nothing is needed any more
        of the event loop for them to be written."""
        return await self._db.additions.add_items(into, items, priority, begun)

    async def ask_again(self, into: Intake, row_ids: Sequence[int]) -> AskedAgain:
        """Those of the rows that were asked with another recipe than that of the intake, but not by
        a retry with other parameters, are asked with it. What came of them before stays stored."""
        return await self._db.write(intake.ask_again, into, row_ids, now_ms())

    async def items_with_ids(
        self, experiment_id: int, custom_ids: Sequence[str], variant: int | None = None
    ) -> dict[str, tuple[int, str]]:
        """The number and the input of each item of a variant (None: the newest) with these ids."""
        items_by_keys = self._db.additions.items_by_keys
        return await self._db.read(
            intake.items_with_ids, items_by_keys, experiment_id, custom_ids, variant
        )

    async def find_twin(self, into: Intake, items: Sequence[NewItem]) -> Twin | None:
        """The first of these items that is there already but for its id, when none is as it is."""
        return await self._db.read(twins.find_twin, into, items)

    @asynccontextmanager
    async def selecting(
        self, experiment_id: int, item_ids: Sequence[int]
    ) -> AsyncIterator[Selection]:
        """A selection of these items (all their samples are named), for claims of them alone."""
        begin, end = selections.begin_selection, selections.end_selection
        selection = await self._db.write(begin, experiment_id, item_ids, now_ms())
        try:
            yield selection
        finally:
            if selection.number is not None:
                await uninterrupted(self._db.write(end, selection.number))

    async def take_over_from_dead(self) -> None:
        """What workers had that died goes back, as if a new worker took over; it fails no item."""
        await seats.take_over_from_dead(self._db)

    # Seat: a worker's place, and what a worker asks besides

    def wait_for_server(self, patience_s: float, say: Callable[[str], None]) -> None:
        """For how long a server that went away is waited for, where it is one that keeps the
        database; `say` gets why, when it takes long. What is to be written waits meanwhile."""
        self._db.wait_for_server(patience_s, say)

    def hurry(self) -> None:
        """Nobody has time any more: from now on no server is waited for, but for a moment; what
        cannot be written then raises StoreAwayError."""
        self._db.hurry()

    @asynccontextmanager
    async def seat(
        self, slots: int, lease_s: float, max_crashes: int, servers: Sequence[AskedServer] = (),
        run: str = "", kind: WorkerKind = WorkerKind.CALLER,
    ) -> AsyncIterator[Seat]:  # fmt: skip
        """Join as a worker of `run` that asks these servers (a sender asks none itself), and leave
        in the end: what is still claimed goes back untouched. When that cannot be written, it is as
        if the worker had died. Then, too, the error that ended the work is the one that is raised,
        if there was one."""
        seat = Seat(self._db, slots, int(lease_s * 1000), max_crashes, servers, run, kind)
        try:
            await seat.join()
            yield seat
        except BaseException:
            with suppress(StoreError):
                await seat.leave()
            raise
        else:
            await seat.leave()

    def sending(self) -> AbstractAsyncContextManager[bool]:
        """While inside, this process alone sends provider batches. False: another one does, and is
        alive."""
        return self._db.only_sending()

    async def recent_usage(self) -> list[tuple[int, int]]:
        """(bytes of the item's input, tokens in and out) of the newest answers, oldest first."""
        return await self._db.read(look.recent_usage)

    async def present_recipes(self, experiment_id: int) -> list[int]:
        """The numbers of those that its variants have, the newest first; another one is that of
        some items only."""
        return await self._db.read(look.present_recipes, experiment_id)

    async def spent(self, of: Budget) -> Spent:
        """Of a budget, by calls that are over."""
        return await self._db.read(budget.spent_of, of)

    async def overuse(self, experiment_id: int) -> float:
        """How many times as much as was asked for a call has used; 1: none has used more."""
        return (await self._db.read(budget.overuse)).get(experiment_id, 1.0)

    # Repair: retry; reparse needs `parsers`

    async def failed_page(
        self, experiment_id: int, reason: str | None, message: str | None, after: int,
        limit: int = 5000,
    ) -> list[EndedItem]:  # fmt: skip
        """The next failed items after item `after`, those that have `message` in their error in
        whatever case; an empty page at the end."""
        return await self._db.read(repair.failed_page, experiment_id, reason, message, after, limit)

    async def ended_item(self, item_id: int) -> EndedItem | None:
        """None when it has not ended."""
        return await self._db.read(repair.ended_item, item_id)

    async def reopen(
        self, items: Sequence[EndedItem], change: Callable[[Recipe], Recipe] | None = None
    ) -> int:
        """Items that ended back to pending with all their tries, old attempts and results kept;
        how many still had ended so. `change` gives them another recipe, and they stay the same
        items."""
        return await self._db.write(repair.reopen, items, change, now_ms())

    # Admin: workers and experiments as a whole

    async def change_orders(self, changes: Mapping[int, OrderChange]) -> int:
        """Give other orders to workers, by their numbers; how many of them were still there. Each
        obeys in a second or two."""
        return await self._db.write(steering.change_orders, changes)

    async def rename_experiment(self, experiment_id: int, new_name: str) -> None:
        """Raises UsageError when the name is taken."""
        await self._db.write(admin.rename_experiment, experiment_id, new_name)

    async def delete_experiment(self, experiment_id: int) -> None:
        """With all its answers. Raises UsageError while a worker is at work on it."""
        await self._db.write(admin.delete_experiment, experiment_id)

    # Results: what export reads

    async def result_page(
        self, experiment_id: int, state: State | None, after: int, limit: int = 500
    ) -> list[ResultRow]:
        """The next done (or failed; None: both) items after item `after`, in the order of the
        pool."""
        return await self._db.read(results.result_page, experiment_id, state, after, limit)

    async def made_page(
        self, make: Callable[[Sequence[ResultRow]], T], experiment_id: int, state: State | None,
        after: int, limit: int = 500,
    ) -> MadePage[T]:  # fmt: skip
        """The same as what `make` makes of them, on the thread that has read them."""
        return await self._db.read(
            results.made_page, make, experiment_id, state, after, limit
        )  # fmt: skip

    async def results_of(self, item_ids: Sequence[int]) -> list[ResultRow]:
        """The results of chosen items that have ended, in no order."""
        return await self._db.read(results.results_of, item_ids)

    async def count_earlier_recipes(self, item_ids: Sequence[int]) -> int:
        """How many of these are done with a recipe that their experiment had before."""
        return await self._db.read(look.count_earlier_recipes, item_ids)

    async def rows_of_items(self, item_ids: Sequence[int], samples: int) -> list[int]:
        """The numbers of the items and of the first `samples` of each, in their order."""
        return await self._db.read(selections.rows_of_items, item_ids, samples)

    async def sample_page(self, experiment_id: int, after: int, limit: int = 250) -> dict[int, int]:
        """The numbers of the next `limit` items after item `after`, in the order of the pool, each
        followed by those of its other samples; by them, that of the first one. Whatever became of
        them. Empty at the end."""
        return await self._db.read(results.sample_page, experiment_id, after, limit)

    async def results_in_order(self, item_ids: Sequence[int]) -> tuple[list[ResultRow], list[int]]:
        """The results of chosen items that have ended, in their order; and the numbers of those for
        another time, when they are big."""
        return await self._db.read(results.results_in_order, item_ids)

    async def answer_details(
        self, item_ids: Sequence[int], *, bodies: bool
    ) -> dict[int, AnswerDetails]:
        """What else is stored of items that ended; one that was reopened meanwhile is not there."""
        return await self._db.read(results.answer_details, item_ids, bodies=bodies)

    async def has_samples(self, experiment_id: int) -> bool:
        """Whether several answers were wanted of any item."""
        return await self._db.read(results.has_samples, experiment_id)

    async def newest_result(self) -> int:
        return await self._db.settled(results.newest_result)

    async def results_mark(self) -> int:
        """A number that rises whenever an export may have other lines than before: a result came,
        or one that was done is its item's no more."""
        return await self._db.settled(results.results_mark)

    # Proof

    async def verify(self) -> list[str]:
        """Every contradiction in the tables, a line each; none when all is well."""
        return await self._db.read(verify.verify_tables)
