"""A job in provider batches: a provider with the faults that a test wants, and a project on it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from batchgen.database_address import PostgresAddress
from batchgen.simulate import Simulator
from tests.kits.provided import Provided

Provide = Callable[..., Awaitable[Provided]]


@pytest.fixture
async def provide(tmp_path: Path, server: PostgresAddress | None) -> AsyncIterator[Provide]:
    """Make a project on a provider of batches that has these faults."""
    async with AsyncExitStack() as stack:

        async def make(
            faults: str = "", *, items: int = 20, seconds: float = 0.0, **simulated: Any
        ) -> Provided:
            provider = Simulator(batch_seconds=seconds, batch_faults=faults, **simulated)
            await stack.enter_async_context(provider.running())
            made = Provided(tmp_path, provider, server)
            made.words(items)
            return made

        yield make
