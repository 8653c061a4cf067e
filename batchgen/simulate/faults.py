"""Ways to answer a request badly on the wire. None of them returns: each ends when the client is
gone."""

import asyncio
import socket
import struct
from collections.abc import Mapping
from typing import NoReturn

from aiohttp import web

_TRICKLE_S = 0.2


async def until_disconnected() -> NoReturn:
    """Wait until the connection is gone, when aiohttp cancels the handler."""
    await asyncio.Event().wait()
    raise AssertionError("nothing sets this event")


async def reset(request: web.BaseRequest) -> NoReturn:
    """Reset the connection (RST) before any answer."""
    if request.transport is not None:
        # Lingering for zero seconds makes the close an RST instead of a FIN.
        connection = request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
    await until_disconnected()


async def trickle(request: web.BaseRequest, headers: Mapping[str, str]) -> NoReturn:
    """Send an answer that never ends, a byte at a time."""
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    while True:
        # White space may precede JSON, so no client can know that nothing will follow.
        await response.write(b" ")
        await asyncio.sleep(_TRICKLE_S)


async def cut(request: web.BaseRequest, headers: Mapping[str, str], body: bytes) -> NoReturn:
    """Close the connection in the middle of the body."""
    response = web.StreamResponse(headers={**headers, "Content-Length": str(len(body))})
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.close()
    await until_disconnected()
