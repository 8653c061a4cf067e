"""The port, and what is spoken there before a request has come to any page."""

import asyncio
import errno
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from batchgen.errors import BatchgenError, UsageError
from batchgen.web.guard import HEADERS

_PORT = 8777
_PORTS_TRIED = 100
_SHUTDOWN_S = 0.3
_SILENCE_S = 60  # after which a connection is closed on which no request comes, or half of one
_WORDS = {400: "This is no request that can be read.\n", 500: "This did not work.\n"}


def listen(port: int | None) -> socket.socket:
    """On this machine only: who is far away comes through ssh -L. None: the usual port, or the next
    that is free. Raises BatchgenError."""
    ports = range(_PORT, _PORT + _PORTS_TRIED) if port is None else (port,)
    for number in ports:
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", number))
            listening.listen(128)
        except OSError as exc:
            listening.close()
            if exc.errno != errno.EADDRINUSE:
                raise BatchgenError(f"cannot listen on port {number}: {exc.strerror}.") from exc
        else:
            return listening
    which = f"port {port} is" if port is not None else f"ports {_PORT} to {ports[-1]} are"
    raise UsageError(f"{which} in use; choose another one.")


@asynccontextmanager
async def answering(
    app: web.Application, listening: socket.socket, say: Callable[[str], None]
) -> AsyncIterator[None]:
    """`app` answers on the socket while one is inside; `say` is told of faults of our own."""
    runner = web.AppRunner(app, handle_signals=False, shutdown_timeout=_SHUTDOWN_S)
    await runner.setup()
    manager, loop, logger = runner.server, asyncio.get_running_loop(), _logger(say)
    if manager is None:
        raise RuntimeError("a server that was set up is not there")

    def protocol() -> web.RequestHandler:
        return _Protocol(
            manager, loop=loop, logger=logger, keepalive_timeout=_SILENCE_S,
            access_log=None,  # type: ignore[arg-type]  # it would have the token
            auto_decompress=False,  # no browser packs a form, and little can become much
        )  # fmt: skip

    server = await loop.create_server(protocol, sock=listening)
    try:
        yield
    finally:
        server.close()
        await runner.cleanup()


class _Protocol(web.RequestHandler):
    """What is no HTTP comes to no page and no guard. It is answered as all else: with our headers,
    and with nothing of what was sent, which may have been a cookie."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002
    ) -> web.StreamResponse:
        if status >= 500:
            self.log_exception("an answer could not be made", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("a part of the answer was sent")
        response = web.Response(status=status, text=_WORDS.get(status, _WORDS[500]))
        response.headers.update(HEADERS)
        response.force_close()
        return response


class _Faults(logging.Handler):
    """What is wrong with what strangers send is nobody's to read."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        fault = record.exc_info[1] if record.exc_info else None
        if not isinstance(fault, (HttpProcessingError, web.RequestPayloadError)):
            self._say(f"error: {record.getMessage()}: {fault!r}, please report it.")


def _logger(say: Callable[[str], None]) -> logging.Logger:
    """One of this server's own, which stands in no tree."""
    logger = logging.Logger("batchgen.web", logging.WARNING)  # noqa: LOG001
    logger.addHandler(_Faults(say))
    return logger
