"""POSTs over aiohttp's connections: its connector, messages and parser, without its session.

What a session does for each request (redirects, cookies, hooks, bodies of any kind) is of no use
here, and takes as much CPU as the rest of a request; so does the task in which it writes a body.
Here the body is in memory, and goes out in one piece with the headers. So a redirect is a reply as
any other, as following it could carry the key to another host; and no cookie binds all calls to one
machine behind a load balancer.
"""

import asyncio
from collections.abc import Callable, Mapping
from weakref import WeakSet

import aiohttp
import yarl
from aiohttp.http import StreamWriter

_TIMEOUT = aiohttp.ClientTimeout(
    total=None,
    sock_connect=60.0,  # a busy event loop is late to notice; 5 s fires falsely
)
# Content-Security-Policy and cookies of some gateways are long; curl and httpx take 100 KB.
_MOST_HEADER_BYTES, _MOST_HEADERS = 100_000, 1000


class Progress:
    """How far a call has got: whether its request was sent, and on a connection that was used
    before. `tell_sent` is called once it has gone out."""

    __slots__ = ("reused", "sent", "tell_sent")

    def __init__(self, tell_sent: Callable[[], object]) -> None:
        self.reused = False
        self.sent = False
        self.tell_sent = tell_sent


class Connections:
    """Any number, which are kept alive; to be closed in the end. A `proxy` is told nothing of what
    is sent to the server."""

    def __init__(self, proxy: str | None) -> None:
        self._connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60)
        self._loop = asyncio.get_running_loop()
        self._proxy = None if proxy is None else yarl.URL(proxy)
        self._used = WeakSet[object]()

    async def post(
        self, url: yarl.URL, headers: Mapping[str, str], body: bytes, progress: Progress
    ) -> aiohttp.ClientResponse:
        """The head of the reply, whose body is to be read, and which is to be released in the end.
        Raises what aiohttp has for a failure: ClientError, OSError or, when no connection could be
        made in time, TimeoutError."""
        request = _Request(
            "POST", url, headers={**headers, "Content-Length": str(len(body))},
            loop=self._loop, proxy=self._proxy,
        )  # fmt: skip
        connection = await self._connection(request)
        response = None
        try:
            protocol = connection.protocol
            assert protocol is not None
            protocol.set_response_params(
                read_until_eof=True,
                max_line_size=_MOST_HEADER_BYTES,
                max_field_size=_MOST_HEADER_BYTES,
                max_headers=_MOST_HEADERS,
            )
            progress.reused = protocol in self._used
            progress.sent = True
            if not progress.reused:
                self._used.add(protocol)
            response = await request.write(StreamWriter(protocol, self._loop), body)
            progress.tell_sent()
            return await response.start(connection)
        except BaseException:
            if response is not None:
                response.close()
            connection.close()
            raise

    async def _connection(self, request: "_Request") -> aiohttp.connector.Connection:
        try:
            return await self._connector.connect(request, [], _TIMEOUT)
        except TimeoutError as exc:
            raise aiohttp.ConnectionTimeoutError(
                f"Connection timeout to host {request.url}"
            ) from exc

    async def close(self) -> None:
        await self._connector.close()


class _Request(aiohttp.ClientRequest):
    """A request whose body is bytes."""

    async def write(self, writer: StreamWriter, body: bytes) -> aiohttp.ClientResponse:
        """All of it at once; a server that does not read it may answer all the same."""
        path = str(self.url) if self.proxy and not self.is_ssl() else self.url.raw_path_qs
        await writer.write_headers(f"{self.method} {path} HTTP/1.1", self.headers)
        await writer.write(body, drain=False)
        return aiohttp.ClientResponse(
            self.method, self.url, writer=None, continue100=None, timer=self._timer,
            request_info=self.request_info, traces=[], loop=self.loop,
            session=None,  # type: ignore[arg-type]  # as in aiohttp's own tests
            stream_writer=writer,
        )  # fmt: skip
