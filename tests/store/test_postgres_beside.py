"""What workers write beside each other on PostgreSQL: it comes to the same as if they took turns.

In each of these tests the transaction of one worker is held before its commit, until that of
another has ended, or waits for it.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, NamedTuple

import pytest

from batchgen.database_address import PostgresAddress
from batchgen.items import Done, Item, KeepAnswer, Outcome, Retry
from batchgen.limits import Limits
from batchgen.limits.ahead import AskedAhead
from batchgen.steps import Child
from batchgen.store import Budget, ClaimRequest, Grant, Reservation, Trial
from batchgen.store.calls_ahead import WantedAhead
from batchgen.store.postgres.connection import Database, open_database
from batchgen.store.postgres.transaction import PostgresTransaction
from batchgen.store.transactions import budget, queue, repair
from batchgen.store.transactions.ahead import take_calls_ahead
from tests.kits.postgres import execute
from tests.kits.table import MAX_CRASHES, SERVER, START, Table, answered, claims, open_table
from tests.store.test_chains import BEST, PLAIN, Line

Write = Callable[[PostgresTransaction], Any]
CRITIQUE = Child(1)
WAITING = "select count(*) from pg_locks where not granted"


class Ended(NamedTuple):
    held: Any
    other: Any
    has_waited: bool  # the other, for the one that was held


class Beside:
    """Two workers of a database."""

    def __init__(self, address: PostgresAddress, one: Database, other: Database) -> None:
        self._address = address
        self._one = one
        self._other = other

    async def run(self, first: Write, second: Write, *, alone: bool = False) -> Ended:
        """`alone`: the second one writes alone."""
        begun, may_end = threading.Event(), threading.Event()

        def held(db: PostgresTransaction) -> Any:
            result = first(db)
            db.newest("items")  # all that was written before has arrived
            begun.set()
            assert may_end.wait(30)
            return result

        holding = asyncio.create_task(self._one.write_beside(held))
        await asyncio.to_thread(begun.wait)
        write = self._other.write if alone else self._other.write_beside
        other = asyncio.create_task(write(second))
        while not other.done() and execute(self._address.url, WAITING) == [(0,)]:
            await asyncio.sleep(0.002)
        has_waited = not other.done()
        may_end.set()
        return Ended(await holding, await other, has_waited)


@pytest.fixture
async def beside(postgres: PostgresAddress) -> AsyncIterator[Beside]:
    async with (
        open_database(postgres, create=False) as one,
        open_database(postgres, create=False) as other,
    ):
        one.counts_for(1)
        other.counts_for(2)
        yield Beside(postgres, one, other)


@pytest.fixture
def table(postgres: PostgresAddress, beside: Beside) -> Iterator[Table]:
    with open_table(postgres) as opened:
        yield opened
        assert opened.counters() == opened.recount()
        assert opened.parser_counters() == opened.recount_parsers()
        assert opened.step_counters() == opened.recount_steps()


def exchange(worker: int, want: ClaimRequest, *outcomes: Outcome) -> Write:
    return lambda db: queue.exchange(db, worker, outcomes, want, START)


def done(item: Item, followed: Any = None) -> Outcome:
    return Outcome(item, (answered(),), Done(followed=followed))


async def test_workers_claim_and_finish_at_the_same_time(table: Table, beside: Beside) -> None:
    table.enqueue(*range(9))
    one, other = table.join(), table.join()
    mine, theirs = table.claim(one, 2), table.claim(other, 2)
    ended = await beside.run(
        exchange(one, claims(2), *map(done, mine)), exchange(other, claims(2), *map(done, theirs))
    )
    assert not ended.has_waited
    assert [item.id for item in ended.held.items] == [5, 6]
    assert [item.id for item in ended.other.items] == [7, 8]
    assert table.one("select n from counters where state = 'done'") == 4


async def test_until_so_many_are_done_no_more_are_begun(table: Table, beside: Beside) -> None:
    table.enqueue(*range(9))
    want = claims(2, until=3)
    ended = await beside.run(exchange(table.join(), want), exchange(table.join(), want))
    assert [len(one.items) for one in ended[:2]] == [2, 1]


async def test_a_budget_is_spent_once(table: Table, beside: Beside) -> None:
    table.enqueue(*range(9))
    workers = table.join(), table.join()
    claimed = [table.claim(worker, 1) for worker in workers]

    def reserve(n: int) -> Write:
        wanted = [Reservation(item, tokens=70, cost_usd=0.0) for item in claimed[n]]
        return lambda db: budget.reserve(db, workers[n], wanted, Budget(max_tokens=100))

    ended = await beside.run(reserve(0), reserve(1))
    assert ended[:2] == ([Grant.YES], [Grant.WAIT])


async def test_what_ends_while_a_budget_is_looked_at_is_not_missed(
    table: Table, beside: Beside
) -> None:
    """It was reserved, and is spent: one of the two is seen."""
    table.enqueue(*range(9))
    one, other = table.join(), table.join()
    (mine,), (theirs,) = table.claim(one, 1), table.claim(other, 1)
    most = Budget(max_tokens=100)
    table.run(budget.reserve, one, [Reservation(mine, 70, 0.0)], most)
    wanted = [Reservation(theirs, 70, 0.0)]
    ended = await beside.run(
        lambda db: budget.reserve(db, other, wanted, most), exchange(one, claims(0), done(mine))
    )
    assert ended.held == [Grant.WAIT]
    assert not ended.has_waited


async def test_workers_share_the_requests_of_a_minute(table: Table, beside: Beside) -> None:
    limits = Limits(rpm=5)  # none is sent before a twelfth of a minute
    wanted = {SERVER: WantedAhead(AskedAhead(calls=9), limits, 1.0)}

    def take(worker: int) -> Write:
        return lambda db: take_calls_ahead(db, worker, wanted, lambda: START)

    ended = await beside.run(take(table.join()), take(table.join()))
    assert ended.has_waited
    assert [one[SERVER].calls for one in ended[:2]] == [1, 0]


async def test_what_is_on_trial_is_asked_for_as_if_they_took_turns(
    table: Table, beside: Beside
) -> None:
    table.enqueue(*range(50))
    want = claims(16, trial=Trial(calls=16))
    ended = await beside.run(exchange(table.join(), want), exchange(table.join(), want))
    assert [len(one.items) for one in ended[:2]] == [16, 0]


async def test_who_ends_the_last_two_rows_of_a_gathering_gathers_once(
    table: Table, beside: Beside
) -> None:
    line = Line(table, BEST, "a", samples=2)
    for draft in line.claim():
        line.done(draft, f"v{draft.id}", CRITIQUE)
    other = table.join()
    (mine,), (theirs,) = line.claim(1), table.claim(other, 1)
    ended = await beside.run(
        exchange(line.worker, claims(0), done(mine, line.followed("s1"))),
        exchange(other, claims(0), done(theirs, line.followed("s2"))),
    )
    assert ended.has_waited
    assert line.rows()[-1] == ("pick", 1, 0, "pending")
    (pick,) = line.claim()
    assert [[link.item_id for link in chain] for chain in pick.gathered] == [[1, 3], [2, 4]]


async def test_gatherings_that_have_nothing_in_common_do_not_wait(
    table: Table, beside: Beside
) -> None:
    line = Line(table, BEST, "a", "b")
    for draft in line.claim():
        line.done(draft, f"v{draft.id}", CRITIQUE)
    other = table.join()
    (mine,), (theirs,) = line.claim(1), table.claim(other, 1)
    ended = await beside.run(
        exchange(line.worker, claims(0), done(mine, line.followed("s1"))),
        exchange(other, claims(0), done(theirs, line.followed("s2"))),
    )
    assert not ended.has_waited
    assert [row[0] for row in line.rows()].count("pick") == 2


async def test_what_a_row_was_made_of_is_not_looked_at_while_it_ends(
    table: Table, beside: Beside
) -> None:
    """A draft is asked anew while its critique runs; both end at the same time, and the draft says
    what it said before: so the critique is not stale."""
    line = Line(table, PLAIN, "a")
    line.done(line.claim()[0], "v", CRITIQUE)
    other = table.join()
    (critique,) = table.claim(other, 1)
    ended_draft = repair.ended_item(table.transaction, 1)
    assert ended_draft
    table.run(repair.reopen, [ended_draft], None, START)
    (draft,) = line.claim()
    ended = await beside.run(
        exchange(other, claims(0), done(critique, line.followed("w", Child(2)))),
        exchange(line.worker, claims(0), done(draft, line.followed("v", CRITIQUE))),
    )
    assert ended.has_waited
    states = [(step, state) for step, _, _, state in line.rows()]
    assert states == [("draft", "done"), ("critique", "pending")]  # to be parsed again


async def test_who_is_taken_for_dead_in_the_middle_of_an_exchange_loses_what_it_claims_in_it(
    table: Table, beside: Beside
) -> None:
    table.enqueue(*range(3))
    late = table.join()
    (item,) = table.claim(late, 1)
    ended = await beside.run(
        exchange(late, claims(1), done(item)),
        lambda db: queue.remove_worker(db, late, crashed=True, max_crashes=MAX_CRASHES, now=START),
        alone=True,
    )
    assert ended.has_waited
    assert ended.other == 1
    assert table.states() == {1: "done", 2: "pending", 3: "pending"}
    assert table.query("select worker_id from counters_by_worker where worker_id = 1") == []


async def test_a_retry_that_is_due_is_claimed_once(table: Table, beside: Beside) -> None:
    table.enqueue("a")
    worker = table.join()
    for item in table.claim(worker, 1):
        table.finish(worker, item, Retry(START, charged=True))
    ended = await beside.run(exchange(table.join(), claims(1)), exchange(table.join(), claims(1)))
    assert [len(one.items) for one in ended[:2]] == [1, 0]
    assert not ended.has_waited


async def test_what_killed_a_parser_is_claimed_once(table: Table, beside: Beside) -> None:
    table.enqueue("a")
    worker = table.join()
    for item in table.claim(worker, 1):
        table.finish(worker, item, KeepAnswer(), answered())
    table.take_over(worker)
    ended = await beside.run(exchange(table.join(), claims(1)), exchange(table.join(), claims(1)))
    assert [len(one.items) for one in ended[:2]] == [1, 0]
    assert not ended.has_waited
