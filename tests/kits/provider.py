"""A provider of batches that replies as a test tells it, as no good one would."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from aiohttp import web

from batchgen.config import ModelConfig
from batchgen.llm.batches import BatchServer, open_batch_server
from tests.kits.project import KEY

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Asked(NamedTuple):
    """A request, by its path without the base URL's."""

    method: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]  # by names in any capitals
    body: Any


class Provider:
    """`answers` are functions by `METHOD /path`, and `asked` is what came."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[Asked] = []
        self.url = ""

    def says(self, what: str, status: int, body: Any, **headers: str) -> None:
        """To `METHOD /path`, always: JSON, or a text or bytes as they are."""
        as_it_is = isinstance(body, (str, bytes))
        raw = body if as_it_is else json.dumps(body)
        content = raw.encode("utf-8", "surrogatepass") if isinstance(raw, str) else raw
        told = {"Content-Type": "application/json", **_named(headers)}

        async def answer(_: web.BaseRequest) -> web.StreamResponse:
            return web.Response(status=status, body=content, headers=told)

        self.answers[what] = answer

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path.removeprefix("/v1")
        raw = b"" if request.content_type.startswith("multipart/") else await request.read()
        body = json.loads(raw) if raw else None
        self.asked.append(Asked(request.method, path, dict(request.query), request.headers, body))
        answer = self.answers.get(f"{request.method} {path}")
        return web.Response(status=404) if answer is None else await answer(request)


def _named(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


@asynccontextmanager
async def provider() -> AsyncIterator[Provider]:
    told = Provider()
    runner = web.ServerRunner(web.Server(told.handle, access_log=None), shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    told.url = f"http://127.0.0.1:{site.port}/v1"
    try:
        yield told
    finally:
        await runner.cleanup()


@asynccontextmanager
async def opened(
    base_url: str, *, key: str | None = KEY, timeout_s: float = 30.0, of: str = "openai"
) -> AsyncIterator[BatchServer]:
    model = ModelConfig(base_url=base_url, api_key=key, provider=of)
    async with open_batch_server(model, timeout_s=timeout_s) as server:
        yield server
