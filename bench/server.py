"""A model server that costs far less than any client of it: the other end of every benchmark.

    python -m bench.server --latency-ms 50 --cpu 0

One asyncio.Protocol that reads no JSON and answers each chat completion with bytes made beforehand,
`latency_ms` after the request is whole. Prints its port; `GET /stats` tells what it saw, and
`GET /reset` begins to count anew. `bench.project.serving` runs it.
"""

import argparse
import asyncio
import json
import os
import random
import time
from dataclasses import asdict, dataclass

_BLANK_LINE = b"\r\n\r\n"


@dataclass
class Stats:
    """`first_request_ns` is of the clock of time.monotonic_ns, which all processes share."""

    requests: int = 0
    first_request_ns: int = 0
    held_s: float = 0.0
    cpu_s: float = 0.0


@dataclass(frozen=True)
class Behaviour:
    """Waits `latency_s`, more or less by the share `spread`; each `big_every`th answer (0: none) is
    the big one."""

    latency_s: float
    spread: float
    answer: bytes
    big_every: int
    big_answer: bytes


def completion(text_bytes: int) -> bytes:
    """The whole HTTP response with an answer of this many bytes, `<draft>` round its text."""
    words = ("A plain answer, as a model would write it, with a line break\nand a quote \"now\". "
             * (text_bytes // 70 + 1))  # fmt: skip
    text = f"<draft>{words[: max(0, text_bytes - 15)]}</draft>"
    body = json.dumps({
        "id": "chatcmpl-0123456789abcdef", "object": "chat.completion", "created": 1764000000,
        "model": "simulated",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text,
                     "refusal": None}, "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 130, "completion_tokens": text_bytes // 4,
                  "total_tokens": 130 + text_bytes // 4},
    }).encode()  # fmt: skip
    return response(body)


def response(body: bytes, status: bytes = b"200 OK") -> bytes:
    return (
        b"HTTP/1.1 %b\r\ncontent-type: application/json\r\nx-request-id: req-0123456789\r\n"
        b"content-length: %d\r\n\r\n%b" % (status, len(body), body)
    )


class Connection(asyncio.Protocol):
    def __init__(self, behaviour: Behaviour, stats: Stats) -> None:
        self._behaviour = behaviour
        self._stats = stats
        self._loop = asyncio.get_running_loop()
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (head := self._buffer.find(_BLANK_LINE)) >= 0:
            length = _content_length(self._buffer[:head])
            end = head + len(_BLANK_LINE) + length
            if len(self._buffer) < end:
                return
            request, self._buffer = self._buffer[:end], self._buffer[end:]
            if request.startswith(b"GET "):
                self._tell(request.split(maxsplit=2)[1])
            else:
                self._answer()

    def _answer(self) -> None:
        stats, behaviour = self._stats, self._behaviour
        stats.requests += 1
        now_s = time.monotonic()
        if stats.requests == 1:
            stats.first_request_ns = time.monotonic_ns()
        big = behaviour.big_every and stats.requests % behaviour.big_every == 0
        answer = behaviour.big_answer if big else behaviour.answer
        if behaviour.latency_s == 0:
            self._transport.write(answer)
            return
        latency_s = behaviour.latency_s
        if behaviour.spread:
            latency_s *= 1 + behaviour.spread * (2 * random.random() - 1)
        self._loop.call_later(latency_s, self._send, answer, now_s)

    def _send(self, answer: bytes, since_s: float) -> None:
        self._stats.held_s += time.monotonic() - since_s
        self._transport.write(answer)

    def _tell(self, path: bytes) -> None:
        if path == b"/reset":
            for name, zero in asdict(Stats()).items():
                setattr(self._stats, name, zero)
        self._stats.cpu_s = time.process_time()
        self._transport.write(response(json.dumps(asdict(self._stats)).encode()))


def _content_length(head: bytes) -> int:
    at = head.lower().find(b"\r\ncontent-length:")
    return 0 if at < 0 else int(head[at + 17 :].split(b"\r\n", 1)[0])


async def serve(behaviour: Behaviour) -> None:
    """On a free port of loopback, which is printed; until killed."""
    stats = Stats()
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(behaviour, stats), "127.0.0.1", 0, backlog=4096
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cpu", type=int, help="the one core to run on")
    parser.add_argument("--latency-ms", type=float, default=0)
    parser.add_argument("--spread", type=float, default=0)
    parser.add_argument("--answer-bytes", type=int, default=1000)
    parser.add_argument("--big-every", type=int, default=0)
    parser.add_argument("--big-bytes", type=int, default=1_000_000)
    given = parser.parse_args()
    if given.cpu is not None:
        os.sched_setaffinity(0, {given.cpu})
    behaviour = Behaviour(
        given.latency_ms / 1000, given.spread, completion(given.answer_bytes),
        given.big_every, completion(given.big_bytes) if given.big_every else b"",
    )  # fmt: skip
    asyncio.run(serve(behaviour))


if __name__ == "__main__":
    main()
