"""The main job, as a user runs it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from batchgen.simulate import Simulator
from tests.kits.project import Project

Words = Callable[[int], Iterator[dict[str, Any]]]


@pytest.mark.on_both_engines
@pytest.mark.slow
async def test_500_items_cost_500_calls_and_come_out_in_order(
    project: Project, simulator: Simulator, words: Words
) -> None:
    project.pool(words(500))
    assert (await project.process("enqueue", "pool.jsonl")).code == 0
    worked = await project.process("work", "-c", "20")
    assert (worked.code, simulator.calls) == (0, 500), worked.err
    assert simulator.max_in_flight <= 20
    assert (await project.process("export")).code == 0
    lines = project.export()
    assert [line["input"]["word"] for line in lines] == [f"w{n}" for n in range(500)]
    assert all(f"Say {line['input']['word']}" in line["response"] for line in lines)
    assert (await project.process("verify")).code == 0


@pytest.mark.on_both_engines
@pytest.mark.slow
async def test_enqueueing_again_adds_nothing_and_one_more_line_costs_one_call(
    project: Project, simulator: Simulator, words: Words
) -> None:
    project.pool(words(20))
    await project.process("run", "pool.jsonl")
    again = await project.process("run", "pool.jsonl")
    assert "20 items read, 0 new" in again.err
    assert simulator.calls == 20
    project.pool(words(21))
    grown = await project.process("run", "pool.jsonl")
    assert "21 items read, 1 new" in grown.err
    assert simulator.calls == 21
    assert len(project.export()) == 21
