"""`work --batch` at gateways that tell of batches as OpenAI does not: LiteLLM, and ogx."""

from base64 import b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.batches.conftest import Provide
from tests.kits.gateway import Gateway, Told
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
