"""A fast model server that keeps a ledger: how often each item was asked, and answered in full.

    python -m bench.peers.server --latency 0.05 --cpu 0

Beside `bench.server`, whose answers it gives, it reads the item's number out of each prompt, sees
calls whose client went away, and kills a process group on time, so that a client dies at an exact
place. It can refuse a share of the calls, as busy servers do: a 429 at once, without Retry-After.
Prints its port. `GET /ledger` tells, `GET /reset` begins anew, `GET /kill/<group>/<answers>` arms,
`GET /refuse/<share>` refuses from then on until the next reset.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from bench.server import completion, response

_ANSWER_BYTES = 1000
_BLANK_LINE = b"\r\n\r\n"
_BEFORE_NUMBER = rb"\n\n"  # the line break in the prompt, as JSON writes it; see bench.job
_REFUSAL = response(
    b'{"error": {"message": "Rate limit reached for requests", "type": "requests", "param": null,'
    b' "code": "rate_limit_exceeded"}}',
    status=b"429 Too Many Requests",
)


@dataclass
class Ledger:
    """Instants are of the clock of time.monotonic_ns, which all processes share."""

    asked: Counter[int] = field(default_factory=Counter)
    answered: Counter[int] = field(default_factory=Counter)
    answers: int = 0
    other_calls: int = 0
    cut_off: int = 0
    refused: int = 0
    refuse_share: float = 0
    in_flight: int = 0
    most_in_flight: int = 0
    first_request_ns: int = 0
    last_answer_ns: int = 0
    kill_group: int = 0
    kill_at_answers: int = 0

    def ask(self, item: int) -> None:
        self.first_request_ns = self.first_request_ns or time.monotonic_ns()
        self.asked[item] += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)

    def answer(self, item: int) -> None:
        self.last_answer_ns = time.monotonic_ns()
        self.answered[item] += 1
        self.answers += 1
        self.in_flight -= 1
        if self.answers == self.kill_at_answers:
            os.killpg(self.kill_group, signal.SIGKILL)

    def refuse(self) -> None:
        self.refused += 1
        self.in_flight -= 1

    def lose(self) -> None:
        self.cut_off += 1
        self.in_flight -= 1

    def told(self) -> dict[str, int]:
        """Cut off: asked, and the client went away before the answer."""
        return {
            "items_answered": len(self.answered),
            "answers": self.answers,
            "answered_again": self.answers - len(self.answered),
            "asked_again": self.asked.total() - len(self.asked),
            "cut_off": self.cut_off,
            "refused": self.refused,
            "in_flight": self.in_flight,
            "most_in_flight": self.most_in_flight,
            "other_calls": self.other_calls,
            "first_request_ns": self.first_request_ns,
            "last_answer_ns": self.last_answer_ns,
        }


@dataclass
class Desk:
    """What all connections share. With a `spread` calls don't go in step: a kill in the moment when
    all of them are answered at once would say little."""

    latency_s: float
    spread: float
    answer: bytes
    ledger: Ledger = field(default_factory=Ledger)


class Connection(asyncio.Protocol):
    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._waiting: set[asyncio.TimerHandle] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        for timer in self._waiting:
            timer.cancel()
            self._desk.ledger.lose()
        self._waiting.clear()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (head := self._buffer.find(_BLANK_LINE)) >= 0:
            body = head + len(_BLANK_LINE)
            end = body + _content_length(self._buffer[:head])
            if len(self._buffer) < end:
                return
            request, self._buffer = self._buffer[:end], self._buffer[end:]
            if request.startswith(b"GET "):
                self._tell(request.split(maxsplit=2)[1].decode())
            else:
                self._take(request[body:])

    def _take(self, body: bytes) -> None:
        item = _item_number(body)
        if item is None:  # such as Curator's question for rate limits
            self._desk.ledger.other_calls += 1
            self._transport.write(self._desk.answer)
            return
        self._desk.ledger.ask(item)
        if random.random() < self._desk.ledger.refuse_share:
            self._transport.write(_REFUSAL)
            self._desk.ledger.refuse()
            return
        timer: asyncio.TimerHandle

        def send() -> None:
            self._waiting.discard(timer)
            self._transport.write(self._desk.answer)
            self._desk.ledger.answer(item)

        share = 1 + self._desk.spread * random.uniform(-1, 1)
        timer = self._loop.call_later(self._desk.latency_s * share, send)
        self._waiting.add(timer)

    def _tell(self, path: str) -> None:
        match path.strip("/").split("/"):
            case ["reset"]:
                self._desk.ledger = Ledger()
            case ["kill", group, answers]:
                self._desk.ledger.kill_group = int(group)
                self._desk.ledger.kill_at_answers = int(answers)
            case ["refuse", share]:
                self._desk.ledger.refuse_share = float(share)
        told: dict[str, Any] = self._desk.ledger.told()
        self._transport.write(response(json.dumps(told).encode()))


def _content_length(head: bytes) -> int:
    at = head.lower().find(b"\r\ncontent-length:")
    return 0 if at < 0 else int(head[at + 17 :].split(b"\r\n", 1)[0])


def _item_number(body: bytes) -> int | None:
    number = body.partition(_BEFORE_NUMBER)[2].partition(b" ")[0]
    return int(number) if number.isdigit() else None


async def serve(latency_s: float, spread: float) -> None:
    """On a free port of loopback, which is printed; until killed."""
    desk = Desk(latency_s, spread, completion(_ANSWER_BYTES))
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(desk), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency", type=float, default=0.05, help="seconds")
    parser.add_argument("--spread", type=float, default=0.5, help="more or less, as a share")
    parser.add_argument("--cpu", type=int, help="the one core to run on")
    given = parser.parse_args()
    if given.cpu is not None:
        os.sched_setaffinity(0, {given.cpu})
    asyncio.run(serve(given.latency, given.spread))


if __name__ == "__main__":
    main()
