"""Sends one request and returns whatever comes back: the only module that knows openai.

The openai package decides what a client is: the key, the base URL, the headers and the environment
variables behind them. The request itself goes over aiohttp's connections (`llm.connections`), as
openai's own request machinery costs several times the CPU. Nothing here retries, follows a redirect
or raises for what a server does: every call ends as a `Reply`, and `llm.decide` says what follows.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import yarl

from batchgen.config import (
    ModelConfig,
    Secrets,
    SentValues,
    gives_key,
    missing_variables,
    secrets_of,
)
from batchgen.endpoints import ENDPOINTS, Endpoint
from batchgen.errors import ConfigError
from batchgen.items import Reply
from batchgen.llm.connections import Connections, Destination, Progress, Response
from batchgen.llm.faults import (
    cut_off,
    ended_early,
    not_connected,
    timed_out,
    too_large,
)
from batchgen.llm.proxies import proxy_for
from batchgen.llm.receive import AnswerMemory, BodyTooLargeError, ReceivedBody
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
_HOST_THAT_NEEDS_A_KEY = "api.openai.com"


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
    key = _checked_key(model)
    proxy = proxy_for(yarl.URL(model.base_url))
    # Imported here, as it takes half a second of CPU, which other commands need not spend.
    import httpx2
    from openai import AsyncOpenAI

    # It sends nothing. With a transport of its own it would load all certificates, and fail for
    # proxies and certificate files of the environment that no call is to use.
    nothing_is_sent = httpx2.AsyncClient(transport=httpx2.AsyncBaseTransport(), trust_env=False)
    openai = AsyncOpenAI(
        api_key=key, base_url=model.base_url, max_retries=0, http_client=nothing_is_sent
    )
    headers = {
        name: value
        for name, value in {**openai.default_headers, **openai.auth_headers}.items()
        # openai marks the ones to leave out with objects of its own. The x-stainless ones describe
        # its own request machinery, which does not send here.
        if isinstance(value, str) and not name.lower().startswith("x-stainless-")
    }
    if not model.sends_api_key:
        headers.pop("Authorization", None)
    base = str(openai.base_url).rstrip("/")
    urls = {
        name: yarl.URL(f"{base}{one.path}").update_query(_sent(model.query))
        for name, one in ENDPOINTS.items()
    }
    await openai.close()
    connections = Connections(proxy)
    try:
        own = _with_own(headers, model.headers)
        destinations = {name: connections.to(url, own) for name, url in urls.items()}
        yield Client(destinations, secrets_of(model, proxy), timeout_s, memory)
    finally:
        await uninterrupted(connections.close())


def _told(response: Response) -> Iterable[tuple[str, str]]:
    """The headers that may be of use; of an answer, few are."""
    headers = response.headers
    if response.status != 200:
        return headers.items()
    return [(name, headers[name]) for name in _ANSWER_HEADERS if name in headers]


def check_settings(model: ModelConfig) -> None:
    """Raises ConfigError where `open_client` would; opens nothing."""
    _checked_key(model)
    proxy_for(yarl.URL(model.base_url))


def _sent(values: SentValues) -> dict[str, str]:
    return {name: value.text for name, value in values.items() if value is not None}


def _with_own(headers: Mapping[str, str], own: SentValues) -> dict[str, str]:
    """The user's take the place of ours, whatever their capitals; a null leaves ours out."""
    names = {name.lower() for name in own}
    return {k: v for k, v in headers.items() if k.lower() not in names} | _sent(own)


def _check_sent(model: ModelConfig) -> None:
    for where, values in (("headers", model.headers), ("query", model.query)):
        for name, variable in missing_variables(values):
            raise ConfigError(
                f"{model.place}.{where}.{name}: the environment variable {variable} is not set."
            )


def _checked_key(model: ModelConfig) -> str:
    _check_sent(model)
    if model.api_key and not (model.api_key.isascii() and model.api_key.isprintable()):
        raise ConfigError(
            f"{model.place}.api_key: has characters that no HTTP header can carry (a line break, "
            "perhaps)."
        )
    has_key = model.api_key or gives_key(model.headers)
    if not has_key and urlsplit(model.base_url).hostname == _HOST_THAT_NEEDS_A_KEY:
        raise ConfigError(
            f"{model.place}.api_key: no key. Set the environment variable "
            f"{model.api_key_variable}, or point {model.place}.base_url at a server that needs "
            "none."
        )
    return model.api_key or "none"
