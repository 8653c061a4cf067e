"""The committer on a real database: items given out, second calls permitted, answers durable."""

import asyncio
from collections.abc import Iterable
from pathlib import Path

import pytest
from msgspec.structs import replace

from batchgen.clock import clock_ms
from batchgen.errors import StoreRefusedError
from batchgen.items import (
    Attempt,
    Decision,
    Done,
    Item,
    KeepAnswer,
    Outcome,
    Reason,
    Release,
    Usage,
)
from batchgen.store import Grant, Reservation, open_store
from tests.kits.desk import ITEMS, claimed, desk
from tests.kits.pacing import ANSWER

pytestmark = pytest.mark.usefixtures("server")  # on both engines


def in_order(numbers: Iterable[int | None]) -> bool:
    """Of attempts, one an item; some that were given out may be unused."""
    given = [number for number in numbers if number is not None]
    return len(set(given)) == ITEMS and given == sorted(given)


def answered(item: Item, *more: Attempt) -> Outcome:
    return Outcome(item, (Attempt(1, response="Hello", body="{}"), *more), Done())


@pytest.mark.parametrize("second", [Attempt(1), Attempt(1, response="Hi", body="{}")])
async def test_both_calls_are_on_record_before_the_second_goes_out_and_after(
    tmp_path: Path, second: Attempt
) -> None:
    async with desk(tmp_path) as worker:
        item = await claimed(worker.committer)
        assert await worker.committer.second_call_permit(item)
        assert worker.permits.in_flight == 2
        assert worker.query("select second_call from work where item_id = 1") == [(1,)]
        worker.committer.give_back_permit(item.server)
        assert await worker.committer.hand_in(answered(item, second)) == 1
        assert worker.permits.in_flight == 0
    assert worker.query("select outcome from attempts order by seq") == [
        ("answered",), (second.outcome,)
    ]  # fmt: skip
    assert worker.query("select state, second_call from work where item_id = 1") == [("done", 0)]


async def test_an_item_that_is_anothers_by_now_gets_no_second_call(tmp_path: Path) -> None:
    async with desk(tmp_path) as worker:
        item = await claimed(worker.committer)
        earlier = replace(item, epoch=item.epoch - 1)
        assert not await worker.committer.second_call_permit(earlier)
        assert worker.permits.in_flight == 1
        assert worker.query("select sum(second_call) from work") == [(0,)]
        await worker.committer.hand_in(Outcome(item, (), Release()))


async def test_a_second_call_whose_first_has_ended_meanwhile_gives_its_permit_back(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path) as worker:
        item, other = await claimed(worker.committer), await claimed(worker.committer)
        waiting = asyncio.create_task(worker.committer.second_call_permit(item))
        while worker.permits.in_flight < 3:  # taken, and being written
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await worker.committer.hand_in(answered(item))
        await worker.committer.hand_in(answered(other))
        assert worker.permits.in_flight == 0
    assert worker.query("select count(*), count(response) from attempts") == [(2, 2)]
    assert worker.query("select sum(second_call) from work") == [(0,)]


async def test_a_second_call_that_never_went_out_takes_nothing_from_the_limits(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path, rpm=1) as worker:
        item = await claimed(worker.committer)
        waiting = asyncio.create_task(worker.committer.second_call_permit(item))
        while worker.permits.in_flight < 2:  # taken, and being written
            await asyncio.sleep(0)
        durable = worker.committer.hand_in(answered(item))  # its first call has ended meanwhile
        waiting.cancel()
        await durable
        with pytest.raises(asyncio.CancelledError):
            await waiting
    [(requests,)] = worker.query("select requests from shared_rates")
    assert requests == pytest.approx(0, abs=0.5)  # of one for a minute, the first call had it


async def test_a_slot_has_its_next_item_when_its_answer_is_durable(tmp_path: Path) -> None:
    async with desk(tmp_path, max_items=2) as worker:
        first = await claimed(worker.committer)
        durable = worker.committer.hand_in(answered(first))
        second = await claimed(worker.committer)
        assert durable.done()
        assert worker.query("select item_id, state from work where state <> 'pending'") == [
            (first.id, "done"), (second.id, "running")
        ]  # fmt: skip
        await worker.committer.hand_in(answered(second))
        assert await worker.committer.next_item() is None  # as many as it was to claim
        assert worker.demand.draining


async def test_only_replies_that_came_too_late_are_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with desk(tmp_path) as worker:
        item, other = await claimed(worker.committer), await claimed(worker.committer)
        anothers = replace(item, epoch=item.epoch - 1)
        await worker.committer.hand_in(Outcome(anothers, (), Release()))
        await worker.committer.hand_in(Outcome(anothers, (Attempt(1),), Release()))
        assert capsys.readouterr().out == ""
        two = answered(anothers, Attempt(1, reason=Reason.SERVER))
        worker.committer.hand_in(two)
        await worker.committer.hand_in(answered(other))
        assert capsys.readouterr().out.startswith("2 replies came after this worker had been taken")
        await worker.committer.hand_in(Outcome(item, (), Release()))


SURROGATE = "half \ud83d"  # which is no text that SQLite could keep


@pytest.mark.parametrize(
    ("refused", "kept"),
    [
        # The attempt is kept, if it is not what is refused.
        (((Attempt(1, response="Hi", body="{}"),), Done(f'"{SURROGATE}"')), ("answered", "Hi")),
        (((Attempt(1, response=SURROGATE, body="{}"),), Done()), ("unknown", None)),
        (((Attempt(1, latency_ms=1 << 64, response="Hi"),), KeepAnswer()), ("unknown", None)),
    ],
)
async def test_an_outcome_that_the_database_refuses_costs_its_item_only(
    tmp_path: Path, refused: tuple[tuple[Attempt, ...], Decision], kept: tuple[str, str | None]
) -> None:
    async with desk(tmp_path) as worker:
        items = [await claimed(worker.committer) for _ in range(ITEMS)]
        outcomes = [answered(item) for item in items]
        outcomes[1] = Outcome(items[1], *refused)
        durable = [worker.committer.hand_in(outcome) for outcome in outcomes]
        assert in_order(await asyncio.gather(*durable))
        assert not worker.running.done()
    assert worker.query("select state from work order by item_id") == [
        ("done",), ("failed",), ("done",)
    ]  # fmt: skip
    assert worker.query("select outcome, response from attempts where item_id = 2") == [kept]
    [(reason, error)] = worker.query("select reason, error from results where item_id = 2")
    # With its answer kept it can be parsed again without a call.
    assert reason == ("parse" if kept[0] == "answered" else "rejected")
    assert error.startswith("internal error, please report it: ")
    assert worker.bugs[0].startswith("item 2: ")


async def test_the_answers_in_hand_are_written_when_the_committer_has_failed(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path) as worker:
        item, other = await claimed(worker.committer), await claimed(worker.committer)
        worker.committer.charge_late(replace(other, id=1 << 64))  # ends it, as a bug would
        worker.committer.close()
        with pytest.raises((OverflowError, StoreRefusedError)):
            await worker.running
        worker.committer.hand_in(Outcome(other, (Attempt(1, response=SURROGATE),), Done()))
        worker.committer.hand_in(answered(item))
        await worker.committer.write_rest()
        assert worker.query("select item_id, outcome, response from attempts") == [
            (other.id, "unknown", None), (item.id, "answered", "Hello")
        ]  # fmt: skip


async def test_a_set_that_the_schema_refuses_is_written_row_by_row(tmp_path: Path) -> None:
    """One poisoned value must not cost the others."""
    async with desk(tmp_path) as worker:
        items = [await claimed(worker.committer) for _ in range(ITEMS)]
        worker.poison("insert", "attempts", "new.prompt_tokens = 13")
        poisoned = Attempt(1, response="Hi", body="{}", usage=Usage(13, 1))
        outcomes = [answered(item) for item in items]
        outcomes[1] = Outcome(items[1], (poisoned,), Done())
        durable = [worker.committer.hand_in(outcome) for outcome in outcomes]
        assert in_order(await asyncio.gather(*durable))
        worker.cure("insert", "attempts")
    assert worker.query("select state from work order by item_id") == [
        ("done",), ("failed",), ("done",)
    ]  # fmt: skip
    assert worker.query("select outcome from attempts order by seq") == [
        ("answered",), ("unknown",), ("answered",)
    ]  # fmt: skip


async def test_an_outcome_that_is_refused_whole_ends_the_worker_after_the_others_are_written(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path) as worker:
        items = [await claimed(worker.committer) for _ in range(ITEMS)]
        worker.poison("insert", "attempts", "new.item_id = 2")
        durable = [worker.committer.hand_in(answered(item)) for item in items]
        with pytest.raises(StoreRefusedError, match="poisoned"):
            await worker.running
        assert [one.done() for one in durable] == [True, False, True]
        worker.cure("insert", "attempts")
    assert worker.query("select state from work order by item_id") == [
        ("done",), ("running",), ("done",)  # until the next worker takes over from the dead
    ]  # fmt: skip
    if isinstance(worker.database, Path):  # on a server it is its lease that has to end
        async with open_store(worker.database) as store, store.seat(1, 60, 3):
            pass
        assert worker.query("select item_id, outcome from attempts order by seq") == [
            (1, "answered"), (3, "answered"), (2, "unknown")
        ]  # fmt: skip


async def test_a_reservation_that_is_refused_costs_its_item_only(tmp_path: Path) -> None:
    async with desk(tmp_path, max_tokens_total=1000) as worker:
        items = [await claimed(worker.committer) for _ in range(ITEMS)]
        asked = [
            worker.committer.reserve(Reservation(item, tokens, 0.0))
            for item, tokens in zip(items, (10, -4000, 20), strict=True)
        ]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert [answers[0], answers[2]] == [Grant.YES, Grant.YES]
        assert isinstance(answers[1], StoreRefusedError)
        for item in items:
            await worker.committer.hand_in(Outcome(item, (), Release()))


async def test_answers_are_kept_when_the_limits_cannot_be_settled(tmp_path: Path) -> None:
    async with desk(tmp_path, tpm=100_000) as worker:
        items = [await claimed(worker.committer) for _ in range(ITEMS)]
        for event in ("insert", "update"):
            worker.poison(event, "shared_rates")
        durable = [worker.committer.hand_in(answered(item)) for item in items]
        assert in_order(await asyncio.gather(*durable))
        for event in ("insert", "update"):
            worker.cure(event, "shared_rates")
    assert worker.query("select state, count(*) from work group by 1 order by 1") == [
        ("done", ITEMS)
    ]
    assert worker.bugs == []


async def test_calls_that_were_claimed_as_many_as_had_room_count_as_in_use(tmp_path: Path) -> None:
    """Though each is answered before the next one goes out."""
    async with desk(tmp_path, items=4, slots=100) as worker:
        (pacer,) = (server.pacer for server in worker.servers)
        assert pacer.allowed(clock_ms()) == 4
        for item in await asyncio.gather(*(claimed(worker.committer) for _ in range(4))):
            call = pacer.call_sent(clock_ms())
            pacer.call_ended(call)
            pacer.observe(ANSWER, item, call, clock_ms())
            await worker.committer.hand_in(answered(item))
        assert pacer.allowed(clock_ms()) == 16
