"""What short commands load: each module costs its part of the time until they are done, and one
import asyncio
import at the top of a module that they need brings a dozen others with it."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from batchgen.simulate import Simulator
from tests.kits.project import Project, ended

# Prints the modules that a command has loaded in the end.
_COMMAND = """
import atexit, sys
from batchgen.__main__ import main
atexit.register(lambda: print("loaded:", *sys.modules))
main()
"""
_NEEDLESS = {
    "aiohttp", "aiosqlite", "asyncio", "dataclasses", "genai_prices", "hashlib", "jsonschema",
    "openai", "pydantic", "random", "rich", "socket", "ssl", "structlog", "subprocess", "tempfile",
}  # fmt: skip


def loaded(directory: Path, *arguments: str) -> set[str]:
    command = [sys.executable, "-c", _COMMAND, *arguments]
    run = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=True)
    return set(run.stdout.partition("loaded: ")[2].split())


@pytest.mark.quick("status", "--help")
@pytest.mark.only_sqlite("psycopg loads asyncio and more")
@pytest.mark.parametrize(
    ("command", "most_of_ours", "needless"),
    [
        ("--help", 10, _NEEDLESS | {"msgspec", "json", "pathlib", "sqlite3", "yaml"}),
        ("status", 69, _NEEDLESS | {"json"}),
        ("failures", 107, _NEEDLESS - {"dataclasses", "hashlib"}),
        ("experiments", 107, _NEEDLESS - {"dataclasses", "hashlib"}),
    ],
)
async def test_a_short_command_loads_what_it_needs(
    project: Project, command: str, most_of_ours: int, needless: set[str]
) -> None:
    project.pool([{"word": "w"}])
    assert (await project.batchgen("enqueue", "pool.jsonl")).code == 0
    modules = loaded(project.path, command)
    assert sorted(modules & needless) == []
    ours = sorted(name for name in modules if name.split(".")[0] == "batchgen")
    assert len(ours) <= most_of_ours, ours


# Of what a worker loads beside its first call it says whether that has gone out by then, as the
# file `received` tells.
_WORK = """
import os, sys, time
from pathlib import Path
from batchgen.__main__ import main

def look(event, arguments):
    if event == "import" and arguments[0] in {"genai_prices", "rich", "structlog"}:
        give_up_at = time.monotonic() + 20
        while not Path("received").exists() and time.monotonic() < give_up_at:
            time.sleep(0.01)
        os.write(1, f"after the first call: {Path('received').exists()}\\n".encode())

sys.addaudithook(look)
sys.argv = ["batchgen", "work", "-c", "1"]
main()
"""


@pytest.mark.on_both_engines
@pytest.mark.slow
async def test_a_worker_loads_after_its_first_call_what_that_does_not_need(
    project: Project, simulator: Simulator
) -> None:
    project.pool([{"word": "w"}])
    assert (await project.batchgen("enqueue", "pool.jsonl")).code == 0
    worker = await project.start(str(project.write("work.py", _WORK)), fresh=True)
    await simulator.received(1)
    project.write("received", "")
    run = await ended(worker)
    assert run.code == 0
    assert set(run.out.splitlines()) == {"after the first call: True"}


@pytest.mark.on_both_engines
@pytest.mark.slow
async def test_a_worker_on_no_terminal_loads_nothing_that_draws(project: Project) -> None:
    project.pool([])
    assert (await project.batchgen("enqueue", "pool.jsonl")).code == 0
    modules = loaded(project.path, "work")
    assert "batchgen.display.run" in modules
    assert "batchgen.display.live" not in modules


@pytest.mark.on_both_engines
@pytest.mark.slow
async def test_a_worker_that_writes_no_file_loads_neither_exports_nor_pools(
    project: Project,
) -> None:
    project.pool([])
    assert (await project.batchgen("enqueue", "pool.jsonl")).code == 0
    modules = loaded(project.path, "work")
    needless = ("batchgen.export", "batchgen.jobs.enqueue", "batchgen.jobs.processes")
    assert [name for name in needless if name in modules] == []


@pytest.mark.on_both_engines
@pytest.mark.slow
async def test_what_has_no_steps_loads_none_of_their_rules(
    project: Project, simulator: Simulator
) -> None:
    project.pool([{"word": "w"}])
    modules = await asyncio.to_thread(loaded, project.path, "run", "pool.jsonl")
    assert simulator.calls == 1
    of_steps = ("config.steps", "jobs.chain", "parsers.step_function", "prompts.chain_names")
    of_rows = ("steps", "store.plan_follow", "store.transactions.follow", "prompts.chain_row")
    assert [name for name in (*of_steps, *of_rows) if f"batchgen.{name}" in modules] == []
