"""The side of the store that only reads: how it goes, and what came of an item.

Who needs no more opens it with `read_store`, and needs no event loop: none of these methods waits
then.
"""

import time
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from batchgen.clock import now_ms
from batchgen.items import Recipe
from batchgen.store.records import (
    Counts,
    Experiment,
    FailedCalls,
    FailureGroup,
    Pace,
    StoredAttempt,
    StoredItem,
    StoredRecipe,
    UnknownCall,
    Variant,
    WorkerRow,
)
from batchgen.store.transactions import living, look, shared_rates
from batchgen.store.transactions.known_parsers import KnownParsers

if TYPE_CHECKING:
    from batchgen.database_address import DatabaseAddress
    from batchgen.errors import MovedError
    from batchgen.store.chain_records import Chain, ChainRow, FollowRow, MadeOf
    from batchgen.store.database import Reads
    from batchgen.store.transactions.known_batches import KnownBatches
    from batchgen.store.transactions.pages import Pages
    from batchgen.store.transactions.reviews import KnownReviews
    from batchgen.store.transactions.series import Minutes
    from batchgen.store.values import Selection

T = TypeVar("T")


def read_now(job: Coroutine[Any, Any, T]) -> T:
    """What a job comes to that asks a `read_store` and nothing else: it never waits, and needs no
    event loop."""
    try:
        job.send(None)
    except StopIteration as end:
        found: T = end.value
        return found
    finally:
        job.close()
    raise RuntimeError("a job that only reads has waited for something")


@contextmanager
def read_store(address: "DatabaseAddress") -> Iterator["ReadStore"]:
    """Open the work table in this file, or on this server, migrated to the newest schema, for
    reading alone. Raises UsageError when there is none, StoreError when it cannot be used."""
    if isinstance(address, Path):
        from batchgen.store.sqlite.reading import open_to_read  # here: engines are on demand

        with open_to_read(address) as database:
            yield ReadStore(database)
    else:
        from batchgen.installed import load_psycopg

        load_psycopg()
        from batchgen.store.postgres.reading import open_to_read as open_on_server

        with open_on_server(address) as served:
            yield ReadStore(served)


class ReadStore:
    """Any number of tasks may use it."""

    def __init__(self, database: "Reads") -> None:
        self._db = database
        self.name = database.name  # for messages
        self.parsers: KnownParsers = KnownParsers(database)

    @cached_property
    def pages(self) -> "Pages":
        """Its side that is browsed."""
        from batchgen.store.transactions.pages import Pages  # here: few browse

        return Pages(self._db)

    @cached_property
    def minutes(self) -> "Minutes":
        """What was done in each minute."""
        from batchgen.store.transactions.series import Minutes  # here: only plots need them

        return Minutes(self._db)

    @cached_property
    def reviews(self) -> "KnownReviews":
        """Its side that is about what people said of answers."""
        from batchgen.store.transactions.reviews import KnownReviews  # here: few commands ask

        return KnownReviews(self._db)

    @cached_property
    def batches(self) -> "KnownBatches":
        """What is at providers."""
        from batchgen.store.transactions.known_batches import KnownBatches  # here: few have any

        return KnownBatches(self._db)

    def warnings(self) -> list[str]:
        """What is to be known of the engine that keeps this database; none when all is well."""
        return self._db.warnings()

    async def moved_to(self) -> str | None:
        """Where all of it was moved, without its password; since then this one takes no work."""
        return await self._db.read(look.moved_to)

    async def moved_error(self) -> "MovedError | None":
        """What who writes to it is told since then."""
        from batchgen.store.tables import moved_error, moved_words  # here: few are moved

        other = await self.moved_to()
        return moved_error(self.name, moved_words(other)) if other else None

    # Look: how it goes

    async def change_mark(self) -> str:
        """Another one as soon as anybody else has written to the database; also, at times, when
        nobody has. It costs next to nothing, and compares with those of this store only."""
        return await self._db.read(look.change_mark)

    async def experiments(self) -> list[Experiment]:
        return await self._db.read(look.experiments)

    async def counts(
        self, experiment_ids: Sequence[int] | None = None, selection: "Selection | None" = None
    ) -> Counts:
        """Items by state and what their calls used, of some experiments or all, in constant time.
        With a `selection` the items are those of it."""
        return await self._db.read(look.counts, experiment_ids, selection)

    async def counts_by_experiment(self) -> dict[int, Counts]:
        """The same of each experiment, by its number; one that is empty may not be there."""
        return await self._db.read(look.counts_by_experiment)

    async def unknown_calls(
        self, after: int, experiment_id: int | None = None, limit: int = 500
    ) -> list[UnknownCall]:
        """The next calls with unknown outcome after attempt `after`, of an experiment or of all; an
        empty page at the end."""
        return await self._db.read(look.unknown_calls, after, experiment_id, limit)

    async def calls_of_worker(self, worker_id: int, limit: int = 500) -> list[UnknownCall]:
        """What a worker that died had in flight, while nobody has taken over from it; the first of
        them, when they are many or big."""
        return await self._db.read(look.calls_of_worker, worker_id, limit)

    async def pace(self, experiment_id: int | None = None) -> Pace:
        """How fast calls end items, of an experiment or of all, over the last minute."""
        return await self._db.read(look.pace, now_ms(), experiment_id)

    async def latencies_ms(
        self, experiment_ids: Sequence[int] | None = None, after: int = 0
    ) -> list[int]:
        """Of the newest answers, a thousand at most, in rising order: those after attempt `after`,
        for some experiments or all."""
        return await self._db.read(look.latencies_ms, experiment_ids, after)

    async def newest_attempt(self) -> int:
        """The number of the newest attempt; 0 when there is none yet."""
        return await self._db.read(look.newest_attempt)

    async def learned_rates(self) -> dict[str, float]:
        """The calls a minute that --adaptive has found a server to take, by server."""
        return await self._db.read(shared_rates.learned_rates)

    async def workers(self) -> list[WorkerRow]:
        """Those that joined and did not leave, told whether they still live."""
        return living.told_alive(self._db.members, await self._db.read(living.workers))

    async def failures(
        self, experiment_id: int, reason: str | None = None, limit: int = 50
    ) -> list[FailureGroup]:
        """The failed items by reason and message, without the ids and digits in it: the largest
        groups. It takes time for each failed item."""
        return await self._db.read(look.failures, experiment_id, reason, limit)

    async def last_failures(
        self, experiment_id: int, budget_s: float, most: int | None = None, limit: int = 50
    ) -> tuple[list[FailureGroup], int]:
        """The same of the failed items at the end of the pool, as many as can be looked at in about
        `budget_s`, and `most` at most; and how many these were."""
        until_s = time.monotonic() + budget_s
        return await self._db.read(look.last_failures, experiment_id, limit, most, until_s)

    async def failed_calls(self, experiment_id: int) -> list[FailedCalls]:
        """How calls of the experiment failed, whether or not they were asked again; the most
        frequent first."""
        found = await self._db.read(look.failed_calls)
        own = [one for one in found if one.experiment_id == experiment_id]
        return sorted(own, key=lambda one: -one.n)

    async def find_items(self, given: str, experiment_id: int | None = None) -> list[int]:
        """The numbers of the items with this id in any experiment, or in one, with all their
        samples; or, if there is none, of the one with this number. `#17` is always a number."""
        return await self._db.read(look.find_items, given, experiment_id)

    async def item(self, item_id: int) -> StoredItem | None:
        return await self._db.read(look.item, item_id)

    async def items_with_own(self, item_ids: Sequence[int], names: Sequence[str]) -> set[int]:
        """Those of the items that have one of these parameters themselves: it wins over the
        recipe's."""
        return await self._db.read(look.items_with_own, item_ids, names)

    async def attempts_of(self, item_id: int) -> list[StoredAttempt]:
        """Every call for an item, oldest first."""
        return await self._db.read(look.attempts_of, item_id)

    async def recipe(self, recipe_id: int) -> Recipe:
        return Recipe.from_json(await self._db.read(look.recipe_json, recipe_id))

    async def newest_recipes(self, limit: int = 1000) -> list[StoredRecipe]:
        """The newest first."""
        return await self._db.read(look.newest_recipes, limit)

    async def variants(self) -> list[Variant]:
        """Of all experiments."""
        return await self._db.read(look.variants)

    # Steps

    async def chain_of(self, experiment_id: int) -> "Chain | None":
        """The chain to which the experiment belongs, by whatever of its steps; None: it has no
        steps."""
        from batchgen.store.transactions import plans  # here: what has no steps need not load it

        return await self._db.read(plans.chain_of, experiment_id)

    async def chain_if_step(self, experiment: Experiment) -> "Chain | None":
        """The same, and nothing is read where it has no steps."""
        return None if experiment.step is None else await self.chain_of(experiment.id)

    async def links_of(self, item_ids: Sequence[int]) -> "dict[int, MadeOf]":
        """What rows were made of, by the rows; those of a first step are not there."""
        from batchgen.store.transactions import links

        return await self._db.read(links.links_of, item_ids)

    async def follow_page(
        self, experiment_id: int, after: int, limit: int = 250
    ) -> "list[FollowRow]":
        """The next done rows of a step after row `after`, with what they were made of; an empty
        page at the end. After a change of the plan, step by step from the first one."""
        from batchgen.store.transactions import refollow

        return await self._db.read(refollow.follow_page, experiment_id, after, limit)

    async def stale_to_ask(self, experiment_ids: Sequence[int] | None = None) -> dict[int, int]:
        """Of these experiments, or of all, those with stale rows that their steps still make; all
        stale rows of the others stay so. Of the first thousands, how many do here."""
        return await self._db.read(look.stale_to_ask, experiment_ids)

    async def answer_vector(self, attempt_seq: int) -> str | None:
        """The embedding that was the answer to a call; None: that is a text."""
        return await self._db.read(look.answer_vector, attempt_seq)

    async def chain_rows_below(self, first_ids: Sequence[int]) -> "list[ChainRow]":
        """Rows of a first step, each followed by all that was made of it, in the order of the
        lists."""
        from batchgen.store.transactions import chain_rows  # here

        return await self._db.read(chain_rows.chain_rows_below, first_ids)

    async def last_bad_answer(self, item_id: int) -> tuple[str, str] | None:
        """The newest answer of an item that its parser could not use, and why."""
        return await self._db.read(look.last_bad_answer, item_id)
