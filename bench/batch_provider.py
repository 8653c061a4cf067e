"""A provider of batches that costs next to nothing, so that what it is asked by is measured.

    python -m bench.batch_provider ANSWER_CHARS

prints its port. A batch is over as soon as it is made: its output file has an answer of so many
characters for each request, in the order of the input file.
"""

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiohttp import BodyPartReader, web

_PIECE = 1 << 18


class Provider:
    def __init__(self, directory: Path, answer_chars: int) -> None:
        self._dir = directory
        self._batches: dict[str, dict[str, Any]] = {}
        message = {"role": "assistant", "content": "x" * answer_chars}
        body = {
            "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 200, "total_tokens": 300},
        }  # fmt: skip
        response = {"status_code": 200, "request_id": "req-1", "body": body}
        self._rest = f', "response": {json.dumps(response)}, "error": null}}\n'.encode()

    def application(self) -> web.Application:
        app = web.Application(client_max_size=1 << 40)
        app.add_routes([
            web.post("/v1/files", self.upload),
            web.get("/v1/files/{id}/content", self.content),
            web.post("/v1/batches", self.create),
            web.get("/v1/batches", self.listed),
            web.get("/v1/batches/{id}", self.batch),
        ])  # fmt: skip
        return app

    async def upload(self, request: web.Request) -> web.Response:
        name = f"file-{len(list(self._dir.iterdir()))}"
        async for part in await request.multipart():
            assert isinstance(part, BodyPartReader)
            if part.name == "file":
                with (self._dir / name).open("wb") as file:
                    while piece := await part.read_chunk(_PIECE):
                        file.write(piece)
        return web.json_response({"id": name, "object": "file", "purpose": "batch"})

    async def create(self, request: web.Request) -> web.Response:
        asked = await request.json()
        number = len(self._batches) + 1
        lines = 0
        with (
            (self._dir / asked["input_file_id"]).open("rb") as questions,
            (self._dir / f"out-{number}").open("wb") as answers,
        ):
            for line in questions:
                custom_id = json.loads(line)["custom_id"]
                answers.write(b'{"id": "1", "custom_id": "%b"' % custom_id.encode() + self._rest)
                lines += 1
        batch = {
            "id": f"batch_{number}", "object": "batch", "status": "completed",
            "endpoint": asked["endpoint"], "input_file_id": asked["input_file_id"],
            "output_file_id": f"out-{number}", "error_file_id": None,
            "created_at": int(time.time()), "metadata": asked.get("metadata"),
            "request_counts": {"total": lines, "completed": lines, "failed": 0},
        }  # fmt: skip
        self._batches[batch["id"]] = batch
        return web.json_response(batch)

    async def listed(self, _: web.Request) -> web.Response:
        newest = list(self._batches.values())[::-1]
        return web.json_response({"object": "list", "data": newest, "has_more": False})

    async def batch(self, request: web.Request) -> web.Response:
        return web.json_response(self._batches[request.match_info["id"]])

    async def content(self, request: web.Request) -> web.StreamResponse:
        file = self._dir / request.match_info["id"]
        response = web.StreamResponse(headers={"Content-Length": str(file.stat().st_size)})
        await response.prepare(request)
        async for piece in _pieces(file):
            await response.write(piece)
        return response


async def _pieces(file: Path) -> AsyncIterator[bytes]:
    with file.open("rb") as opened:
        while piece := opened.read(_PIECE):
            yield piece


async def main() -> None:
    with tempfile.TemporaryDirectory(prefix="batchgen-bench-") as directory:
        provider = Provider(Path(directory), int(sys.argv[1]))
        runner = web.AppRunner(provider.application())
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        print(runner.addresses[0][1], flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
