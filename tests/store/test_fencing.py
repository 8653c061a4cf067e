"""A worker that died or was taken for dead: its items go on, its answers stay, and it changes
nothing any more."""

import asyncio
import signal
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from batchgen.clock import now_ms
from batchgen.errors import StoreError
from batchgen.items import (
    Attempt,
    Done,
    Fail,
    KeepAnswer,
    Outcome,
    Reason,
    Release,
    Retry,
)
from batchgen.store import OtherRecipe, open_store
from batchgen.store.sqlite.gate import OwnerLock, machine
from batchgen.store.sqlite.transaction import SqliteTransaction
from batchgen.store.transactions import living, look, queue
from tests.kits.table import (
    LEASE_MS,
    MAX_CRASHES,
    RECIPE,
    START,
    Table,
    answered,
    broken,
    claims,
    new_database,
    new_item,
)


def test_a_heartbeat_extends_the_lease_of_a_worker_that_is_known(table: Table) -> None:
    worker = table.join()
    assert table.run(queue.heartbeat, worker, START + 2 * LEASE_MS) is True
    assert table.query("select lease_until from workers") == [(START + 2 * LEASE_MS,)]
    table.take_over(worker)
    assert table.run(queue.heartbeat, worker, START + 3 * LEASE_MS) is False
    assert table.query("select * from workers") == []


def test_a_worker_number_is_never_used_again(table: Table) -> None:
    first = table.join()
    table.leave(first)
    assert table.join() == first + 1


def test_taken_over_items_were_sent_with_unknown_answer_and_cost_no_attempt(table: Table) -> None:
    table.enqueue("a", "b", "c")
    dead = table.join()
    first, second = table.claim(dead, 2)
    table.now += LEASE_MS
    assert table.take_over(dead) == 2
    assert table.attempts(1) == [(dead, 1, "unknown", None)]
    assert table.attempts(3) == []
    assert table.query("select calls, unknown_calls from totals") == [(2, 2)]
    assert table.work(1) == {
        "state": "pending", "available_at": None, "epoch": 2, "worker_id": None, "tries": 0,
        "second_call": 0,
        "crashes": 1, "parse_failures": 0, "answer_seq": None, "result_seq": None,
    }  # fmt: skip
    assert table.claim(table.join(), 2) == [replace(first, epoch=3), replace(second, epoch=3)]


def test_a_try_can_be_charged_later_whoever_has_the_item(table: Table) -> None:
    table.enqueue("a", "b")
    worker = table.join()
    first, second = table.claim(worker, 2)
    for item in (first, second):
        table.finish(worker, item, Retry(None, charged=False), broken())
    (again,) = table.claim(worker, 1)
    table.run(queue.charge, [first, second])
    assert again.id == first.id
    assert [table.work(n)["tries"] for n in (1, 2)] == [1, 1]
    assert [table.work(n)["state"] for n in (1, 2)] == ["running", "pending"]


@pytest.mark.quick("claimed by another-Retry", "claimed by another-Done", "sqlite")
@pytest.mark.parametrize(
    "decision",
    [
        Done("[1]"),
        Fail(Reason.REFUSAL, "no"),
        Retry(START + 1, charged=True),
        Release(),
        KeepAnswer(),
    ],
    ids=lambda decision: type(decision).__name__,
)
@pytest.mark.parametrize("meanwhile", ["waits", "claimed by another", "done by another"])
def test_a_late_outcome_changes_nothing_but_its_answer_is_kept(
    table: Table, decision: Done | Fail | Retry | Release | KeepAnswer, meanwhile: str
) -> None:
    table.enqueue("a")
    late = table.join()
    (item,) = table.claim(late, 1)
    table.take_over(late)
    other = table.join()
    if meanwhile != "waits":
        (theirs,) = table.claim(other, 1)
    if meanwhile == "done by another":
        table.finish(other, theirs, Done(), answered("theirs"))
    before = table.work(1), table.query("select * from results")
    outcome = Outcome(item, (answered("too late"),), decision)
    done = table.exchange(late, [outcome], want=1)
    assert (table.work(1), table.query("select * from results")) == before
    assert (done.lost, done.items, done.expelled) == ([outcome], [], True)
    assert table.attempts(1)[-1] == (late, 1, "answered", "too late")
    unknown = [attempt for attempt in table.attempts(1) if attempt[2] == "unknown"]
    assert (unknown, table.one("select sum(unknown_calls) from totals")) == ([], 0)
    assert table.one("select sum(calls) from totals") == table.one("select count(*) from attempts")
    assert done.attempt_seqs == [table.one("select max(seq) from attempts")]


def test_a_worker_that_dies_with_two_calls_for_an_item_leaves_two_unknown_ones(
    table: Table,
) -> None:
    table.enqueue("a", "b")
    dead = table.join()
    one, _ = table.claim(dead, 2)
    assert table.begin_second_calls(one) == {1}
    (row,) = living.workers(table.transaction)
    assert (row.calls, row.paused is False) == (3, True)
    assert [call.item_id for call in look.calls_of_worker(table.transaction, dead, 9)] == [1, 1, 2]
    table.take_over(dead)
    assert [len(table.attempts(number)) for number in (1, 2)] == [2, 1]
    assert table.query("select calls, unknown_calls from totals") == [(3, 3)]
    assert [table.work(number)["second_call"] for number in (1, 2)] == [0, 0]


@pytest.mark.parametrize("decision", [Done("[1]"), KeepAnswer(), Retry(None, charged=True)])
def test_of_two_calls_the_first_counts_and_the_other_is_kept(
    table: Table, decision: Done | KeepAnswer | Retry
) -> None:
    table.enqueue("a")
    worker = table.join()
    (item,) = table.claim(worker, 1)
    table.begin_second_calls(item)
    left = Attempt(finished_at=START)
    done = table.finish(worker, item, decision, answered("counts"), left)
    assert [attempt[2:] for attempt in table.attempts(1)] == [
        ("answered", "counts"),
        ("unknown", None),
    ]
    assert done.attempt_seqs == [1]
    work = table.work(1)
    assert (work["second_call"], work["answer_seq"] or 1) == (0, 1)
    assert table.query("select calls, unknown_calls from totals") == [(2, 1)]
    assert table.problems() == []


def test_two_calls_that_come_back_too_late_take_the_places_of_two_unknown_ones(
    table: Table,
) -> None:
    table.enqueue("a")
    late = table.join()
    (item,) = table.claim(late, 1)
    table.begin_second_calls(item)
    table.take_over(late)
    done = table.finish(late, item, Done(), answered("one"), broken())
    assert [attempt[2:] for attempt in table.attempts(1)] == [
        ("answered", "one"),
        ("failed", None),
    ]
    assert len(done.lost) == 1
    assert table.query("select calls, unknown_calls from totals") == [(2, 0)]


def test_no_second_call_is_begun_for_what_is_no_longer_held(table: Table) -> None:
    table.enqueue("a", "b", "c")
    late = table.join()
    one, two, three = table.claim(late, 3)
    table.finish(late, one, Retry(None, charged=False), broken())
    table.finish(late, two, Done(), answered())
    assert table.begin_second_calls(one, two, three) == {3}
    table.take_over(late)
    other = table.join()
    table.claim(other, 3)
    assert table.begin_second_calls(one, two, three) == set()
    assert table.query("select second_call from work where second_call <> 0") == []


def test_a_worker_taken_for_dead_is_told_so_whatever_it_wants(table: Table) -> None:
    worker = table.join()
    assert table.exchange(worker, want=0).expelled is False
    table.take_over(worker)
    assert table.exchange(worker, want=0).expelled is True
    assert table.exchange(worker, want=1).expelled is True


def test_after_it_joined_again_it_still_cannot_finish_an_old_claim(table: Table) -> None:
    table.enqueue("a")
    worker = table.join()
    (item,) = table.claim(worker, 1)
    table.take_over(worker)
    again = table.join()
    assert table.claim(again, 1) == [replace(item, epoch=3)]
    assert len(table.finish(again, item, Done(), answered("old")).lost) == 1
    assert table.states() == {1: "running"}


def test_an_item_that_saw_too_many_workers_die_fails(table: Table) -> None:
    table.enqueue("a", "b")
    for crash in range(1, MAX_CRASHES + 1):
        worker = table.join()
        assert [item.id for item in table.claim(worker, 1)] == [1]
        table.take_over(worker)
        assert len(table.attempts(1)) == crash
    assert table.states() == {1: "failed", 2: "pending"}
    assert table.query("select state, reason, error from results") == [
        ("failed", "crash", f"was in flight each of the {MAX_CRASHES} times its worker died")
    ]
    assert table.counters() == {(1, "failed", "crash"): 1, (1, "pending", ""): 1}


def test_while_a_parser_is_at_work_only_the_items_it_has_are_suspected(table: Table) -> None:
    table.enqueue(1, 2)
    worker = table.join()
    parsed, _ = table.claim(worker, 2)
    table.finish(worker, parsed, KeepAnswer(), answered())
    table.take_over(worker)
    assert [table.work(number)["crashes"] for number in (1, 2)] == [1, 0]


def test_what_was_parsed_when_its_worker_died_is_parsed_alone(table: Table) -> None:
    table.enqueue(*"abcd")
    worker = table.join()
    for item in table.claim(worker, 2):
        table.finish(worker, item, KeepAnswer(), answered())
    table.take_over(worker)
    busy, free = table.join(), table.join()
    (third,) = table.claim(busy, 1)  # it has nothing in flight, so it gets the first of them
    assert (third.id, table.claim(busy, 5)) == (1, [])
    (second,) = table.claim(free, 5)
    assert second.id == 2
    finished = table.exchange(free, [Outcome(second, (), Done("1"))], want=5)
    assert [item.id for item in finished.items] == [3, 4]
    table.take_over(busy)
    assert table.work(1)["crashes"] == 2
    assert table.claim(free, 5) == []  # others are in flight here
    assert [item.id for item in table.claim(table.join(), 5)] == [1]


def test_crashes_and_charged_attempts_are_counted_apart(table: Table) -> None:
    table.enqueue("a")
    for _ in range(2):
        worker = table.join()
        (item,) = table.claim(worker, 1)
        table.finish(worker, item, Retry(None, charged=True), broken())
        table.claim(worker, 1)
        table.take_over(worker)
    assert (table.work(1)["tries"], table.work(1)["crashes"]) == (2, 2)


def test_a_stored_answer_survives_takeover_and_is_offered_for_parsing(table: Table) -> None:
    table.enqueue("a")
    dead = table.join()
    (item,) = table.claim(dead, 1)
    table.finish(dead, item, KeepAnswer(), answered("paid for"))
    table.take_over(dead)
    assert table.attempts(1) == [(dead, 1, "answered", "paid for")]
    worker = table.join()
    (again,) = table.claim(worker, 1)
    assert again == replace(item, epoch=3, answer_seq=1, answer_text="paid for")
    table.finish(worker, again, Done("[1]"))
    assert table.query("select attempt_seq, parsed from results") == [(1, "[1]")]


def test_what_a_parser_says_too_late_leaves_the_answer_as_it_is(table: Table) -> None:
    table.enqueue("a")
    late = table.join()
    (item,) = table.claim(late, 1)
    table.finish(late, item, KeepAnswer(), answered("paid for"))
    table.take_over(late)
    worker = table.join()
    (theirs,) = table.claim(worker, 1)
    table.finish(worker, theirs, Done("[1]"))
    parsed = replace(item, answer_seq=1, answer_text="paid for")
    retry = Retry(None, charged=True, parse_failed=True, error="took longer than 4 s")
    assert len(table.finish(late, parsed, retry).lost) == 1
    assert table.query("select outcome, error from attempts") == [("answered", None)]


def test_the_answer_of_an_item_is_the_one_that_its_result_names(table: Table) -> None:
    table.enqueue("a")
    late = table.join()
    (item,) = table.claim(late, 1)
    table.take_over(late)
    worker = table.join()
    (theirs,) = table.claim(worker, 1)
    table.finish(worker, theirs, Done(), answered("theirs"))
    table.finish(late, item, Done(), answered("too late"))
    shown = look.item(table.transaction, 1)
    assert shown is not None
    assert (shown.state, shown.parsed, shown.response) == ("done", None, "theirs")


def test_an_answer_whose_parser_kills_every_worker_stays_with_the_failure(table: Table) -> None:
    table.enqueue("a")
    worker = table.join()
    (item,) = table.claim(worker, 1)
    table.finish(worker, item, KeepAnswer(), answered("poison"))
    for _ in range(MAX_CRASHES):
        table.take_over(worker)
        worker = table.join()
        table.claim(worker, 1)
    assert table.query("select state, reason, attempt_seq from results") == [("failed", "crash", 1)]
    assert len(table.attempts(1)) == 1


def test_a_clean_leave_gives_claims_back_without_a_trace(table: Table) -> None:
    table.enqueue("a", "b")
    worker = table.join()
    items = table.claim(worker, 2)
    table.finish(worker, items[1], KeepAnswer(), answered("paid for"))
    assert table.leave(worker) == 2
    assert table.attempts(1) == []
    assert (table.work(1)["crashes"], table.work(1)["tries"]) == (0, 0)
    assert table.query("select * from workers") == []
    assert table.claim(table.join(), 2) == [
        replace(items[0], epoch=3),
        replace(items[1], epoch=3, answer_seq=1, answer_text="paid for"),
    ]


def test_leaving_touches_nobody_elses_claims(table: Table) -> None:
    table.enqueue("a", "b")
    one, other = table.join(), table.join()
    table.claim(one, 1)
    table.claim(other, 1)
    assert table.leave(one) == 1
    assert table.states() == {1: "pending", 2: "running"}


# Through the door: locks, leases and real processes

CLAIM_AND_DIE = """
import asyncio, os, signal, sys
from pathlib import Path
from typing import Any
from batchgen.store import ClaimRequest, ServerWant, open_store

async def main():
    async with open_store(Path(sys.argv[1])) as store:
        async with store.seat(2, float(sys.argv[2]), 3) as worker:
            await worker.exchange([], ClaimRequest((ServerWant("", 2),)))
            os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def enqueue(path: Path, *contents: str) -> None:
    async with (
        open_store(path, create=True) as store,
        store.enqueueing("e", RECIPE, OtherRecipe.STOP) as into,
    ):
        await store.add_items(into, [new_item(each) for each in contents])


def query(path: Path, sql: str) -> list[Any]:
    with closing(new_database(path)) as db:
        return db.execute(sql).fetchall()


async def test_items_of_a_killed_process_are_taken_over_by_the_next_join(tmp_path: Path) -> None:
    path = tmp_path / "batchgen.db"
    await enqueue(path, "a", "b", "c")
    # A lease of a day: only the lock can tell that it died.
    killed = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CLAIM_AND_DIE, path, "86400"
    )
    assert await killed.wait() == -signal.SIGKILL
    async with open_store(path) as store, store.seat(3, 60, 3) as worker:
        taken = await worker.exchange([], claims(3))
        assert sorted((each.id, each.epoch) for each in taken.items) == [(1, 3), (2, 3), (3, 1)]
        counts = await store.counts()
        assert (counts.calls, counts.unknown_calls) == (2, 2)
    assert query(path, "select crashes from work") == [(1,), (1,), (0,)]
    assert [file.name for file in tmp_path.glob("*worker*")] == []


async def test_a_worker_of_another_machine_lives_until_its_lease_ends(tmp_path: Path) -> None:
    path = tmp_path / "batchgen.db"
    await enqueue(path, "a", "b")
    far = ("elsewhere", "another boot")
    async with open_store(path) as store:
        with closing(new_database(path)) as db:
            now = int(db.execute("select strftime('%s') * 1000").fetchone()[0])
            on = SqliteTransaction(db)
            alive = queue.join(on, far, 1, 1, now, 3_600_000)
            queue.exchange(on, alive, [], claims(1), now)
            lapsed = queue.join(on, far, 1, 1, now - 10_000, 5_000)
            queue.exchange(on, lapsed, [], claims(1), now)
        assert [(row.id, row.alive) for row in await store.workers()] == [
            (alive, True), (lapsed, False),
        ]  # fmt: skip
        async with store.seat(1, 0, 3) as worker:  # which need not wait until leases tell
            assert [item.id for item in (await worker.exchange([], claims(5))).items] == [2]
            assert [row.id for row in await store.workers()] == [alive, worker.id]


async def test_a_worker_whose_lease_lapsed_is_taken_over_though_it_holds_its_lock(
    tmp_path: Path,
) -> None:
    path = tmp_path / "batchgen.db"
    await enqueue(path, "a")
    async with open_store(path) as store, store.seat(1, -1, 3) as slow:
        (item,) = (await slow.exchange([], claims(1))).items
        async with store.seat(1, 0, 3):  # which need not wait until leases tell
            pass
        async with store.seat(1, 60, 3) as other:
            late = await slow.exchange([Outcome(item, (answered("late"),), Done())], claims(1))
            assert (late.expelled, late.items, len(late.lost)) == (True, [], 1)
            assert await slow.heartbeat() is False
            (again,) = (await other.exchange([], claims(1))).items
            assert (again.id, again.epoch, again.answer_seq) == (1, 3, None)
            await other.exchange([Outcome(again, (answered("in time"),), Done())], claims(0))
        (row,) = await store.results_of([1])
        assert row.response == '"in time"'  # as JSON
    assert query(path, "select outcome, response from attempts order by seq") == [
        ("answered", "late"),
        ("answered", "in time"),
    ]


async def test_joining_again_leaves_no_lock_behind(tmp_path: Path) -> None:
    path = tmp_path / "batchgen.db"
    async with open_store(path, create=True) as store:
        async with store.seat(1, 60, 3) as worker:
            await worker.join()
            held = [file.name for file in tmp_path.glob("*-worker-*")]
            assert held == [f"batchgen.db-worker-{worker.id}"]
        assert list(tmp_path.glob("*-worker-*")) == []


async def test_a_worker_that_lives_is_not_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "batchgen.db"
    await enqueue(path, "a")
    async with open_store(path) as one, open_store(path) as two, one.seat(1, 60, 3) as worker:
        await worker.exchange([], claims(1))
        async with two.seat(1, 60, 3) as other:
            assert (await other.exchange([], claims(1))).items == []
            assert await worker.heartbeat() is True
        (row,) = await two.workers()
        assert (row.id, row.boot_id, row.alive) == (worker.id, machine()[1], True)
        assert OwnerLock(path.with_name(f"batchgen.db-worker-{worker.id}")).acquire() is False


async def test_a_worker_from_before_the_machine_was_started_anew_is_dead(tmp_path: Path) -> None:
    host, _ = machine()
    async with open_store(tmp_path / "batchgen.db", create=True) as store:
        for name in (host, "another-host"):
            await store._db.write(
                queue.join, (name, "an earlier boot"), 4242, 4, now_ms(), LEASE_MS
            )
        assert [worker.alive for worker in await store.workers()] == [False, True]
        async with store.seat(1, 60, MAX_CRASHES):
            assert [w.host for w in await store.workers() if w.boot_id == "an earlier boot"] == [
                "another-host"
            ]


async def test_what_failed_first_is_told_when_a_worker_cannot_leave_either(tmp_path: Path) -> None:
    path = tmp_path / "batchgen.db"

    async def fail() -> None:
        async with open_store(path, create=True) as store, store.seat(1, 60, 3):
            path.unlink()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()


async def test_who_could_not_join_does_not_leave(tmp_path: Path) -> None:
    path = tmp_path / "batchgen.db"
    async with open_store(path, create=True) as store:
        path.unlink()
        with pytest.raises(StoreError) as caught:
            async with store.seat(1, 60, 3):
                raise AssertionError("it joined")
        assert caught.value.__context__ is None
