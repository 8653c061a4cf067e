"""The simulated model's HTTP side: receives, counts, decides, answers or misbehaves."""

import asyncio
import errno
import json
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from weakref import WeakSet

from aiohttp import web
from msgspec import Struct, field

from batchgen.errors import BatchgenError
from batchgen.simulate.answers import Chat, json_object, models
from batchgen.simulate.arrivals import Arrivals
from batchgen.simulate.azure import key_of, path_after_place
from batchgen.simulate.batch_faults import BatchFaults
from batchgen.simulate.batch_requests import BatchRequests
from batchgen.simulate.batch_runs import Batches
from batchgen.simulate.behaviours import (
    Behaviour,
    ErrorMix,
    ItemErrors,
    Latency,
    error_object,
    retry_after_headers,
)
from batchgen.simulate.bill import Bill
from batchgen.simulate.call_log import CallLog
from batchgen.simulate.capacity import Capacity, Outage
from batchgen.simulate.deciding import Call, Decider
from batchgen.simulate.endpoints import PROMPTS, answer, asked
from batchgen.simulate.faults import cut, reset, stream, trickle, until_disconnected
from batchgen.simulate.files import Files
from batchgen.simulate.limiter import Limiter
from batchgen.simulate.line_replies import LineReplies
from batchgen.simulate.streams import events_of

_KEPT_REQUESTS = 10_000
_WITHOUT_CHAT = ("status", "html", "reset", "hang", "trickle")
_JSON = {"Content-Type": "application/json"}


class Received(Struct, frozen=True):
    """A request as it came in. `body` is {} if it was not a JSON object; `at` is time.monotonic();
    the names in `headers` can be looked up in upper or lower case."""

    body: Mapping[str, Any]
    headers: Mapping[str, str]
    at: float
    path: str
    query: Mapping[str, str] = field(default_factory=dict)


class Simulator:
    """The server. `calls` counts the POSTs received, `answered` the whole responses sent, of any
    status, `in_flight` the calls between the two, and `dropped` the requests reset on a `stale`
    connection, which do not count as calls. `ledger` counts calls by the text of their last user
    message, and `bill` has what would be charged, of lines of batches too.

    `keep_ledger=False` is for runs without an end: no prompts are kept in memory (`ledger` and
    `requests` stay empty), only totals and the try numbers of recent requests.
    """

    def __init__(
        self,
        *,
        latency: Latency | str = "0",
        errors: ErrorMix | str = "",
        item_errors: Iterable[str] = (),
        rpm: float | None = None,
        burst: int | None = None,
        tpm: float | None = None,
        limit_headers: bool = True,
        seed: int = 0,
        retry_after_s: float | None = 1.0,
        at_once: int | None = None,
        refuse_with: int = 503,
        outage: Outage | str | None = None,
        api_key: str | None = None,
        batch_seconds: float = 0.0,
        batch_faults: str = "",
        ledger_path: Path | str | None = None,
        keep_ledger: bool = True,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        """`item_errors`: `TEXT=KIND`, for each call with that text. `rpm`, requests a minute, None
        or 0: no limit; `burst` calls may come at once (default: one second's worth). `tpm`: tokens
        a minute, in and out, of which a minute's worth may come at once. `limit_headers`: each
        reply announces both limits, as OpenAI's do. `retry_after_s` None: a simulated 429 has no
        Retry-After. `at_once`: what comes beside so many calls gets the status `refuse_with`.
        `outage` as `Outage.parse` reads it. `batch_seconds`: how long a batch takes.
        `batch_faults` as `BatchFaults.parse` reads them. Raises ConfigError."""
        self._decider = Decider(
            latency=Latency.parse(latency) if isinstance(latency, str) else latency,
            errors=ErrorMix.parse(errors) if isinstance(errors, str) else errors,
            item_errors=ItemErrors.parse(item_errors),
            limiter=Limiter(rpm, burst, tpm), limit_headers=limit_headers,
            capacity=Capacity(at_once, refuse_with),
            outage=Outage.parse(outage) if isinstance(outage, str) else outage,
            seed=seed, keep_tries=keep_ledger,
        )  # fmt: skip
        self._retry_after_s = retry_after_s
        self._api_key = api_key
        self._keep_ledger = keep_ledger
        self.host = host
        self.port = port
        self.calls = self.answered = self.in_flight = self.max_in_flight = self.dropped = 0
        self.ledger: Counter[str] = Counter()
        self.requests: deque[Received] = deque(maxlen=_KEPT_REQUESTS if keep_ledger else 0)
        self.bill = Bill(keep_prompts=keep_ledger)
        self._released = asyncio.Event()
        self._released.set()
        self._arrivals = Arrivals()
        self._stale: WeakSet[asyncio.Transport] = WeakSet()
        self._call_log = CallLog(ledger_path)
        files = Files()
        lines = LineReplies(self._decider, self._call_log, self.bill)
        self._batches = Batches(
            files, lines.reply, seconds=batch_seconds, seed=seed, released=self._released
        )
        self._batch_requests = BatchRequests(
            files, self._batches, BatchFaults.parse(batch_faults), self._authorized, self._arrivals
        )
        self._server: web.Server | None = None
        self._runner: web.ServerRunner | None = None

    @property
    def base_url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/v1"

    async def start(self) -> str:
        """Listen, and return the base URL. After a stop it listens on the same port again.

        Raises BatchgenError if the port is taken or the ledger cannot be written.
        """
        self._call_log.open()
        # Without handler_cancellation a call that hangs would outlive the client that left it.
        self._server = web.Server(self._handle, handler_cancellation=True, access_log=None)
        self._runner = web.ServerRunner(self._server, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.host, self.port, backlog=2048)
        try:
            await site.start()
        except (OSError, OverflowError) as exc:
            await self.stop()
            taken = isinstance(exc, OSError) and exc.errno == errno.EADDRINUSE
            raise BatchgenError(
                f"cannot listen on {self.host}:{self.port}: "
                f"{'the port is in use' if taken else exc}; choose another, or 0 for any free port"
            ) from exc
        self.port = site.port
        self._batches.resume()
        return self.base_url

    async def stop(self) -> None:
        """Close everything at once: calls that are held, slow or hanging see a disconnect."""
        if self._runner is None or self._server is None:
            return
        await self._batches.stop()
        for site in list(self._runner.sites):
            await site.stop()
        for connection in self._server.connections:
            if connection.transport is not None:
                connection.transport.abort()
        await self._runner.cleanup()
        self._server = self._runner = None
        self._call_log.close()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Runs the server during a block, which gets the base URL."""
        url = await self.start()
        try:
            yield url
        finally:
            await self.stop()

    def calls_of(self, text: str) -> int:
        """How many calls had `text` in their last user message."""
        return sum(calls for prompt, calls in self.ledger.items() if text in prompt)

    async def received(self, n: int, text: str | None = None, *, timeout_s: float = 30.0) -> None:
        """Wait until `n` calls in all, or `n` with `text`, have arrived. Raises TimeoutError."""
        await self._arrivals.wait_for(n, lambda: self._arrived(text), timeout_s)

    async def asked(self, n: int, route: str, *, timeout_s: float = 30.0) -> None:
        """Wait until `n` requests have arrived at a route of files or batches, such as `GET
        /files/ID/content`, and were done, though there may be no reply yet. Raises TimeoutError."""
        requests = self._batch_requests
        assert route in requests.routes, route
        await self._arrivals.wait_for(n, lambda: requests.asked[route], timeout_s)

    def times_asked(self, route: str) -> int:
        """How many requests have arrived at a route, as in `asked`."""
        return self._batch_requests.asked[route]

    @property
    def batch_ids(self) -> list[str]:
        """Of all batches that were made, the oldest first."""
        return self._batches.ids()

    def hold(self, *routes: str, times: int | None = None) -> None:
        """From now on, receive and count calls, but answer them, and lines of batches, only after
        `release`. With `routes`: only requests to these, as in `asked`, get no reply until then, of
        each the next `times` if that is given."""
        if not routes:
            self._released.clear()
        for route in routes:
            self._batch_requests.hold(route, times)

    def release(self, *routes: str) -> None:
        """All that is held, or only requests to these routes."""
        if not routes:
            self._released.set()
        self._batch_requests.release(routes)

    def fail_batches(self, faults: str) -> None:
        """From now on these happen, as `batch_faults`, and none of those before."""
        self._batch_requests.faults = BatchFaults.parse(faults)

    def list_batches(self) -> None:
        """Now the list has all batches that are late for it (`late_list`)."""
        self._batches.list_all()

    def script(self, text: str, *behaviours: str | Behaviour) -> None:
        """The next calls with `text` in their last user message get these behaviours, one each, in
        order of arrival. Where several scripts fit a call, the oldest that is not used up
        decides."""
        self._decider.script(text, *behaviours)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.transport in self._stale:
            self.dropped += 1
            return await reset(request)
        path = path_after_place(request.path, request.query)
        if path is not None and self._batch_requests.takes(path):
            if (out := self._decider.out(time.monotonic())) and out.kind in _WITHOUT_CHAT:
                return await self._answer(request, Call(None, 0, out, 0.0, {}, has_room=False))
            return await self._batch_requests.handle(request, path)
        if request.method != "POST":
            return self._get(request)
        # Not request.read(), which refuses more than a megabyte.
        raw = await request.content.read()
        call = self._receive(request, raw)
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            await self._released.wait()
            if call.behaviour.after is not None:
                await call.behaviour.after.wait()
            if call.delay_s > 0 and not call.is_streamed:
                await asyncio.sleep(call.delay_s)
            response = await self._answer(request, call)
            self.answered += 1
            return response
        except ConnectionError:
            # The client left while we wrote; if it were raised, aiohttp would log it as our fault.
            return await until_disconnected()
        finally:
            self.in_flight -= 1
            self._decider.end(call)

    def _receive(self, request: web.BaseRequest, raw: bytes) -> Call:
        now = time.monotonic()
        body = json_object(raw)
        self.calls += 1
        self.requests.append(Received(body, request.headers, now, request.path, request.query))
        chat = asked(path_after_place(request.path, request.query), body)
        if chat is not None and self._keep_ledger:
            self.ledger[chat.text] += 1
        call = self._decider.decide(chat, self._refused(request, chat), now)
        self._call_log.write(chat, call.tries, call.behaviour.outcome)
        self._arrivals.wake()
        return call

    def _refused(self, request: web.BaseRequest, chat: Chat | None) -> Behaviour | None:
        """The response to a request that no server would accept; None for another one."""
        path = path_after_place(request.path, request.query)
        if path is None:
            return Behaviour.error(404, message="Resource not found", code="404")
        if path not in PROMPTS:
            return Behaviour.error(404, message=f"unknown URL {request.path}", code="unknown_url")
        if not self._authorized(request):
            return Behaviour.error(401, message="wrong API key", code="invalid_api_key")
        if chat is None:
            return Behaviour.error(400, message=f"the body must be JSON with {PROMPTS[path]}")
        return None

    def _authorized(self, request: web.BaseRequest) -> bool:
        return self._api_key in (None, key_of(request.path, request.headers))

    def _arrived(self, text: str | None) -> int:
        return self.calls if text is None else self.calls_of(text)

    async def _answer(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        """Respond as the call's behaviour says; does not return if that is not to respond."""
        headers = {**_JSON, **call.headers}
        if call.chat is not None:
            headers |= {"x-request-id": f"req_{call.chat.digest.hex()[-24:]}"}
        kind = call.behaviour.kind
        if kind == "status":
            return self._status_response(call.behaviour, headers)
        if kind == "html":
            page = "<html><body><h1>Welcome</h1></body></html>"
            return web.Response(text=page, content_type="text/html")
        if kind == "reset":
            return await reset(request)
        if kind == "hang":
            return await until_disconnected()
        if kind == "trickle":
            return await trickle(request, headers)
        # Only a valid chat gets any further than `status`.
        assert call.chat is not None
        self.bill.add(call.chat, in_batch=False)
        body = answer(call.chat, kind, call.behaviour.text)
        if kind == "stale" and request.transport is not None:
            self._stale.add(request.transport)
        if call.is_streamed:
            events = events_of(body, call.chat.body)
            return await stream(request, headers, events, kind, call.delay_s)
        if kind == "cut":
            return await cut(request, headers, body)
        if kind == "bad_json":
            body = body[: len(body) // 2]
        return web.Response(body=body, headers=headers)

    def _status_response(self, behaviour: Behaviour, headers: Mapping[str, str]) -> web.Response:
        extra = dict(behaviour.headers)
        body = behaviour.body
        if body is None:
            body = error_object(behaviour.status, f"simulated {behaviour.status}")
            if behaviour.status == 429 and not extra and self._retry_after_s is not None:
                extra = retry_after_headers(self._retry_after_s)
        response = web.Response(status=behaviour.status, body=_as_bytes(body), headers=headers)
        response.headers.update(extra)
        return response

    def _get(self, request: web.BaseRequest) -> web.Response:
        path = request.path.removeprefix("/v1")
        if request.method == "GET" and path == "/ledger":
            return web.Response(body=self._ledger_json(), headers=_JSON)
        if request.method != "GET" or path != "/models":
            message = f"unknown URL {request.method} {request.path}"
            return web.Response(status=404, body=error_object(404, message), headers=_JSON)
        if not self._authorized(request):
            body = error_object(401, "wrong API key", "invalid_api_key")
            return web.Response(status=401, body=body, headers=_JSON)
        return web.Response(body=models(), headers=_JSON)

    def _ledger_json(self) -> bytes:
        counts = {
            "calls": self.calls, "answered": self.answered, "items": self.ledger,
            "billed": self.bill.to_json(), "batches": self._batches.by_status(),
            "requests": self._batch_requests.asked,
        }  # fmt: skip
        return json.dumps(counts).encode()


async def serve(simulator: Simulator, ready: Callable[[str], None], stop: asyncio.Event) -> None:
    """Run in the foreground until `stop` is set; `ready` gets the base URL once it listens."""
    async with simulator.running() as url:
        ready(url)
        await stop.wait()


def _as_bytes(body: bytes | str) -> bytes:
    return body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
