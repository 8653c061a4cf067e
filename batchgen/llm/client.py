"""Sends one request and returns whatever comes back.

The request goes over aiohttp's connections (`llm.connections`), as openai's own request machinery
costs several times the CPU. Nothing here retries, follows a redirect or raises for what a server
does: every call ends as a `Reply`, and `llm.decide` says what follows.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from batchgen.config import ModelConfig, Secrets
from batchgen.endpoints import ENDPOINTS, Endpoint
from batchgen.items import Reply
from batchgen.llm.connections import Connections, Destination, Progress, Response
from batchgen.llm.faults import (
    cut_off,
    ended_early,
    not_connected,
    timed_out,
    too_large,
)
from batchgen.llm.receive import AnswerMemory, BodyTooLargeError, ReceivedBody
from batchgen.llm.server_address import address_of
from batchgen.llm.time_limit import TimeLimit
from batchgen.shutdown import uninterrupted
from batchgen.text.json_text import sent_json

_ANSWER_HEADERS = frozenset(
    {"x-request-id"}
    | {
        f"x-ratelimit-{what}-{of}"
        for what in ("limit", "remaining", "reset")
        for of in ("requests", "tokens")
    }
)
_MOST_CHARS_OF_NO_ANSWER = 1024 * 1024


class Client:
    """Use `open_client`. Any number of calls may be in flight at once."""

    def __init__(
        self,
        destinations: Mapping[str, Destination],
        secrets: Secrets,
        timeout_s: float,
        memory: AnswerMemory | None = None,
    ) -> None:
        self._destinations = destinations
        self._secrets = secrets
        self._timeout_s = timeout_s
        self._memory = memory or AnswerMemory()

    async def complete(
        self, body: Mapping[str, Any], endpoint: Endpoint, *,
        tell_sent: Callable[[], object] = lambda: None,
    ) -> Reply:  # fmt: skip
        """POST one request to the endpoint: one HTTP request. It ends within `timeout_s` whatever
        the server does; a stream may take so long anew for each event that brings something.
        `tell_sent` is called once the request has gone out. Raises only CancelledError; then the
        request may have reached the server."""
        started_at = time.time_ns() // 1_000_000
        start = time.perf_counter()
        progress = Progress(tell_sent)
        found: dict[str, Any] = {}
        received = ReceivedBody(self._memory)
        limit = TimeLimit(self._timeout_s)
        try:
            await self._send(body, endpoint, progress, found, received, limit)
            if received.is_stream and not received.is_whole_stream:
                found |= ended_early()
        except asyncio.CancelledError:
            if not limit.is_why_it_was_cancelled():
                raise
            found |= timed_out(self._timeout_s, progress, received)
        except TimeoutError as exc:  # before OSError, which it is
            found |= not_connected(exc)
        except BodyTooLargeError as exc:
            found |= too_large(exc)
        except (aiohttp.ClientError, OSError, UnicodeError) as exc:  # the last: a bad host name
            found |= cut_off(exc, progress, answered="status" in found)
        finally:
            limit.lift()
            received.close()
        latency_ms = int((time.perf_counter() - start) * 1000)
        return Reply(started_at, latency_ms, **self._what_came(found, received, endpoint))

    async def _send(
        self, body: Mapping[str, Any], endpoint: Endpoint, progress: Progress,
        found: dict[str, Any], received: ReceivedBody, limit: TimeLimit,
    ) -> None:  # fmt: skip
        response = await self._destinations[endpoint.name].post(sent_json(body), progress)
        try:
            found["status"] = response.status
            found["headers"] = {
                name.lower(): self._secrets.hide(value) for name, value in _told(response)
            }
            is_error = not 200 <= response.status < 300
            await received.receive(
                response.content.readany, is_error=is_error, heard=limit.begin_again
            )
        finally:
            response.release()

    def _what_came(
        self, found: dict[str, Any], received: ReceivedBody, endpoint: Endpoint
    ) -> dict[str, Any]:
        """All of it without secrets. Of a stream that is whole it does not matter how it ended; of
        one that is not, what has come is kept."""
        if received.is_whole_stream:
            found = {name: found[name] for name in ("status", "headers")}
        if "fault_message" in found:
            found["fault_message"] = self._secrets.hide(found["fault_message"])
        if "fault" not in found or received.is_stream:
            text = received.text()
            # Some servers send an error with status 200.
            if found["status"] == 200 and endpoint.sign in text:
                found["body"] = self._secrets.hide_in_answer(text)
            else:
                found["body"] = self._secrets.hide(text[:_MOST_CHARS_OF_NO_ANSWER])
        return found


@asynccontextmanager
async def open_client(
    model: ModelConfig, *, timeout_s: float, memory: AnswerMemory | None = None
) -> AsyncIterator[Client]:
    """A client for any number of calls at once. Clients may share the `memory` for what they
    receive. Raises ConfigError when the key is missing or unusable, or the environment's proxy
    is."""
    address = await address_of(model)
    connections = Connections(address.proxy)
    try:
        destinations = {
            name: connections.to(address.url(one.path), address.headers)
            for name, one in ENDPOINTS.items()
        }
        yield Client(destinations, address.secrets, timeout_s, memory)
    finally:
        await uninterrupted(connections.close())


def _told(response: Response) -> Iterable[tuple[str, str]]:
    """The headers that may be of use; of an answer, few are."""
    headers = response.headers
    if response.status != 200:
        return headers.items()
    return [(name, headers[name]) for name in _ANSWER_HEADERS if name in headers]
