"""POSTs over aiohttp's connections: its connector, messages and parser, without its session.

What a session does for each request (redirects, cookies, hooks, bodies of any kind) is of no use
here, and takes as much CPU as the rest of a request; so does the task in which it writes a body.
Here the body is in memory, and goes out in one piece with the headers, which are the same for all
requests to a URL and made once. So a redirect is a reply as any other, as following it could carry
the key to another host; and no cookie binds all calls to one machine behind a load balancer.
"""

import asyncio
from collections.abc import Callable, Mapping
from weakref import WeakSet

import aiohttp
import yarl
from aiohttp.http import HttpProcessingError, RawResponseMessage
from aiohttp.http_writer import _serialize_headers

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


class Response:
    """The head of a reply, and its body, which is to be read. To be released in the end."""

    __slots__ = ("_connection", "content", "headers", "status")

    def __init__(
        self, message: RawResponseMessage, content: aiohttp.StreamReader,
        connection: aiohttp.connector.Connection,
    ) -> None:  # fmt: skip
        self.status = message.code
        self.headers = message.headers
        self.content = content
        self._connection = connection

    def release(self) -> None:
        """The connection is of use again if the body was read to its end, and else is closed."""
        self._connection.release()


class Connections:
    """Any number, which are kept alive; to be closed in the end. A `proxy` is told nothing of what
    is sent to the server."""

    def __init__(self, proxy: str | None) -> None:
        self._connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60)
        self._proxy = None if proxy is None else yarl.URL(proxy)
        self._used = WeakSet[object]()

    def to(self, url: yarl.URL, headers: Mapping[str, str]) -> "Destination":
        """For all requests with these headers to the URL."""
        loop = asyncio.get_running_loop()
        request = aiohttp.ClientRequest("POST", url, headers=headers, loop=loop, proxy=self._proxy)
        return Destination(request, self._connector, self._used)

    async def close(self) -> None:
        await self._connector.close()


class Destination:
    """A URL, to which any number of requests go that differ by their bodies alone."""

    def __init__(
        self, request: aiohttp.ClientRequest, connector: aiohttp.BaseConnector,
        used: WeakSet[object],
    ) -> None:  # fmt: skip
        self._request = request
        self._connector = connector
        self._used = used
        self._head = b""

    async def post(self, body: bytes, progress: Progress) -> Response:
        """The head of the reply. Raises what aiohttp has for a failure: ClientError, OSError or,
        when no connection could be made in time, TimeoutError."""
        connection = await self._connection()
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
            self._write(body, protocol.transport)
            progress.tell_sent()
            while True:
                message, content = await protocol.read()
                if not _is_interim(message.code):
                    return Response(message, content, connection)
        except HttpProcessingError as exc:
            connection.close()
            raise aiohttp.ClientResponseError(
                self._request.request_info, (),
                status=exc.code, message=exc.message, headers=exc.headers,
            ) from exc  # fmt: skip
        except BaseException:
            connection.close()
            raise

    async def _connection(self) -> aiohttp.connector.Connection:
        try:
            return await self._connector.connect(self._request, [], _TIMEOUT)
        except TimeoutError as exc:
            raise aiohttp.ConnectionTimeoutError(
                f"Connection timeout to host {self._request.url}"
            ) from exc

    def _write(self, body: bytes, transport: asyncio.Transport | None) -> None:
        """All of it at once; a server that does not read it may answer all the same."""
        if transport is None or transport.is_closing():
            raise aiohttp.ClientConnectionResetError("Cannot write to closing transport")
        if not self._head:  # now, as the connector adds what a proxy wants to be told
            self._head = _head_of(self._request)
        transport.write(b"%b%d\r\n\r\n%b" % (self._head, len(body), body))


def _head_of(request: aiohttp.ClientRequest) -> bytes:
    """All that goes before a body, up to its length."""
    to_proxy = request.proxy and not request.is_ssl()
    path = str(request.url) if to_proxy else request.url.raw_path_qs
    headers = request.headers.copy()
    headers.popall("Content-Length", None)
    serialized: bytes = _serialize_headers(f"{request.method} {path} HTTP/1.1", headers)
    return serialized.removesuffix(b"\r\n") + b"Content-Length: "


def _is_interim(status: int) -> bool:
    """Whether the reply itself is still to come."""
    return 100 <= status < 200 and status != 101
