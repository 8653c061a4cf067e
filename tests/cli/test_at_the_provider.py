"""What commands say of rows that are in a provider batch, and what they do about them."""

import json
import os
import re

import pytest

from batchgen.database_address import DatabaseAddress, PostgresAddress
from batchgen.items import Done, Outcome
from batchgen.store import BatchState, ProviderBatch, WorkerKind, claim_of, open_store
from batchgen.store.sqlite.gate import OwnerLock
from tests.kits.project import Project
from tests.kits.sending import in_batch, kept_answer, new_batch
from tests.kits.table import claims
from tests.kits.typist import Ended

COLLECT = (
    "Collect them first (batchgen work --batch), or have them cancelled before: batchgen batches "
    "--cancel-all"
)


@pytest.fixture
async def project(project: Project) -> Project:
    """Of five rows two are in batch 2, which is open, one with its answer; of batch 1, which is
    closed, one is done."""
    project.config(max_tokens=50)
    project.pool([{"word": f"w{n}"} for n in range(5)])
    await well(project, "enqueue", "pool.jsonl")
    async with open_store(project.database) as store:
        batches = store.batches
        async with store.seat(4, 60.0, 3, kind=WorkerKind.SENDER) as seat:
            items = (await seat.exchange([], claims(3))).items
            for token, some in (("1" * 32, items[:1]), ("2" * 32, items[1:])):
                sealed = [claim_of(one) for one in some]
                await batches.seal(seat.id, new_batch(token), sealed)
        await batches.collect(1, [Outcome(items[0], (in_batch(),), Done())])
        await batches.close(1)
        await batches.created(2, "b-2", status="in_progress", created_at=None, expires_at=None)
        await batches.collect(2, [kept_answer(items[1])])
    return project


async def well(project: Project, *command: str, code: int = 0) -> Ended:
    ended = await project.batchgen(*command)
    assert ended.code == code, ended.err or ended.out
    return ended


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
async def test_they_do_not_get_another_recipe(project: Project, dry: list[str]) -> None:
    project.write("prompts/user_prompts/default.txt", "Shout {word}")
    refused = await project.batchgen("enqueue", "pool.jsonl", "--recipe", "again", *dry)
    assert (refused.code, refused.err) == (
        2,
        "error: experiment 'default': 2 of its rows are at the provider, in batches, so they "
        f"cannot get another recipe. {COLLECT}\n",
    )


async def test_they_are_not_deleted(project: Project) -> None:
    refused = await project.batchgen("experiments", "delete", "default", "--yes")
    assert (refused.code, refused.err) == (
        2, f"error: 2 of its rows are at the provider, in batches. {COLLECT}\n"
    )  # fmt: skip
    async with open_store(project.database) as store:
        await store.batches.release(2, "was cancelled")
    await well(project, "experiments", "delete", "default", "--yes")
    assert project.query("select count(*) from provider_batches") == [(0,)]


async def test_nobody_is_told_of_as_a_worker(project: Project) -> None:
    said = await well(project, "status")
    assert "worker" not in said.out
    assert (await well(project, "verify")).code == 0
    refused = await project.batchgen("stop")
    assert "no worker" in refused.err or "no worker" in refused.out, refused


async def test_they_are_no_calls_in_flight(project: Project) -> None:
    said = await well(project, "status")
    assert re.search(
        r"^batches: 1 at the provider, 0 of 2 answered, oldest 0:00   \(batchgen batches\)$",
        said.out, re.MULTILINE,
    )  # fmt: skip
    assert "answer unknown" not in said.out
    told = (await well(project, "status", "--json")).json
    about = {name: told["batches"][name] for name in ("unfinished", "open", "requests", "rows")}
    assert about == {"unfinished": 1, "open": 1, "requests": 2, "rows": 2}
    assert (told["total"]["running"], told["total"]["unknown_calls"]) == (2, 0)
    of_another = (await well(project, "status", "--experiment", "default", "--json")).json
    assert of_another["batches"]["rows"] == 2


async def test_each_says_in_which_batch_it_is(project: Project) -> None:
    shown = await well(project, "show", "#3")
    assert shown.out.splitlines()[0] == (
        "item 3 of default: running: in batch 2 (b-2), 0 % answered, since 0:00"
    )
    told = (await well(project, "show", "#3", "--json")).json
    assert (told["state"], told["batch"]["number"]) == ("running", 2)
    assert (told["batch"]["batch_id"], told["batch"]["requests"]) == ("b-2", 2)
    assert "batch" not in (await well(project, "show", "#1", "--json")).json
    refused = await well(project, "retry", "--id", "#3", "--dry-run", code=2)
    assert refused.err == "error: item #3 has not ended yet, so there is nothing to retry.\n"


async def test_a_sender_is_told_as_what_it_is(project: Project) -> None:
    async with (
        open_store(project.database) as store,
        store.seat(1, 60.0, 3, kind=WorkerKind.SENDER) as seat,
    ):
        await seat.exchange([], claims(1))
        said = await well(project, "status")
        told = (await well(project, "status", "--json")).json
        refused = await well(project, "set", "-c", "5", code=1)
        paused = await well(project, "pause")
        while_paused = await well(project, "status")
    line = f"worker {seat.id}: pid {os.getpid()} on .*, sends and collects provider batches, "
    assert re.search(rf"^{line}alive$", said.out, re.MULTILINE)
    assert [(one["kind"], one["in_flight"]) for one in told["workers"]] == [("sender", 0)]
    assert told["total"]["unknown_calls"] == 0
    assert "no worker is running" in refused.err
    assert paused.out.startswith("1 worker paused; batchgen resume goes on")
    assert re.search(rf"^{line}told to pause", while_paused.out, re.MULTILINE)


async def test_a_sender_that_died_has_no_calls_whose_end_nobody_knows(project: Project) -> None:
    async with open_store(project.database) as store:
        seat = store.seat(1, 60.0, 3, kind=WorkerKind.SENDER)
        joined = await seat.__aenter__()
        await joined.exchange([], claims(1))
        joined._release_lock()  # as when its process is killed
    said = await well(project, "status")
    assert "sends and collects provider batches, gone: the next one goes on with its batches\n" in (
        said.out
    )
    assert "answer unknown" not in said.out


async def test_how_long_their_answers_took_nobody_says(project: Project) -> None:
    told = json.loads((await well(project, "status", "--json")).out)
    assert (told["latency_p50_s"], told["latency_p95_s"]) == (None, None)
    shown = await well(project, "show", "#1")
    assert "an answer" in shown.out
    assert "attempt 1: answered, in batch 1, " in shown.out
    assert " 0.00 s" not in shown.out
    await well(project, "report", "-o", "report.html")
    assert "<svg" in (project.path / "report.html").read_text()
    await well(project, "export")
    assert [line["response"] for line in project.export()] == ["an answer"]
    await well(project, "verify")


async def moved(project: Project, old: DatabaseAddress, new: DatabaseAddress) -> None:
    places = [str(one) if not isinstance(one, PostgresAddress) else one.url for one in (old, new)]
    await well(project, "move", *places)
    await well(project, "--db", places[1], "verify")


@pytest.mark.only_sqlite("it moves between a file and a server by itself")
async def test_they_move_with_their_batch(project: Project, postgres: PostgresAddress) -> None:
    back = project.path / "back.db"
    await moved(project, project.file, postgres)
    async with open_store(postgres) as store:
        (batch,) = await store.batches.unfinished()
        await store.batches.note(2, status="finalizing", answered=2, failed=0, expires_at=None)
    assert (batch.batch_id, batch.state, batch.settled) == ("b-2", BatchState.OPEN, 0)
    await moved(project, postgres, back)
    async with open_store(back) as store:
        assert [one.status for one in await store.batches.newest(9)] == ["finalizing", None]
        kept, other = await store.batches.open_claims(2, 0, 9)
        assert (kept.answer_text, other.answer_text) == ("an answer", None)
        outcomes = [Outcome(kept, (), Done()), Outcome(other, (in_batch(),), Done())]
        assert await store.batches.collect(2, outcomes) == 2
        assert await store.batches.close(2)
        async with store.seat(1, 60.0, 3, kind=WorkerKind.SENDER) as seat:
            assert seat.id > batch.worker_id
            sealed = [claim_of(one) for one in (await seat.exchange([], claims(1))).items]
            third = await store.batches.seal(seat.id, new_batch("3" * 32), sealed)
            assert isinstance(third, ProviderBatch)
            assert third.number == 3
        assert await store.verify() == []


@pytest.mark.only_sqlite("on a server a lease says so, as of who enqueues")
async def test_nothing_moves_while_somebody_sends(project: Project) -> None:
    lock = OwnerLock(project.path / "batchgen.db-batches")
    assert lock.acquire()
    refused = await project.batchgen("move", "batchgen.db", "new.db")
    lock.release()
    assert refused.code == 2
    assert "batchgen.db: another batchgen sends provider batches" in refused.err


async def test_what_a_sender_had_that_died_was_never_sent(project: Project) -> None:
    """Beside a call whose answer nobody knows: no more than what that can have cost is told of."""
    async with open_store(project.database) as store:
        await store.batches.abandon(2)
        async with store.seat(4, 60.0, 3, kind=WorkerKind.SENDER) as seat:
            await seat.exchange([], claims(3))
            seat.abandon()
    told = json.loads((await well(project, "status", "--json")).out)
    (worker,) = told["workers"]
    totals = told["total"]
    assert (worker["alive"], totals["unknown_calls"], totals["unknown_max_calls"]) == (False, 1, 1)
