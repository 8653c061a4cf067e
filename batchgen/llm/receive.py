"""Receives the body of a reply, within bounds: as it is or, if it is a stream, put together.

A few kilobytes may unpack to any size, and a stream may have no end. So a body has a largest size,
and what all calls of a worker receive at a time has one, too: when that is used up, one call at a
time reads on, as each must come to its end, and the others wait for their turn. A server that sends
to one that waits is slowed down by TCP. Otherwise each chunk is taken as it comes: aiohttp forgets
what it has when the connection breaks, which may be the end of an answer.
"""

import asyncio
from collections.abc import Awaitable, Callable

from batchgen.llm.streams import Event, EventReader, StreamedBody, begins_as_stream

_MOST_BYTES = 64 * 1024 * 1024
_MOST_ERROR_BYTES = 1024 * 1024
_MOST_BYTES_AT_A_TIME = 1024 * 1024  # what has arrived packed is there without waiting for it
_MOST_STREAM_BYTES = 4 * _MOST_BYTES  # most of a stream is no answer, and is not kept


class BodyTooLargeError(Exception):
    """It was not read to its end."""


class AnswerMemory:
    """The bytes that the bodies which are being received may hold in sum; the one that has the turn
    may go beyond."""

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self.left = most_bytes
        self._turn = asyncio.Lock()

    def take_at_once(self, size: int) -> bool:
        """Whether so many bytes more may be held, without waiting."""
        may = size <= self.left
        if may:
            self.left -= size
        return may

    async def take(self, size: int, *, has_turn: bool) -> bool:
        """Wait until so many bytes more may be held. Whether the caller has the turn now, until it
        gives back what it took."""
        if size > self.left and not has_turn:
            await self._turn.acquire()
            has_turn = True
        self.left -= size
        return has_turn

    def give_back(self, size: int, *, has_turn: bool) -> None:
        self.left += size
        if has_turn:
            self._turn.release()


class ReceivedBody:
    """The body of one reply, as far as it has come. To be closed when its text is taken."""

    def __init__(self, memory: AnswerMemory) -> None:
        self._memory = memory
        self._held = 0
        self._has_turn = False
        self._kept: _Plain | _Streamed | None = None

    @property
    def is_stream(self) -> bool:
        return isinstance(self._kept, _Streamed)

    @property
    def is_whole_stream(self) -> bool:
        """Nothing of it is missing, however it ends."""
        return isinstance(self._kept, _Streamed) and self._kept.body.is_whole

    async def receive(
        self, read: Callable[[], Awaitable[bytes]], *, is_error: bool,
        heard: Callable[[bool], None],
    ) -> None:  # fmt: skip
        """Read all of it, by `read`, whose last chunk is empty; of an error no more than the
        beginning. `heard` is called when a stream has brought something of the answer, with whether
        nothing is to follow. Raises BodyTooLargeError, and what `read` raises."""
        most = _MOST_ERROR_BYTES if is_error else _MOST_BYTES
        start, received, others_ran = b"", 0, 0
        while chunk := await read():
            received += len(chunk)
            kept = self._kept
            if kept is None:
                # Some servers send empty lines before a body to keep the connection alive.
                chunk = start = (start + chunk).lstrip()
                kept = self._kept = _kept_as(start)
            if kept is not None and kept.add(chunk):
                heard(kept.is_closed)
            if received > most and self._is_too_much(received, most):
                if is_error:
                    return
                raise BodyTooLargeError(f"the answer is larger than {most} bytes")
            if kept is not None and kept.size > self._held:
                await self._hold(kept.size)
            if received > others_ran + _MOST_BYTES_AT_A_TIME:
                others_ran = received
                await asyncio.sleep(0)
        if self._kept is None:
            self._kept = _Plain()
            self._kept.add(start)
        self._kept.end()

    def text(self) -> str:
        """What has come; of a stream the body that it stands for."""
        return self._kept.text() if self._kept else ""

    def close(self) -> None:
        self._memory.give_back(self._held, has_turn=self._has_turn)
        self._held, self._has_turn = 0, False

    def _is_too_much(self, received: int, most: int) -> bool:
        if self._kept is not None and self._kept.size > most:
            return True
        return received > (_MOST_STREAM_BYTES if self.is_stream else most)

    async def _hold(self, size: int) -> None:
        more = size - self._held
        if not self._memory.take_at_once(more):
            self._has_turn = await self._memory.take(more, has_turn=self._has_turn)
        self._held = size


class _Plain:
    """A body that is kept as it comes."""

    is_closed = False

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self.size = 0

    def add(self, chunk: bytes) -> bool:
        self._chunks.append(chunk)
        self.size += len(chunk)
        return False

    def end(self) -> None:
        pass

    def text(self) -> str:
        whole, self._chunks = b"".join(self._chunks), []
        return whole.decode(errors="replace").removeprefix("\ufeff")


class _Streamed:
    """A stream, of which what its events bring is kept."""

    def __init__(self) -> None:
        self._reader = EventReader()
        self.body = StreamedBody()

    @property
    def is_closed(self) -> bool:
        return self.body.is_closed

    @property
    def size(self) -> int:
        return self.body.held_chars + self._reader.pending_chars

    def add(self, chunk: bytes) -> bool:
        """Whether it brought something of the answer."""
        return self._add(self._reader.feed(chunk))

    def end(self) -> None:
        self._add(self._reader.end())

    def text(self) -> str:
        return self.body.to_json()

    def _add(self, events: list[Event]) -> bool:
        new = False
        for event in events:
            new = (not self.body.is_closed and self.body.add(event)) or new
        return new


def _kept_as(start: bytes) -> _Plain | _Streamed | None:
    """How a body that begins so is kept; None: too little of it is there to tell."""
    is_stream = begins_as_stream(start)
    if is_stream is None:
        return None
    return _Streamed() if is_stream else _Plain()
