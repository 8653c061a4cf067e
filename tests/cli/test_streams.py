"""Where a command writes to may be full, or gone."""

import asyncio
import shlex
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.kits.project import Project

Words = Callable[[int], Iterator[dict[str, Any]]]
FULL = "error: stdout: cannot be written (No space left on device).\n"


async def in_a_shell(project: Project, command: str) -> tuple[int | None, str]:
    """The exit code, and what was said."""
    shell = await asyncio.create_subprocess_shell(
        f"{shlex.quote(sys.executable)} -m batchgen {command}",
        cwd=project.path,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await shell.communicate()
    return shell.returncode, said.decode()


@pytest.mark.quick("export -o -")
@pytest.mark.parametrize(
    "command", ["status", "status --json", "show 1", "export -o -", "enqueue pool.jsonl --dry-run"]
)
async def test_a_full_disk_behind_stdout_is_an_error_in_one_line(
    project: Project, words: Words, command: str
) -> None:
    project.pool(words(2))
    await project.batchgen("enqueue", "pool.jsonl")
    await project.batchgen("work")
    assert await in_a_shell(project, f"{command} >/dev/full") == (1, FULL)


@pytest.mark.on_both_engines
@pytest.mark.slow
async def test_a_full_disk_behind_stderr_stops_no_work(project: Project, words: Words) -> None:
    project.pool([*words(2), {"word": "x", "unused": 1}])
    assert await in_a_shell(project, "run pool.jsonl -o out.csv 2>/dev/full") == (0, "")
    assert len((project.path / "out.csv").read_text().splitlines()) >= 4
