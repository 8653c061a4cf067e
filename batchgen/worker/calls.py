"""An item's call, or two: with `--hedge`, a straggler's request is sent once more, and the first
answer is taken.

A call that takes much longer than the others has most likely met trouble of its own: a node that
died, a connection that a gateway forgot. The same request, sent once more, is likely to be answered
soon, at another server if there is one. If both are answered, both are paid for.

    first call ──────────────────────────────▶ ...
                    │ late, and there is a permit
                    └─ durable that there are two ─▶ second call ──▶ answered: the first
                                                                           is abandoned

It is durable before the second call goes out, so that a crash forgets neither; in the end both are
attempts of one outcome.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any

from msgspec.structs import replace

from batchgen.clock import clock_ms
from batchgen.items import Answer, Item, Reply
from batchgen.llm.announcements import announced_limit
from batchgen.llm.replies import read_reply
from batchgen.shutdown import uninterrupted
from batchgen.worker.committer import Committer
from batchgen.worker.judge import CallResult, Sent
from batchgen.worker.requests import Request
from batchgen.worker.servers import Server, Servers
from batchgen.worker.stragglers import CallsInFlight

# How often to ask again while too few answers are known to say what is late.
_LOOK_EVERY_MS = 1000
# How long those that were claimed with the first call take to go out, too.
_CALLS_GO_OUT_S = 0.02

_Send = Callable[[str], Coroutine[Any, Any, CallResult]]


class Calls:
    """The calls of one worker. With `hedge`, a straggler's request is sent once more. `begun` is
    called once the first ones have gone out, and before anything comes of one."""

    def __init__(
        self, servers: Servers, committer: Committer, calls_in_flight: CallsInFlight, *,
        hedge: bool, begun: Callable[[], object] = lambda: None,
    ) -> None:  # fmt: skip
        self._servers = servers
        self._committer = committer
        self._calls_in_flight = calls_in_flight
        self._hedge = hedge
        self._begun: Callable[[], object] | None = begun
        self._begins: asyncio.TimerHandle | None = None

    async def send(self, item: Item, request: Request, calls: list[CallResult | None]) -> Sent:
        """Send the request. `calls` gets a None for each call as it goes out, and then in its
        place what it brought. Whoever cancels it abandons the call, or both; then `calls` has what
        ended before."""
        self._calls_in_flight.began(item.id, clock_ms())
        try:
            if self._hedge:
                await self._send_hedged(item, partial(self._call, request, calls))
            else:
                await self._call(request, calls, item.server)
        finally:
            self._calls_in_flight.ended(item.id)
        sent = Sent.of(calls)
        assert sent is not None
        return sent

    async def _call(self, request: Request, calls: list[CallResult | None], key: str) -> CallResult:
        server = self._servers[key]
        place = len(calls)
        calls.append(None)
        call = server.pacer.call_sent(clock_ms(), str(request.body.get("model")))
        try:
            reply = await server.client.complete(
                request.body, request.endpoint, tell_sent=self._went_out
            )
        finally:
            server.pacer.call_ended(call)
            self._begin()
        kept = _with_paths(reply, request.image_paths) if request.image_paths else reply
        called = calls[place] = CallResult(kept, read_reply(kept, request.endpoint), call, key)
        _observe_limits(server, reply, call.number)
        return called

    def _went_out(self) -> None:
        if self._begun is not None and self._begins is None:
            loop = asyncio.get_running_loop()
            self._begins = loop.call_later(_CALLS_GO_OUT_S, self._begin)

    def _begin(self) -> None:
        if self._begun is not None:
            begun, self._begun = self._begun, None
            begun()

    async def _send_hedged(self, item: Item, send: _Send) -> None:
        first = asyncio.create_task(send(item.server), name=f"call of item {item.id}")
        permit = asyncio.create_task(self._permit(item), name=f"permit of item {item.id}")
        tasks: list[asyncio.Task[Any]] = [first, permit]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            server = None if first.done() else permit.result()
            if server is None:
                await first
                return
            second = asyncio.create_task(send(server), name=f"second call of item {item.id}")
            tasks.append(second)
            await _answered(first, second)
        finally:
            await uninterrupted(self._leave(tasks, permit))

    async def _leave(
        self, tasks: list[asyncio.Task[Any]], permit: asyncio.Task[str | None]
    ) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        if not permit.cancelled() and permit.exception() is None and (server := permit.result()):
            self._committer.give_back_permit(server)

    async def _permit(self, item: Item) -> str | None:
        """The server that a second call may be sent to, once this one is late."""
        await self._until_late()
        return await self._committer.second_call_permit(item)

    async def _until_late(self) -> None:
        """Until a call that begins now is a straggler."""
        began_at = clock_ms()
        while True:
            now = clock_ms()
            late_after_ms = self._calls_in_flight.late_after_ms(now)
            left_ms = _LOOK_EVERY_MS if late_after_ms is None else began_at + late_after_ms - now
            if left_ms <= 0:
                return
            await asyncio.sleep(left_ms / 1000)


def _observe_limits(server: Server, reply: Reply, number: int) -> None:
    requests = announced_limit(reply.headers, "requests")
    tokens = announced_limit(reply.headers, "tokens")
    if requests or tokens:
        server.pacer.server.observe(requests, tokens, number, clock_ms() - reply.latency_ms)


async def _answered(first: asyncio.Task[CallResult], second: asyncio.Task[CallResult]) -> None:
    """Until one of them is an answer, or both have ended."""
    done, _ = await asyncio.wait([first, second], return_when=asyncio.FIRST_COMPLETED)
    if not any(isinstance(task.result().verdict, Answer) for task in done):
        await asyncio.gather(first, second)


def _with_paths(reply: Reply, paths: Mapping[str, str]) -> Reply:
    """Some servers repeat the request in an error, and what they send is stored."""
    body = reply.body or ""
    for data_url, path in paths.items():
        body = body.replace(data_url, path)
    return replace(reply, body=body) if reply.body else reply
