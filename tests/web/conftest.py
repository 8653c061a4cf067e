"""What the tests of the page stand on: a real database with answers of the simulated model, served
in this process."""

from collections.abc import AsyncIterator

import pytest

from tests.kits.page import Viewer, viewing
from tests.kits.project import Project


@pytest.fixture
async def answered(project: Project) -> Project:
    """Three items, all done."""
    project.pool({"word": f"w{number}"} for number in range(3))
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    return project


@pytest.fixture
async def viewer(answered: Project) -> AsyncIterator[Viewer]:
    """The page of these. A fault of the page's own fails the test."""
    async with viewing(answered) as made:
        yield made
        assert made.said == []
