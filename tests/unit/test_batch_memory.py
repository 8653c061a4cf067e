"""Files of provider batches go up and down without being in memory."""

import os
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiohttp import web

from batchgen.llm.batches import Seen, Standing
from tests.kits.provider import opened, provider

SIZE = 200_000_000
MOST_BYTES = 16 * 1024 * 1024
LINE = b'{"custom_id":"a","response":{"status_code":200,"body":{"choices":["%b"]}}}\n' % (
    b"x" * 20_000
)


@contextmanager
def little_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        _, most = tracemalloc.get_traced_memory()
        assert most < MOST_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.slow
async def test_a_file_of_200_mb_goes_up_in_pieces(tmp_path: Path) -> None:
    path, received = tmp_path / "in.jsonl", []

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        while piece := await request.content.readany():
            received.append(len(piece))
        return web.json_response({"id": "file-1"})

    path.touch()
    os.truncate(path, SIZE)
    async with provider() as told, opened(told.url) as server:
        told.answers["POST /files"] = answer
        with path.open("rb") as file, little_memory():
            assert await server.upload(file, SIZE, "in.jsonl") == "file-1"
    assert SIZE < sum(received) < SIZE + 1000


@pytest.mark.slow
async def test_a_file_of_200_mb_comes_down_in_pieces() -> None:
    n = SIZE // len(LINE)

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(n * len(LINE))})
        await response.prepare(request)
        for _ in range(n):
            await response.write(LINE)
        return response

    seen = Seen("b-1", Standing.COMPLETED, "completed", output_file="out")
    async with provider() as told, opened(told.url) as server:
        told.answers["GET /files/out/content"] = answer
        found = 0
        with little_memory():
            async for line in server.lines(seen):
                assert line.reply is not None
                found += 1
    assert found == n
