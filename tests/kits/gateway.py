"""A gateway before a provider of batches, which tells its replies as others would."""

import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiohttp
from aiohttp import web

_ID = re.compile(r"^/(files|batches)/([^/]+)")
_PASSED_ON = ("content-type", "authorization")


class Told(NamedTuple):
    """A reply; its body is what JSON says, or bytes."""

    status: int
    body: Any


Tell = Callable[[Told], Told]


class Gateway:
    """`tells` makes other replies of those to a route, such as `GET /batches/ID`; `id_there` is
    what an id of the gateway's own is called behind it."""

    def __init__(
        self, tells: Mapping[str, Tell], id_there: Callable[[str], str] = lambda one: one
    ) -> None:
        self.tells = dict(tells)
        self.asked: list[str] = []
        self._id_there = id_there
        self._upstream = ""
        self._client: aiohttp.ClientSession

    @asynccontextmanager
    async def before(self, upstream: str) -> AsyncIterator[str]:
        """Its base URL, while it runs before that one."""
        self._upstream = upstream
        runner = web.ServerRunner(web.Server(self._handle, access_log=None), shutdown_timeout=1.0)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            async with aiohttp.ClientSession() as self._client:
                yield f"http://127.0.0.1:{site.port}/v1"
        finally:
            await runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path.removeprefix("/v1")
        route = request.method + " " + _ID.sub(r"/\1/ID", path)
        self.asked.append(route)
        there = _ID.sub(lambda found: f"/{found[1]}/{self._id_there(found[2])}", path)
        body = await request.read()
        if request.method == "POST" and path == "/batches":
            wanted = json.loads(body)
            wanted["input_file_id"] = self._id_there(wanted["input_file_id"])
            body = json.dumps(wanted).encode()
        headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
        async with self._client.request(
            request.method, self._upstream + there, params=request.query, data=body, headers=headers
        ) as reply:
            raw, kind = await reply.read(), reply.headers.get("Content-Type", "")
            told = Told(
                reply.status, json.loads(raw) if kind.startswith("application/json") else raw
            )
        if route in self.tells:
            told = self.tells[route](told)
        is_raw = isinstance(told.body, bytes)
        raw = told.body if is_raw else json.dumps(told.body).encode()
        kind = "text/plain" if is_raw else "application/json"
        return web.Response(status=told.status, body=raw, headers={"Content-Type": kind})
