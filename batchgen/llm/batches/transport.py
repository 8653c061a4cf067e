"""HTTP to a provider of batches: what an online call does not need, over aiohttp's session.

Files go up and down piece by piece. Nothing here retries or follows a redirect, which could carry
the key to another host, and nothing that comes back has a secret in it but an answer.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, BinaryIO

import aiohttp
import yarl

from batchgen.items import Failure, Reason, Reply
from batchgen.llm.batches.form import FileForm
from batchgen.llm.batches.protocol import BatchServerError
from batchgen.llm.batches.replies import failure_of, is_success
from batchgen.llm.connections import Progress
from batchgen.llm.faults import cut_off, not_connected, timed_out, too_large
from batchgen.llm.receive import AnswerMemory, BodyTooLargeError, ReceivedBody
from batchgen.llm.server_address import ServerAddress
from batchgen.shutdown import uninterrupted
from batchgen.text.json_text import sent_json

_READ_AHEAD_BYTES = 256 * 1024
_MOST_HEADER_BYTES = 100_000
_CONNECT_S = 60.0


class Transport:
    """Use `open_transport`."""

    def __init__(
        self, session: aiohttp.ClientSession, address: ServerAddress, timeout_s: float
    ) -> None:
        self.secrets = address.secrets
        self._session = session
        self._address = address
        self._timeout_s = timeout_s
        self._memory = AnswerMemory()
        # Of what comes packed, no length tells whether it is whole.
        self._headers = {**address.headers, "Accept-Encoding": "identity"}

    async def call(
        self, method: str, path: str, *,
        query: Mapping[str, str] | None = None, body: Mapping[str, Any] | None = None,
    ) -> Reply:  # fmt: skip
        """One request, and the whole reply, within `timeout_s`. Raises only CancelledError."""
        url = self._address.url(path, query)
        limit = asyncio.timeout(self._timeout_s)
        if body is None:
            return await self._reply(method, url, self._without_type(), None, limit)
        return await self._reply(method, url, self._headers, sent_json(body), limit)

    async def upload(
        self, path: str, fields: Mapping[str, str], file: BinaryIO, size: int, name: str
    ) -> Reply:
        """POST a form with a file of `size` bytes, read from where it stands. It may take as long
        as it likes while something of it is taken, or the reply comes, within `timeout_s`. Raises
        OSError when so much of the file cannot be read."""
        form = FileForm(fields, name, size)
        limit = asyncio.timeout(self._timeout_s)
        unreadable: list[OSError] = []

        async def pieces() -> AsyncIterator[bytes]:
            try:
                for piece in form.pieces(file):
                    yield piece
                    limit.reschedule(asyncio.get_running_loop().time() + self._timeout_s)
            except OSError as exc:
                unreadable.append(exc)
                raise

        headers = {**self._without_type(), **form.headers}
        reply = await self._reply("POST", self._address.url(path), headers, pieces(), limit)
        if unreadable:
            raise unreadable[0]
        return reply

    async def download(
        self, path: str, whole_size: Callable[[], Awaitable[int | None]]
    ) -> AsyncGenerator[bytes, None]:
        """The pieces of a file, to its end. It may take as long as it likes while something comes
        within `timeout_s`. Raises BatchServerError when the file is not there, or not whole;
        `whole_size` is asked where HTTP does not tell. To be closed."""
        progress = Progress(lambda: None)
        headers = {**self._without_type(), "Accept": "*/*"}
        status, size = None, 0
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await self._request(
                    "GET", self._address.url(path), headers, None, progress
                )
            status = response.status
            async with response:
                await self._check_is_file(response)
                while True:
                    async with asyncio.timeout(self._timeout_s):
                        piece = await response.content.readany()
                    if not piece:
                        break
                    size += len(piece)
                    yield piece
        except (aiohttp.ClientError, OSError, UnicodeError) as exc:
            raise BatchServerError(self._why_no_file(exc, progress, status)) from exc
        if not _tells_its_end(response) and size != await whole_size():
            raise BatchServerError(
                Failure(Reason.CONNECTION, f"nothing tells whether the file is whole: {size} bytes")
            )

    async def _reply(
        self, method: str, url: yarl.URL, headers: Mapping[str, str], data: Any,
        limit: asyncio.Timeout,
    ) -> Reply:  # fmt: skip
        started_at, start = time.time_ns() // 1_000_000, time.perf_counter()
        progress = Progress(lambda: None)
        found: dict[str, Any] = {}
        received = ReceivedBody(self._memory)
        try:
            async with limit, await self._request(method, url, headers, data, progress) as response:
                found["status"] = response.status
                found["headers"] = self._told(response)
                await _receive(received, response)
        except TimeoutError as exc:  # before OSError, which it is
            is_ours = limit.expired()
            found |= (
                timed_out(self._timeout_s, progress, received) if is_ours else not_connected(exc)
            )
        except BodyTooLargeError as exc:
            found |= too_large(exc)
        except (aiohttp.ClientError, OSError, UnicodeError) as exc:
            found |= cut_off(exc, progress, answered="status" in found)
        finally:
            received.close()
        if "fault" in found:
            found["fault_message"] = self.secrets.hide(found["fault_message"])
        else:
            found["body"] = self.secrets.hide(received.text())
        latency_ms = int((time.perf_counter() - start) * 1000)
        return Reply(started_at, latency_ms, **found)

    async def _request(
        self, method: str, url: yarl.URL, headers: Mapping[str, str], data: Any, progress: Progress
    ) -> aiohttp.ClientResponse:
        return await self._session.request(
            method, url, headers=headers, data=data, allow_redirects=False,
            trace_request_ctx=progress,
        )  # fmt: skip

    async def _check_is_file(self, response: aiohttp.ClientResponse) -> None:
        """Raises BatchServerError when there is an error, or a page for people, in its place."""
        is_page = response.content_type in ("text/html", "application/xhtml+xml")
        if is_success(response.status) and not is_page:
            return
        received = ReceivedBody(self._memory)
        try:
            async with asyncio.timeout(self._timeout_s):
                await _receive(received, response)
            text = self.secrets.hide(received.text())
        finally:
            received.close()
        now = time.time_ns() // 1_000_000
        reply = Reply(now, 0, response.status, self._told(response), text)
        raise BatchServerError(failure_of(reply))

    def _why_no_file(self, exc: Exception, progress: Progress, status: int | None) -> Failure:
        if isinstance(exc, TimeoutError) and not isinstance(exc, aiohttp.ClientError):
            what = "no reply" if status is None else "nothing more of the file"
            return Failure(Reason.TIMEOUT, f"{what} within {self._timeout_s:g} s")
        fault = cut_off(exc, progress, answered=status is not None)
        fault["fault_message"] = self.secrets.hide(fault["fault_message"])
        return failure_of(Reply(0, 0, **fault))

    def _told(self, response: aiohttp.ClientResponse) -> dict[str, str]:
        return {name.lower(): self.secrets.hide(text) for name, text in response.headers.items()}

    def _without_type(self) -> dict[str, str]:
        """Headers of what is no JSON."""
        return {n: text for n, text in self._headers.items() if n.lower() != "content-type"}


@asynccontextmanager
async def open_transport(address: ServerAddress, timeout_s: float) -> AsyncIterator[Transport]:
    """To the server at that address."""
    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(_tell_sent)
    session = aiohttp.ClientSession(
        # A connection for each request: the provider closes those that are kept for the minutes
        # between two, and nothing would tell whether it has made the batch that was asked for.
        connector=aiohttp.TCPConnector(limit=0, force_close=True),
        proxy=address.proxy,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
        trace_configs=[trace],
        read_bufsize=_READ_AHEAD_BYTES,
        max_line_size=_MOST_HEADER_BYTES,
        max_field_size=_MOST_HEADER_BYTES,
    )
    try:
        yield Transport(session, address, timeout_s)
    finally:
        await uninterrupted(session.close())


async def _tell_sent(
    _session: aiohttp.ClientSession, context: SimpleNamespace,
    _params: aiohttp.TraceRequestHeadersSentParams,
) -> None:  # fmt: skip
    """From here on the server may have the request."""
    context.trace_request_ctx.sent = True


async def _receive(received: ReceivedBody, response: aiohttp.ClientResponse) -> None:
    await received.receive(
        response.content.readany,
        is_error=not is_success(response.status),
        heard=lambda _: None,
    )


def _tells_its_end(response: aiohttp.ClientResponse) -> bool:
    """Whether what was read has the length that HTTP told. It tells none where the end of the
    connection is the end of the file, and another one of what is packed all the same."""
    headers = response.headers
    is_packed = headers.get("Content-Encoding", "identity").lower() != "identity"
    is_chunked = "chunked" in headers.get("Transfer-Encoding", "").lower()
    return not is_packed and ("Content-Length" in headers or is_chunked)
