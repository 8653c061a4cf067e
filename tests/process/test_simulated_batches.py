"""`batchgen simulate` with files and batches, as a process of its own."""

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from tests.kits.batches import CHAT, begin, ended, jsonl, line, rows
from tests.kits.processes import Process
from tests.kits.project import Project

pytestmark = pytest.mark.only_sqlite("it has no database")

MB = 1 << 20
LINES = 50_000
LINE_BYTES = 4_190  # that many of them are just less than 200 MB
GROWN_MB = 40


@asynccontextmanager
async def simulate(
    project: Project, *options: str
) -> AsyncIterator[tuple[AsyncOpenAI, Process, Path]]:
    """A client of it, its process, and the directory where it may put files."""
    room = project.path / "room"
    room.mkdir()
    project.env["TMPDIR"] = str(room)
    process = await project.start("simulate", "--port", "0", *options, fresh=True)
    assert process.stdout is not None
    async with asyncio.timeout(60):
        said = (await process.stdout.readline()).decode()
    url = said.removeprefix("serving on ").strip()
    async with AsyncOpenAI(base_url=url, api_key="sk-x", max_retries=0, timeout=600) as client:
        yield client, process, room


async def test_batches_go_wrong_as_the_options_say_and_leave_no_file(project: Project) -> None:
    options = ("--batch-seconds", "0", "--batch-faults", "lost_create=1,expire=0.5")
    async with simulate(project, *options) as (client, process, room):
        content = jsonl(line(str(n), f"Say {n}") for n in range(4))
        with pytest.raises(openai.APIConnectionError):
            await begin(client, content)
        [batch] = (await client.batches.list()).data
        batch = await ended(client, batch)
        assert batch.status == "expired"
        assert len(await rows(client, batch.output_file_id)) == 2
        told: Any = await client.get("/ledger", cast_to=object)
        assert told["billed"]["in_batches"] == 2
        assert list(room.iterdir())
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 0
    assert list(room.iterdir()) == []


@pytest.mark.slow
async def test_a_file_of_200_mb_is_never_in_memory(project: Project) -> None:
    path = project.path / "in.jsonl"
    with path.open("wb") as file:
        for n in range(LINES):
            raw = json.dumps(line(str(n), f"Say {n}")).encode()
            file.write(raw[:-4] + b" " * (LINE_BYTES - len(raw) - 1) + raw[-4:] + b"\n")
    assert 199 * MB < path.stat().st_size < 200 * MB
    async with simulate(project, "--batch-seconds", "0") as (client, process, _):
        before = peak_mb(process)
        with path.open("rb") as content:
            file_id = (await client.files.create(file=content, purpose="batch")).id
        batch = await client.batches.create(
            input_file_id=file_id, endpoint=CHAT, completion_window="24h"
        )
        while batch.status != "completed":
            batch = await client.batches.retrieve(batch.id)
            await asyncio.sleep(0.1)  # so that it has the CPU
            assert batch.status != "failed", batch.errors
        assert batch.output_file_id
        lines = 0
        async with client.files.with_streaming_response.content(batch.output_file_id) as response:
            async for piece in response.iter_bytes():
                lines += piece.count(b"\n")
        assert lines == LINES
        async with client.files.with_streaming_response.content(file_id) as response:
            assert sum([len(piece) async for piece in response.iter_bytes()]) > 199 * MB
        assert peak_mb(process) - before < GROWN_MB


def peak_mb(process: Process) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+)", status)
    assert found is not None
    return int(found[1]) // 1024
