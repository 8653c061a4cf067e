"""The file of a run: written as results come, each once, and in the end in the pool's order."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from batchgen import DataGenerationPipeline
from batchgen.errors import BatchgenError
from batchgen.simulate import Behaviour, Simulator
from tests.kits.project import Project, ended

Words = Callable[[int], Iterator[dict[str, Any]]]

SCRIPT = """
from batchgen import DataGenerationPipeline

DataGenerationPipeline().run_sync([{"word": f"w{n}"} for n in range(12)], 4)
"""


def lines(project: Project) -> list[str]:
    file = project.path / "output/default.jsonl"
    return file.read_text().splitlines() if file.exists() else []


async def test_results_are_in_the_file_as_they_come_and_once_after_a_kill(
    project: Project, simulator: Simulator
) -> None:
    simulator.script("Say", *["ok"] * 5, *[Behaviour.ok(delay_s=3600)] * 4)
    script = await project.start(str(project.write("script.py", SCRIPT)))
    async with asyncio.timeout(30):
        while len(lines(project)) < 5:
            await asyncio.sleep(0.02)
    script.send_signal(signal.SIGKILL)
    await ended(script)
    again = await project.start("script.py")
    assert (await ended(again)).code == 0
    assert [line["input"]["word"] for line in project.export()] == [f"w{n}" for n in range(12)]
    assert (await project.batchgen("verify")).code == 0


async def test_a_file_that_cannot_be_written_is_said_before_anything_is_paid(
    here: Project, simulator: Simulator, words: Words
) -> None:
    here.write("output", "a file where the folder should be")
    with pytest.raises(BatchgenError, match="cannot be written"):
        await DataGenerationPipeline().run(words(3))
    assert simulator.calls == 0
