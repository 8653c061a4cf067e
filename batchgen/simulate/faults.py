"""Ways to answer on the wire that no plain response can. Those that answer badly do not return, but
for a stream that ends: each ends when the client is gone."""

import asyncio
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import NoReturn

from aiohttp import web

from batchgen.simulate.streams import error_event

_TRICKLE_S = 0.2
_STREAM = {"Content-Type": "text/event-stream; charset=utf-8"}
_HALVES = ("cut", "bad_json", "stream_error", "keep_alive")


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


async def hang_up(request: web.BaseRequest) -> NoReturn:
    """Close the connection, once what was written is sent."""
    if request.transport is not None:
        request.transport.close()
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
    await hang_up(request)


async def stream(
    request: web.BaseRequest, headers: Mapping[str, str], events: Sequence[bytes], kind: str,
    over_s: float,
) -> web.StreamResponse:  # fmt: skip
    """Send a stream, spread over some seconds. `kind` is how: `cut`, `bad_json` (half of an event
    at its end), `stream_error` and `keep_alive` break off in the middle, `no_done` before the last
    event; any other one sends it as it is."""
    response = web.StreamResponse(headers={**headers, **_STREAM})
    response.enable_chunked_encoding()
    await response.prepare(request)
    if kind in _HALVES or kind == "no_done":
        events = events[: len(events) // 2] if kind in _HALVES else events[:-1]
    for event in events if over_s else [b"".join(events)]:
        await asyncio.sleep(over_s / len(events))
        await response.write(event)
    if kind == "cut":
        await hang_up(request)
    elif kind == "keep_alive":
        await _keep_alive(response)
    elif kind in ("bad_json", "stream_error"):
        await response.write(error_event("simulated error")[: 20 if kind == "bad_json" else None])
    await response.write_eof()
    return response


async def _keep_alive(response: web.StreamResponse) -> NoReturn:
    while True:
        await response.write(b": keep-alive\n\n")
        await asyncio.sleep(_TRICKLE_S)
