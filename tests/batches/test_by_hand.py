"""What a person says of provider batches, and what the next sender makes of it."""

import asyncio

import pytest

from tests.batches.conftest import Provide
from tests.kits.provided import Provided
from tests.kits.sealing import Sealer

HALTED = 4


async def batches(project: Provided, *options: str) -> str:
    said = await project.batchgen("batches", *options)
    assert said.code == 0, said.err
    return said.out


async def halted(project: Provided) -> None:
    said = await project.work()
    assert said.code == HALTED
    assert "Look there for a batch of that file. If the provider has it: batchgen batches" in (
        said.err
    )


async def enqueued(project: Provided) -> None:
    assert (await project.batchgen("enqueue", "pool.jsonl")).code == 0


@pytest.mark.on_both_engines
async def test_one_that_was_made_is_adopted(provide: Provide) -> None:
    project = await provide("lost_create=1,no_list")
    await enqueued(project)
    await halted(project)
    project.provider.fail_batches("")
    [seen] = await Sealer(project).listed()
    project.provider.fail_batches("no_list")
    assert f"batch 1 is {seen.batch_id} (" in await batches(project, "--adopt", "1", seen.batch_id)
    assert (await project.work()).code == 0
    assert project.provider.bill.answers == 20
    await project.assert_sound()


@pytest.mark.on_both_engines
async def test_one_that_was_not_made_is_made_once(provide: Provide) -> None:
    """Also where nothing is heard of that, either: nobody asks a third time on a guess."""
    project = await provide("dropped_create=1,lost_create=1,no_list")
    await enqueued(project)
    await halted(project)
    assert project.provider.bill.answers == 0
    await batches(project, "--create", "1")
    await halted(project)
    await halted(project)
    project.provider.fail_batches("")
    [seen] = await Sealer(project).listed()
    await batches(project, "--adopt", "1", seen.batch_id)
    assert (await project.work()).code == 0
    assert project.provider.bill.answers == 20
    await project.assert_sound()


async def test_what_a_cancelled_one_has_answered_is_kept(provide: Provide) -> None:
    project = await provide("slow=1", seconds=0.2)
    await enqueued(project)
    assert (await project.work("--no-wait")).code == 0
    sealer = Sealer(project)
    [seen] = await sealer.listed()
    while seen.answered < 10:
        await asyncio.sleep(0)
        [seen] = await sealer.listed()
    assert "10 of 20 answered so far" in await batches(project, "--cancel-all")
    assert (await project.work()).code == 0
    assert project.provider.bill.answers == 20
    listed = (await project.batchgen("batches", "--json")).json
    assert [(one["requests"], one["status"]) for one in listed] == [
        (10, "completed"), (20, "cancelled"),
    ]  # fmt: skip
    await project.assert_sound()


@pytest.mark.on_both_engines
async def test_rows_of_one_that_is_given_up_are_asked_again(provide: Provide) -> None:
    project = await provide("slow=1", seconds=0.2)
    await enqueued(project)
    assert (await project.work("--no-wait")).code == 0
    await batches(project, "--abandon", "1", "--yes")
    assert (await project.batchgen("work")).code == 0
    status = (await project.batchgen("status", "--json")).json
    assert (status["total"]["done"], status["total"]["unknown_calls"]) == (20, 20)
    assert status["batches"] is None
    assert (await project.batchgen("verify")).code == 0


async def test_quiet_is_quiet(provide: Provide) -> None:
    project = await provide()
    await enqueued(project)
    said = await project.work("-q")
    assert (said.code, said.out, said.err) == (0, "", "")
    assert "closed: completed" in await batches(project)
