"""A job in provider batches: a provider with the faults that a test wants, and a project on it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from batchgen.database_address import PostgresAddress
from batchgen.simulate import Simulator
from tests.kits.project import Project
from tests.kits.typist import Ended, Typist

QUICK = {"poll_s": 0.1, "probe": False}


class Provided(Project):
    """A project on a provider of batches."""

    provider: Simulator

    def in_batches(self, text: str = "", **batch: Any) -> None:
        """Its config, with these settings of the section `batch`."""
        settings = ", ".join(f"{name}: {value!s}" for name, value in {**QUICK, **batch}.items())
        settings = settings.replace("False", "false").replace("True", "true")
        self.config(f"batch: {{{settings}}}\n{text or 'parser: raw'}\n")

    async def work(self, *arguments: str) -> Ended:
        return await Typist(self.path, self.env)("work", "--batch", *arguments)

    async def run(self, *arguments: str) -> Ended:
        return await Typist(self.path, self.env)("run", "pool.jsonl", "--batch", *arguments)

    async def assert_sound(self) -> None:
        """The database says one consistent thing, and nothing was answered twice."""
        said = await Typist(self.path, self.env)("verify")
        assert said.code == 0, said.err
        assert self.provider.bill.twice == 0


Provide = Callable[..., Awaitable[Provided]]


@pytest.fixture
async def provide(tmp_path: Path, server: PostgresAddress | None) -> AsyncIterator[Provide]:
    """Make a project on a provider of batches that has these faults."""
    async with AsyncExitStack() as stack:

        async def make(
            faults: str = "", *, items: int = 20, seconds: float = 0.0, **simulated: Any
        ) -> Provided:
            provider = Simulator(batch_seconds=seconds, batch_faults=faults, **simulated)
            base_url = await stack.enter_async_context(provider.running())
            made = Provided(tmp_path, base_url, server=server)
            made.provider = provider
            made.in_batches()
            made.write("prompts/user_prompts/default.txt", "Say {word}\n")
            made.pool({"word": f"w{number:03}"} for number in range(items))
            return made

        yield make
