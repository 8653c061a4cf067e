"""How often an exchange waits for the server: what can be asked together is, as each wait costs the
way there and back."""

from collections.abc import Iterator

import pytest

from batchgen.database_address import PostgresAddress
from batchgen.items import Done, Item, Outcome
from batchgen.limits import Limits, Told, ahead
from batchgen.store import ClaimRequest, Seat, ServerWant, Trial, open_store
from batchgen.store.postgres.pipeline import Pipeline
from tests.kits.table import SERVER, Table, answered, open_table


@pytest.fixture
def table(postgres: PostgresAddress) -> Iterator[Table]:
    with open_table(postgres) as opened:
        yield opened


class Waits:
    """Counted where an answer is waited for that has not come. The one for the commit comes on
    top."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.n = 0
        wait = Pipeline.wait

        def counted(pipeline: Pipeline) -> None:
            self.n += 1
            wait(pipeline)

        monkeypatch.setattr(Pipeline, "wait", counted)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Waits:
    return Waits(monkeypatch)


async def steady(seat: Seat, waits: Waits, want: ClaimRequest, exchanges: int = 4) -> list[int]:
    """The waits of each exchange, while others of the worker's calls are under way. The first ones
    ask what columns there are, once in a process."""
    counted, in_flight = list[int](), (await seat.exchange([], want)).items
    in_flight += (await seat.exchange([], want)).items
    for _ in range(exchanges):
        before, half = waits.n, len(in_flight) // 2
        outcomes = list(map(done, in_flight[:half]))
        in_flight = in_flight[half:] + (await seat.exchange(outcomes, want)).items
        counted.append(waits.n - before)
    return counted[2:]


def done(item: Item) -> Outcome:
    return Outcome(item, (answered(),), Done())


KNOWN = Trial(proven=frozenset({1}), watches=False)


@pytest.mark.parametrize("told", [None, Told(None, 3, 3)], ids=["alone", "with others"])
async def test_an_exchange_of_plain_rows_waits_once(
    table: Table, postgres: PostgresAddress, waits: Waits, told: Told | None
) -> None:
    """For what it knows of the claims that end, and for new ones with their values."""
    table.enqueue(*range(50))
    want = ClaimRequest((ServerWant(SERVER, 3, trial=KNOWN, told=told),), (1,))
    async with open_store(postgres) as store, store.seat(6, 60, max_crashes=3) as seat:
        assert await steady(seat, waits, want) == [1, 1]


async def test_an_exchange_whose_claims_depend_on_what_it_writes_waits_three_times(
    table: Table, postgres: PostgresAddress, waits: Waits
) -> None:
    """For what it knows of the claims that end, for what there is to claim then, and for that."""
    table.enqueue(*range(50))
    want = ClaimRequest((ServerWant(SERVER, 3, trial=KNOWN),), (1,), until=40)
    async with open_store(postgres) as store, store.seat(6, 60, max_crashes=3) as seat:
        assert await steady(seat, waits, want) == [5, 5]


async def test_a_limit_costs_an_exchange_nothing_while_calls_are_in_hand(
    table: Table, postgres: PostgresAddress, waits: Waits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one wait when they are taken."""
    monkeypatch.setattr(ahead, "LONGEST_MS", 60_000)
    table.enqueue(*range(50))
    limits = Limits(rpm=10**9)
    want = ClaimRequest((ServerWant(SERVER, 3, limits, trial=KNOWN),), (1,))
    async with open_store(postgres) as store, store.seat(6, 60, max_crashes=3) as seat:
        assert await steady(seat, waits, want) == [1, 1]


async def test_an_exchange_that_only_writes_waits_once(
    table: Table, postgres: PostgresAddress, waits: Waits
) -> None:
    table.enqueue(*range(9))
    want = ClaimRequest((ServerWant(SERVER, 3, trial=KNOWN),), (1,))
    async with open_store(postgres) as store, store.seat(6, 60, max_crashes=3) as seat:
        await steady(seat, waits, want)
        items = (await seat.exchange([], want)).items
        before = waits.n
        await seat.exchange(list(map(done, items)), ClaimRequest())
        assert waits.n - before == 1
