"""`work --batch` at gateways that tell of batches as OpenAI does not: LiteLLM, and ogx."""

import asyncio
from base64 import b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.batches.conftest import Provide
from tests.kits.database import change
from tests.kits.gateway import Gateway, Tell, Told
from tests.kits.provided import Provided

Behind = Callable[..., Awaitable[Provided]]


@pytest.fixture
async def behind(provide: Provide) -> AsyncIterator[Behind]:
    """Make a project on a gateway before a provider."""
    async with AsyncExitStack() as stack:

        async def make(gateway: Gateway, faults: str = "", **provided: Any) -> Provided:
            made = await provide(faults, **provided)
            before = gateway.before(made.provider.base_url)
            made.base_url = await stack.enter_async_context(before)
            made.in_batches()
            return made

        yield make


def failing(_: Told) -> Told:
    return Told(500, b"Internal Server Error")


# LiteLLM has an id of its own for each batch and file, and knows both.


def own(one: str) -> str:
    before, _, rest = one.partition("_")
    return f"{before}_{urlsafe_b64encode(rest.encode()).decode().rstrip('=')}own"


def theirs(one: str) -> str:
    before, _, rest = one.partition("_")
    if not rest.endswith("own"):
        return one
    return f"{before}_{b64decode(rest.removesuffix('own') + '===', b'-_').decode()}"


def by_own_ids(told: Told) -> Told:
    batch = {name: own(of) if name == "id" else of for name, of in told.body.items()}
    return Told(told.status, batch)


async def test_a_batch_that_goes_by_two_names_is_not_taken_for_two(behind: Behind) -> None:
    names = {"POST /batches": by_own_ids, "GET /batches/ID": by_own_ids}
    project = await behind(Gateway(names, theirs), seconds=1.0)
    said = await project.run()
    assert said.code == 0, said.err
    assert project.query("select status from provider_batches") == [("completed",)]
    assert "billed twice" not in said.err
    await project.assert_sound()


async def test_batches_are_collected_where_the_list_alone_is_broken(behind: Behind) -> None:
    project = await behind(Gateway({"GET /batches": failing}), seconds=0.5)
    said = await project.run()
    assert said.code == 0, said.err
    assert project.provider.bill.answers == 20
    await project.assert_sound()


async def test_a_provider_that_never_says_whether_it_has_made_one_is_not_asked_for_ever(
    behind: Behind,
) -> None:
    gateway = Gateway({"POST /batches": failing})
    project = await behind(gateway)
    project.in_batches(completion_window="a week")
    said = await project.run()
    assert said.code == 4, said.err
    assert "500 Internal Server Error" in said.err
    assert gateway.asked.count("POST /batches") == 3
    assert project.query("select state from provider_batches") == [("creating",)]
    project.in_batches()
    gateway.tells.clear()
    again = await project.work()
    assert again.code == 0, again.err
    await project.assert_sound()


# ogx names each line where all have the same fault, and keeps nothing of a batch that is cancelled.


def without_the_model(told: Told) -> Told:
    for batch in told.body.get("data", [told.body]):
        for problem in (batch["errors"] or {"data": []})["data"]:
            problem |= {"code": "model_not_found", "message": "Model 'x' does not exist"}
    return told


async def test_a_model_that_is_not_there_fails_no_row(behind: Behind) -> None:
    looks = {"GET /batches": without_the_model, "GET /batches/ID": without_the_model}
    project = await behind(Gateway(looks), "validation=w0")
    said = await project.run()
    assert said.code == 4, said.err
    assert "Model 'x' does not exist" in said.err
    assert project.query("select state, count(*) from work group by 1") == [("pending", 20)]
    await project.assert_sound()


def without_files(told: Told) -> Told:
    body = told.body
    batches = body.get("data", [body])
    for batch in batches:
        batch["output_file_id"] = batch["error_file_id"] = None
    return Told(told.status, body)


async def test_what_a_cancelled_batch_has_answered_and_keeps_is_counted(behind: Behind) -> None:
    gateway = Gateway({"GET /batches": without_files, "GET /batches/ID": without_files})
    project = await behind(gateway, "slow=1")
    await project.batchgen("enqueue", "pool.jsonl")
    await one_round_after_another(project, ("open", 10))
    assert (await project.batchgen("batches", "--cancel", "1")).code == 0
    assert "names no file that has these answers" in await one_round_after_another(
        project, ("ended", 10)
    )
    assert project.query("select state, count(*) from work group by 1") == [("running", 20)]
    change(project.database, "update provider_batches set ended_at = ended_at - 601000")
    assert "no line for 10 of the rows" in await one_round_after_another(project, ("closed", 10))
    assert project.query("select count(*) from attempts where outcome = 'unknown'") == [(10,)]
    assert project.query("select sum(tries) from work") == [(0,)]
    assert (await project.batchgen("verify")).code == 0


def for_ever(status: str) -> Tell:
    """As ogx says it for ever of a batch with which it did not go on when it was started again."""

    def tell(told: Told) -> Told:
        for batch in told.body.get("data", [told.body]):
            then = batch["created_at"] - 31 * 3600
            batch |= {"status": status, "created_at": then, "expires_at": None}
        return without_files(told)

    return tell


@pytest.mark.parametrize(
    ("status", "advice"), [("in_progress", ": cancel it"), ("cancelling", "so abandon it")]
)
async def test_a_batch_that_never_ends_is_told_after_its_time(
    behind: Behind, status: str, advice: str
) -> None:
    looks = {"GET /batches": for_ever(status), "GET /batches/ID": for_ever(status)}
    project = await behind(Gateway(looks))
    said = await project.run()
    assert said.code == 4, said.err
    assert f"the provider still says {status}" in said.err
    assert advice in said.err
    assert project.query("select state, count(*) from work group by 1") == [("running", 20)]


async def test_that_a_provider_is_back_is_told(behind: Behind) -> None:
    gateway = Gateway({})
    project = await behind(gateway)
    times = iter([True, True, False])

    def away(told: Told) -> Told:
        return failing(told) if next(times, False) else told

    gateway.tells = {"GET /batches": away, "GET /batches/ID": away}
    said = await project.run()
    assert said.code == 0, said.err
    assert "can be asked about its batches again" in said.err
    await project.assert_sound()


async def one_round_after_another(project: Provided, until: tuple[str, int]) -> str:
    """Until the first batch is so; what was said on the way."""
    said = ""
    first = "select state, answered from provider_batches where id = 1"
    async with asyncio.timeout(60):
        while project.query(first) != [until]:
            ended = await project.work("--no-wait")
            assert ended.code == 0
            said += ended.err
    return said
