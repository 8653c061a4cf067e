"""How replies are read from the wire: streams, replies of bad form, and the memory of it all."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from batchgen.endpoints import CHAT
from batchgen.items import Reason, Reply
from batchgen.llm.receive import AnswerMemory, BodyTooLargeError, ReceivedBody
from tests.kits.tcp import Serve, answering, closing, listening
from tests.unit.test_client import BODY, opened

ANSWER = (
    b'{"choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},'
    b'"finish_reason":"stop"}]}'
)
LENGTH = b"Content-Length: %d\r\n" % len(ANSWER)
CHUNKED = b"%x\r\n%s\r\n0\r\n\r\n" % (len(ANSWER), ANSWER)


def chunk(text: str = "", finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
HALF, END, DONE = chunk("Hi"), chunk("!", "stop"), b"data: [DONE]\n\n"


def stream(*events: bytes) -> bytes:
    body = b"".join(events)
    return HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body


async def reply_to(serve: Serve, timeout_s: float = 30.0) -> Reply:
    async with listening(serve) as url, opened(url, timeout_s=timeout_s) as client:
        return await client.complete(BODY, CHAT)


def content_of(reply: Reply) -> Any:
    return json.loads(reply.body or "")["choices"][0]["message"]["content"]


def ended_by(reply: Reply) -> tuple[Reason | None, str]:
    return reply.fault, reply.fault_message


# Streams


@pytest.mark.parametrize(
    "raw",
    [
        stream(HALF, END, DONE),
        stream(b": OPENROUTER PROCESSING\n\n", HALF, END, DONE),
        stream(HALF, END),  # transformers serve
        stream(HALF, chunk("!"), DONE),
        stream(HALF, END, DONE).replace(b"text/event-stream", b"application/json"),
    ],
)
async def test_a_stream_that_comes_is_read_though_nobody_asked_for_one(raw: bytes) -> None:
    reply = await reply_to(answering(raw))
    assert (reply.status, reply.fault, content_of(reply)) == (200, None, "Hi!")


async def test_json_with_the_type_of_a_stream_is_json() -> None:
    reply = await reply_to(answering(HEAD + LENGTH + b"\r\n" + ANSWER))
    assert (reply.fault, reply.body) == (None, ANSWER.decode())


async def test_a_stream_whose_connection_is_closed_after_the_answer_is_whole() -> None:
    reply = await reply_to(closing(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"5b0\r\n" + END))
    assert (reply.fault, content_of(reply)) == (None, "!")


async def test_a_stream_that_is_cut_off_keeps_what_came() -> None:
    raw = stream(HALF, HALF, END).replace(b"Content-Length: ", b"Content-Length: 1")
    reply = await reply_to(closing(raw[: -len(END)]))
    assert (reply.status, reply.fault, reply.sent, reply.reused) == (
        200,
        Reason.CONNECTION,
        True,
        False,
    )
    assert content_of(reply) == "HiHi"


async def test_a_stream_that_ends_in_good_order_before_its_answer_is_cut_off() -> None:
    reply = await reply_to(answering(stream(HALF)))
    assert ended_by(reply) == (
        Reason.CONNECTION,
        "the stream ended before the answer did, without finish_reason and [DONE]",
    )
    assert content_of(reply) == "Hi"


async def test_an_error_in_mid_stream_is_in_the_body() -> None:
    error = b'data: {"error": {"message": "gone", "code": 502}}\n\n'
    reply = await reply_to(answering(stream(HALF, error)))
    assert reply.fault is None
    assert json.loads(reply.body or "")["choices"][0]["error"] == {"message": "gone", "code": 502}


async def test_an_error_instead_of_a_stream_is_brought_back_as_it_is() -> None:
    raw = stream(b'{"error": "no"}').replace(b"200 OK", b"429 Slow down")
    reply = await reply_to(answering(raw))
    assert (reply.status, reply.body, reply.fault) == (429, '{"error": "no"}', None)


async def test_the_connection_is_used_again_after_a_stream() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answering(stream(HALF, END, DONE))(reader, writer)
        await reader.readexactly(len(json.dumps(BODY, ensure_ascii=False)))
        await answering(stream(END))(reader, writer)

    async with listening(serve) as url, opened(url) as client:
        replies = [await client.complete(BODY, CHAT) for _ in range(2)]
    assert list(map(content_of, replies)) == ["Hi!", "!"]


@asynccontextmanager
async def sending(*parts: bytes, every_s: float) -> AsyncIterator[str]:
    """A server that sends a head, the parts one after another and then the last one for ever."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD + b"Connection: close\r\n\r\n")
        for part in [*parts, *[parts[-1]] * 1000]:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(every_s)

    async with listening(serve) as url:
        yield url


async def reply_to_parts(*parts: bytes, every_s: float, timeout_s: float) -> Reply:
    async with (
        sending(*parts, every_s=every_s) as url,
        opened(url, timeout_s=timeout_s) as client,
    ):
        return await client.complete(BODY, CHAT)


async def test_the_time_counts_from_the_last_event_that_brings_something() -> None:
    parts = [*[HALF] * 5, END, DONE]
    reply = await reply_to_parts(*parts, every_s=0.2, timeout_s=0.7)
    assert (reply.fault, content_of(reply)) == (None, "Hi" * 5 + "!")
    assert reply.latency_ms > 1000


@pytest.mark.parametrize("nothing", [b": keep-alive\n\n", chunk(), b"data: {}\n\n"])
async def test_a_server_that_keeps_alive_for_ever_and_says_nothing_is_given_up(
    nothing: bytes,
) -> None:
    reply = await reply_to_parts(HALF, nothing, every_s=0.05, timeout_s=0.5)
    assert ended_by(reply) == (Reason.TIMEOUT, "nothing more of the answer within 0.5 s")
    assert content_of(reply) == "Hi"


async def test_after_the_last_event_the_end_is_not_waited_for_long() -> None:
    reply = await reply_to_parts(HALF, END, DONE, b": bye\n\n", every_s=0.01, timeout_s=60)
    assert (reply.fault, content_of(reply)) == (None, "Hi!")
    assert reply.latency_ms < 10_000


# Replies of bad form


@pytest.mark.parametrize(
    "head",
    [
        b"200 OK\r\nX: " + b"x" * 9000 + b"\r\n" + LENGTH,
        b"200 OK\r\nX: " + b"x" * 90_000 + b"\r\n" + LENGTH,
        b"200 OK\r\n" + b"".join(b"X-%d: 1\r\n" % n for n in range(500)) + LENGTH,
        b"200\r\n" + LENGTH,
        b"200 \r\n" + LENGTH,
        b"200 OK\r\nX: a\r\n  folded\r\n" + LENGTH,
        b"200 OK\r\nX: \xe9\xff \x01\r\n" + LENGTH,
        b"200 OK\r\nSet-Cookie: \x7f=;;\r\n" + LENGTH,
        b"200 OK\r\nContent-Encoding: utf-8\r\n" + LENGTH,
        b'200 OK\r\nContent-Type: ;;charset="\r\n' + LENGTH,
        b"100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n" + LENGTH,
        b"103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\n" + LENGTH,
        b"102 Processing\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\n" + LENGTH,
    ],
    ids=range(13),
)
async def test_a_head_of_odd_form_is_read_as_others_read_it(head: bytes) -> None:
    reply = await reply_to(answering(b"HTTP/1.1 " + head + b"\r\n" + ANSWER))
    assert (reply.status, reply.fault, reply.body) == (200, None, ANSWER.decode())


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (LENGTH + b"Transfer-Encoding: chunked", "Transfer-Encoding can't be present"),
        (b"Transfer-Encoding: chunked\r\n" + LENGTH.strip(), "Content-Length can't be present"),
        (LENGTH + b"Content-Length: 5", "Duplicate Content-Length"),
        (b"Content-Length: ten", "Invalid character in Content-Length"),
        (LENGTH + b"X: a\0b", "Invalid HTTP header"),
        (LENGTH + b"no colon", "Invalid header token"),
        (LENGTH + b"X: " + b"x" * 200_000, "Got more than 100000 bytes when reading"),
        (LENGTH + b"\r\n".join(b"X: %d" % n for n in range(3000)), "Too many headers received"),
        (LENGTH + b"Content-Encoding: br", "Can not decode content-encoding: brotli"),
    ],
    ids=range(9),
)
async def test_an_answer_that_cannot_be_read_is_no_server_that_was_down(
    head: bytes, said: str
) -> None:
    """It may have been paid for."""
    reply = await reply_to(answering(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n" + CHUNKED))
    assert (reply.fault, reply.sent, reply.reused) == (Reason.BAD_RESPONSE, True, False)
    assert said in reply.fault_message


# Memory

MEGABYTE = 1024 * 1024


def pieces(parts: Sequence[bytes]) -> Callable[[], Awaitable[bytes]]:
    left = iter(parts)

    async def read() -> bytes:
        await asyncio.sleep(0)
        return next(left, b"")

    return read


async def receive(memory: AnswerMemory, parts: Sequence[bytes], *, is_error: bool = False) -> str:
    body = ReceivedBody(memory)
    try:
        await body.receive(pieces(parts), is_error=is_error, heard=lambda _: None)
        return body.text()
    finally:
        body.close()


async def test_more_bodies_than_there_is_memory_for_come_whole_one_after_another() -> None:
    memory = AnswerMemory(300)
    texts = await asyncio.gather(*[receive(memory, [b"x" * 100] * 10) for _ in range(20)])
    assert texts == ["x" * 1000] * 20
    assert memory.left == 300


async def test_one_body_has_the_turn_while_the_memory_is_used_up() -> None:
    memory, lowest, largest = AnswerMemory(300), 300, 1000

    async def watch() -> None:
        nonlocal lowest
        while True:
            lowest = min(lowest, memory.left)
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    await asyncio.gather(*[receive(memory, [b"x" * 100] * 10) for _ in range(20)])
    watching.cancel()
    assert -largest <= lowest < 0


async def test_a_call_that_waits_for_memory_can_be_cancelled() -> None:
    memory = AnswerMemory(300)
    first, second = ReceivedBody(memory), ReceivedBody(memory)
    await first.receive(pieces([b"x" * 400]), is_error=False, heard=lambda _: None)
    waiting = asyncio.create_task(
        second.receive(pieces([b"x" * 400]), is_error=False, heard=lambda _: None)
    )
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    second.close()
    first.close()
    assert await receive(memory, [b"x" * 400]) == "x" * 400


@pytest.mark.slow
async def test_a_body_larger_than_any_answer_is_given_up() -> None:
    memory = AnswerMemory()
    with pytest.raises(BodyTooLargeError, match="larger than 67108864 bytes"):
        await receive(memory, [b" " * 10, *[b"x" * MEGABYTE] * 65])
    with pytest.raises(BodyTooLargeError):
        await receive(memory, [b"\n" * MEGABYTE] * 65)
    with pytest.raises(BodyTooLargeError):  # an event without end
        await receive(memory, [b"data: ", *[b"x" * MEGABYTE] * 65])
    with pytest.raises(BodyTooLargeError):
        await receive(memory, [chunk("x" * MEGABYTE)] * 65)


async def test_of_an_error_the_beginning_is_kept() -> None:
    text = await receive(AnswerMemory(), [b"x" * MEGABYTE] * 65, is_error=True)
    assert len(text) < 3 * MEGABYTE


@pytest.mark.slow
async def test_what_is_not_kept_of_a_stream_needs_no_memory() -> None:
    comments = (b": " + b"x" * 10_000 + b"\n\n") * 100
    assert json.loads(await receive(AnswerMemory(), [comments] * 100 + [END]))
    with pytest.raises(BodyTooLargeError):
        await receive(AnswerMemory(), [comments] * 300)
    first = receive(AnswerMemory(), [b"\n" * MEGABYTE] * 50 + [ANSWER])
    assert await first == ANSWER.decode()


async def test_a_gzip_bomb_is_given_up_and_holds_nobody_up() -> None:
    bomb = gzip.compress(b" " * 10 + b"x" * (80 * MEGABYTE))
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    reply = await reply_to(answering(head + bomb))
    assert ended_by(reply) == (
        Reason.BAD_RESPONSE,
        "the answer is larger than 67108864 bytes",
    )
