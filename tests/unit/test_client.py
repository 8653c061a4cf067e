"""The client against real servers, good and bad ones, on loopback."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yarl
from msgspec.structs import replace
from openai import AsyncOpenAI

from batchgen.config import ModelConfig, load
from batchgen.endpoints import CHAT
from batchgen.errors import ConfigError
from batchgen.items import Reason, Reply
from batchgen.llm.client import Client, open_client
from batchgen.llm.proxies import proxy_for
from batchgen.llm.server_address import check_settings
from batchgen.simulate import Behaviour, Simulator
from batchgen.simulate.server import Received
from tests.kits.project import KEY
from tests.kits.tcp import answering, listening, silence

ENV = {"OPENAI_API_KEY": KEY, "TOKEN": "t0ken-0123456789"}
BODY = {"model": "m-1", "messages": [{"role": "user", "content": "Hello"}]}
MEGABYTE = 1024 * 1024


@asynccontextmanager
async def opened(
    base_url: str, *, key: str | None = KEY, slots: int = 4, timeout_s: float = 30.0
) -> AsyncIterator[Client]:
    model = ModelConfig(base_url=base_url, api_key=key)
    async with open_client(model, timeout_s=timeout_s) as client:
        yield client


@pytest.fixture
async def client(simulator: Simulator) -> AsyncIterator[Client]:
    async with opened(simulator.base_url) as client:
        yield client


async def unused_url() -> str:
    """The URL of a server that has gone."""
    async with listening(silence) as url:
        return url


def fault_of(reply: Reply) -> Reply:
    """The reply without what differs from run to run; its message is checked to say something."""
    assert reply.fault_message
    assert KEY not in reply.fault_message
    return replace(reply, started_at=0, latency_ms=0, headers={}, fault_message="")


def fault(reason: Reason, **more: Any) -> Reply:
    return Reply(0, 0, fault=reason, **more)


# What is sent


async def test_one_call_is_one_request_with_the_body_as_it_is(
    client: Client, simulator: Simulator
) -> None:
    body = {**BODY, "temperature": 0.5, "messages": [{"role": "user", "content": 'Grüße\0"東京"'}]}
    reply = await client.complete(body, CHAT)
    (request,) = simulator.requests
    assert (request.path, request.body) == ("/v1/chat/completions", body)
    assert (reply.status, reply.fault, reply.sent, reply.reused) == (200, None, True, False)
    assert json.loads(reply.body or "")["object"] == "chat.completion"
    assert reply.headers.keys() <= {"x-request-id"}  # of an answer nothing else is of use
    assert reply.headers["x-request-id"].startswith("req_")
    assert simulator.calls == 1


async def test_the_headers_are_openais_with_the_key(client: Client, simulator: Simulator) -> None:
    await client.complete(BODY, CHAT)
    headers = simulator.requests[0].headers
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert headers["Content-Type"] == "application/json"
    assert headers["User-Agent"].startswith("AsyncOpenAI/Python ")
    assert not any(name.lower().startswith("x-stainless") for name in headers)


async def test_organization_and_project_come_from_the_environment_as_openai_reads_it(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-1")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://elsewhere.invalid/v1")
    async with opened(simulator.base_url) as client:
        await client.complete(BODY, CHAT)
    headers = simulator.requests[0].headers
    assert (headers["OpenAI-Organization"], headers["OpenAI-Project"]) == ("org-1", "proj-1")


async def test_without_a_key_none_is_sent_not_even_the_environments(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)  # the config decides whether that is the key
    async with opened(simulator.base_url, key=None) as client:
        reply = await client.complete(BODY, CHAT)
    assert reply.status == 200
    assert "Authorization" not in simulator.requests[0].headers


async def received(simulator: Simulator, tmp_path: Path, **model: Any) -> Received:
    """The request that a call makes, with these settings of the section `model`."""
    settings = {"base_url": simulator.base_url, **model}
    config = load(None, env=ENV, overrides=settings, cwd=tmp_path)
    async with open_client(config.model, timeout_s=30) as client:
        assert (await client.complete(BODY, CHAT)).status == 200
    return simulator.requests[-1]


async def test_headers_and_a_query_are_sent_and_take_the_place_of_ours(
    simulator: Simulator, tmp_path: Path
) -> None:
    request = await received(
        simulator, tmp_path,
        base_url=f"{simulator.base_url}/?tenant=a%26b",
        headers={"X-Title": "My run", "user-agent": "mine/1", "x-portkey-api-key": "${TOKEN}"},
        query={"api-version": "2024-10-21", "c": "d e/ü+"},
    )  # fmt: skip
    assert request.path == "/v1/chat/completions"
    assert request.query == {"tenant": "a&b", "api-version": "2024-10-21", "c": "d e/ü+"}
    assert request.headers["X-Title"] == "My run"
    assert request.headers["User-Agent"] == "mine/1"
    assert request.headers["x-portkey-api-key"] == ENV["TOKEN"]
    assert request.headers["Authorization"] == f"Bearer {KEY}"  # from OPENAI_API_KEY


@pytest.mark.parametrize(
    ("headers", "authorization"),
    [
        ({"api-key": "${TOKEN}"}, None),
        ({"API-Key": "${TOKEN}"}, None),
        ({"Authorization": "Basic ${TOKEN}"}, f"Basic {ENV['TOKEN']}"),
        ({"authorization": None}, None),
        ({"api-key": "k", "Authorization": "Bearer ${TOKEN}"}, f"Bearer {ENV['TOKEN']}"),
        ({"x-api-key": "k"}, f"Bearer {KEY}"),
    ],
)
async def test_a_key_that_is_given_as_a_header_is_the_only_one(
    simulator: Simulator,
    tmp_path: Path,
    headers: dict[str, str | None],
    authorization: str | None,
) -> None:
    request = await received(simulator, tmp_path, headers=headers)
    assert request.headers.get("Authorization") == authorization


@pytest.mark.parametrize("where", ["headers", "query"])
async def test_a_variable_that_is_not_set_is_named_where_it_is_needed(
    tmp_path: Path, where: str
) -> None:
    settings = {where: {"api-key": "${NOT_SET}"}}
    config = load(None, env={}, overrides=settings, cwd=tmp_path)
    with pytest.raises(ConfigError) as caught:
        check_settings(config.model)
    assert str(caught.value) == (
        f"model.{where}.api-key: the environment variable NOT_SET is not set."
    )


async def test_a_base_url_may_end_in_a_slash(simulator: Simulator) -> None:
    async with opened(simulator.base_url + "/") as client:
        assert (await client.complete(BODY, CHAT)).status == 200
    assert simulator.requests[0].path == "/v1/chat/completions"


async def test_a_lone_surrogate_in_a_prompt_is_sent_as_a_question_mark(
    client: Client, simulator: Simulator
) -> None:
    body = {**BODY, "messages": [{"role": "user", "content": "half \ud83d"}]}
    assert (await client.complete(body, CHAT)).status == 200
    assert simulator.ledger == {"half ?": 1}


@pytest.mark.parametrize("key", [f"{KEY}\n", "sk-\0", "sk-ü"])
async def test_a_key_that_no_header_can_carry_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        async with opened("http://127.0.0.1:1/v1", key=key):
            pass
    assert str(caught.value) == (
        "model.api_key: has characters that no HTTP header can carry (a line break, perhaps)."
    )


async def test_openai_itself_needs_a_key() -> None:
    with pytest.raises(ConfigError, match=r"^model\.api_key: no key\. Set .* OPENAI_API_KEY"):
        async with opened("https://api.openai.com/v1", key=None):
            pass


async def test_as_many_calls_as_slots_are_under_way_at_once(simulator: Simulator) -> None:
    simulator.hold()
    async with opened(simulator.base_url, slots=150) as client, asyncio.TaskGroup() as group:
        calls = [group.create_task(client.complete(BODY, CHAT)) for _ in range(150)]
        await simulator.received(150)
        simulator.release()
    assert [call.result().status for call in calls] == [200] * 150
    assert (simulator.calls, simulator.max_in_flight) == (150, 150)


# What comes back


@pytest.mark.parametrize("status", [201, 204, 400, 401, 403, 404, 408, 409, 413, 418, 422, 429,
                                    500, 502, 503, 529])  # fmt: skip
async def test_every_status_is_brought_back_with_its_body(
    client: Client, simulator: Simulator, status: int
) -> None:
    body = "" if status == 204 else '{"error": "as a text"}'
    simulator.script("Hello", Behaviour.response(status, body, headers={"Retry-After": "7"}))
    reply = await client.complete(BODY, CHAT)
    assert (reply.status, reply.body, reply.fault) == (status, body, None)
    assert reply.headers["retry-after"] == "7"
    assert simulator.calls == 1


async def test_html_with_status_200_is_brought_back_as_it_is(
    client: Client, simulator: Simulator
) -> None:
    simulator.script("Hello", "html")
    reply = await client.complete(BODY, CHAT)
    assert (reply.status, reply.body) == (200, "<html><body><h1>Welcome</h1></body></html>")


async def test_bytes_that_are_no_utf_8_are_replaced(client: Client, simulator: Simulator) -> None:
    simulator.script("Hello", Behaviour.response(200, b'"\xff\xed\xa0\x80\x00"'))
    assert (await client.complete(BODY, CHAT)).body == '"\ufffd\ufffd\ufffd\ufffd\0"'


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed_so_the_key_goes_nowhere_else(
    client: Client, simulator: Simulator, status: int
) -> None:
    async with Simulator().running() as elsewhere:
        simulator.script("Hello", Behaviour.redirect(f"{elsewhere}/chat/completions", status))
        async with aiohttp.ClientSession() as session:
            reply = await client.complete(BODY, CHAT)
            async with session.get(f"{elsewhere}/ledger") as ledger:
                told = await ledger.json()
                assert (told["calls"], told["answered"], told["items"]) == (0, 0, {})
    assert (reply.status, reply.headers["location"]) == (status, f"{elsewhere}/chat/completions")
    assert simulator.calls == 1


@pytest.mark.slow
async def test_an_answer_as_large_as_it_gets_comes_whole(
    client: Client, simulator: Simulator
) -> None:
    body = b'{"choices": "'.ljust(64 * MEGABYTE, b"x")
    simulator.script("Hello", Behaviour.response(200, body))
    reply = await client.complete(BODY, CHAT)
    assert (len(reply.body or ""), reply.fault) == (64 * MEGABYTE, None)


@pytest.mark.parametrize("status", [200, 500])
async def test_of_what_is_no_answer_the_beginning_is_kept(
    client: Client, simulator: Simulator, status: int
) -> None:
    simulator.script("Hello", Behaviour.response(status, b"x" * (8 * MEGABYTE)))
    reply = await client.complete(BODY, CHAT)
    assert (reply.body, reply.status, reply.fault) == ("x" * MEGABYTE, status, None)


async def test_a_body_without_end_is_given_up(client: Client, simulator: Simulator) -> None:
    simulator.script("Hello", Behaviour.response(200, b"x" * (64 * MEGABYTE + 1)))
    assert fault_of(await client.complete(BODY, CHAT)) == fault(Reason.BAD_RESPONSE, status=200)
    assert (await client.complete(BODY, CHAT)).status == 200


async def test_a_server_that_repeats_the_key_does_not_get_it_into_the_reply(
    client: Client, simulator: Simulator
) -> None:
    said = Behaviour.error(401, message=f"Incorrect API key provided: {KEY}.")
    simulator.script("Hello", said, Behaviour.ok(f"Your key is {KEY}"))
    replies = [await client.complete(BODY, CHAT) for _ in range(2)]
    assert [KEY in (reply.body or KEY) for reply in replies] == [False, False]
    assert "Incorrect API key provided: [API key]." in (replies[0].body or "")


@pytest.mark.parametrize("key", ["EMPTY", "ollama", "x", "id", "not-needed"])
async def test_an_answer_that_contains_what_stands_for_a_key_is_left_as_it_is(
    simulator: Simulator, key: str
) -> None:
    text = f"The list is {key}: id, x."
    simulator.script("Hello", Behaviour.ok(text))
    async with opened(simulator.base_url, key=key) as client:
        reply = await client.complete(BODY, CHAT)
    assert json.loads(reply.body or "")["choices"][0]["message"]["content"] == text


# When no answer comes


@pytest.mark.parametrize(
    ("kind", "reply"),
    [
        ("reset", fault(Reason.CONNECTION)),
        ("cut", fault(Reason.CONNECTION, status=200)),
        ("hang", fault(Reason.TIMEOUT)),
        # Each byte is in time, the whole is not.
        ("trickle", fault(Reason.TIMEOUT, status=200)),
    ],
)
async def test_an_answer_that_does_not_come_whole(
    simulator: Simulator, kind: str, reply: Reply
) -> None:
    simulator.script("Hello", kind)
    timeout_s = 1.5 if reply.fault is Reason.TIMEOUT else 30
    async with opened(simulator.base_url, timeout_s=timeout_s) as client:
        assert fault_of(await client.complete(BODY, CHAT)) == reply
    assert simulator.calls == 1


async def test_a_late_answer_is_named_by_the_time_it_had(simulator: Simulator) -> None:
    simulator.hold()
    async with opened(simulator.base_url, timeout_s=1.0) as client:
        reply = await client.complete(BODY, CHAT)
    assert reply.fault_message == "no whole answer within 1 s"


async def test_a_kept_alive_connection_that_the_server_has_closed_is_told(
    client: Client, simulator: Simulator
) -> None:
    simulator.script("Hello", "stale")
    first = await client.complete(BODY, CHAT)
    second = await client.complete(BODY, CHAT)
    third = await client.complete(BODY, CHAT)
    assert (first.status, third.status, third.reused) == (200, 200, False)
    assert fault_of(second) == fault(Reason.CONNECTION, reused=True)
    assert (simulator.calls, simulator.dropped) == (2, 1)


async def test_a_reset_after_the_answer_began_is_not_a_stale_connection(
    client: Client, simulator: Simulator
) -> None:
    simulator.script("Hello", "ok", "cut")
    await client.complete(BODY, CHAT)
    assert fault_of(await client.complete(BODY, CHAT)) == fault(Reason.CONNECTION, status=200)


async def test_a_refused_connection_was_not_sent() -> None:
    async with opened(await unused_url()) as client:
        assert fault_of(await client.complete(BODY, CHAT)) == fault(Reason.CONNECTION, sent=False)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 64 + ".invalid", "a..invalid"])
async def test_a_name_that_does_not_resolve_was_not_sent(host: str) -> None:
    async with opened(f"http://{host}/v1") as client:
        assert fault_of(await client.complete(BODY, CHAT)) == fault(Reason.CONNECTION, sent=False)


async def test_tls_to_a_port_without_tls_was_not_sent(simulator: Simulator) -> None:
    async with opened(simulator.base_url.replace("http:", "https:")) as client:
        assert fault_of(await client.complete(BODY, CHAT)) == fault(Reason.CONNECTION, sent=False)
    assert simulator.calls == 0


async def test_a_connection_that_is_not_made_in_time_was_not_sent() -> None:
    async with (
        listening(silence, scheme="https") as url,  # TLS waits for an answer that never comes
        opened(url, timeout_s=0.2) as client,
    ):
        assert fault_of(await client.complete(BODY, CHAT)) == fault(Reason.CONNECTION, sent=False)


@pytest.mark.parametrize(
    "raw",
    [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 abc\r\n\r\n", b"\0\xff" * 50_000],
)
async def test_a_server_that_does_not_speak_http_is_a_fault_of_the_connection(raw: bytes) -> None:
    async with listening(answering(raw)) as url, opened(url) as client:
        assert fault_of(await client.complete(BODY, CHAT)) == fault(Reason.CONNECTION)


async def test_a_body_in_a_broken_encoding_is_an_answer_that_cannot_be_read(
    client: Client, simulator: Simulator
) -> None:
    headers = {"Content-Encoding": "gzip"}
    simulator.script("Hello", Behaviour.response(200, "not gzip", headers=headers))
    assert fault_of(await client.complete(BODY, CHAT)) == fault(Reason.BAD_RESPONSE, status=200)


async def test_an_answer_that_is_there_when_the_time_is_over_counts() -> None:
    """As for a process that was suspended: its answers wait in the socket."""
    loop, suspended, sent = asyncio.get_running_loop(), threading.Event(), threading.Event()
    timeout_s = 0.2
    over_at = time.monotonic() + timeout_s + 0.5

    def suspend() -> None:
        suspended.set()
        sent.wait()
        while time.monotonic() < over_at:
            pass

    def serve(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(65536)
            loop.call_soon_threadsafe(suspend)
            suspended.wait()
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            sent.set()

    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        async with opened(url, timeout_s=timeout_s) as client:
            call = asyncio.create_task(client.complete(BODY, CHAT))
            await asyncio.to_thread(serve, server)
            reply = await call
    assert (reply.status, reply.body, reply.fault) == (200, "{}", None)


async def test_a_call_can_be_cancelled_and_the_next_one_works(
    client: Client, simulator: Simulator
) -> None:
    simulator.hold()
    call = asyncio.create_task(client.complete(BODY, CHAT))
    await simulator.received(1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    simulator.release()
    assert (await client.complete(BODY, CHAT)).status == 200


# Proxies


@pytest.fixture
def proxied_heads() -> list[bytes]:
    """The heads of what the proxy was asked, without the first lines."""
    return []


@pytest.fixture
async def proxy(proxied_heads: list[bytes]) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A proxy that answers 502 to everything, and the first lines of what it was asked."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        proxied_heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    async with listening(serve) as url:
        yield url.removesuffix("/v1").removeprefix("http://"), asked


URL = "http://model.invalid:8000/v1"
REQUEST = b"POST http://model.invalid:8000/v1/chat/completions HTTP/1.1\r\n"


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "ALL_PROXY"])
@pytest.mark.parametrize("form", ["http://{}", "{}", "http://user:word@{}"])
async def test_a_proxy_in_the_environment_is_used(
    proxy: tuple[str, list[bytes]], monkeypatch: pytest.MonkeyPatch, name: str, form: str
) -> None:
    place, asked = proxy
    monkeypatch.setenv(name, form.format(place))
    async with opened(URL) as client:
        reply = await client.complete(BODY, CHAT)
    assert (reply.status, asked) == (502, [REQUEST])


async def test_tls_goes_through_the_proxy_as_a_tunnel(
    proxy: tuple[str, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, asked = proxy
    monkeypatch.setenv("HTTPS_PROXY", f"http://{place}")
    async with opened("https://model.invalid/v1") as client:
        reply = await client.complete(BODY, CHAT)
    assert fault_of(reply) == fault(Reason.CONNECTION, sent=False)
    assert asked == [b"CONNECT model.invalid:443 HTTP/1.1\r\n"]


@pytest.mark.parametrize("base_url", [URL, "https://model.invalid/v1"])
@pytest.mark.parametrize("form", ["http://{}", "http://user:word@{}"])
async def test_a_proxy_is_told_its_own_password_and_never_the_key(
    proxy: tuple[str, list[bytes]], proxied_heads: list[bytes],
    monkeypatch: pytest.MonkeyPatch, base_url: str, form: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("ALL_PROXY", form.format(proxy[0]))
    async with opened(base_url) as client:
        await client.complete(BODY, CHAT)
    lines = proxied_heads[0].decode().split("\r\n")
    told = [line for line in lines if line.lower().startswith("proxy-authorization")]
    assert told == (["Proxy-Authorization: Basic dXNlcjp3b3Jk"] if "user" in form else [])
    key = [line for line in lines if KEY in line]
    assert key == ([f"Authorization: Bearer {KEY}"] if base_url is URL else [])


@pytest.mark.parametrize(
    "form",
    [
        "127.0.0.1",
        "127.0.0.1:{port}",
        "*",
        "other.invalid,127.0.0.1",
        "localhost, 127.0.0.0/8, ::1",
        "10.*,127.*",
        "[::1],<local>,127.0.0.1/32",
    ],
)
async def test_no_proxy_leaves_hosts_out(
    proxy: tuple[str, list[bytes]],
    simulator: Simulator,
    monkeypatch: pytest.MonkeyPatch,
    form: str,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://{proxy[0]}")
    monkeypatch.setenv("NO_PROXY", form.format(port=simulator.port))
    async with opened(simulator.base_url) as client:
        assert (await client.complete(BODY, CHAT)).status == 200
    assert proxy[1] == []


@pytest.mark.parametrize(
    ("host", "form"),
    [
        ("gpu-1.lan", "*.lan"),
        ("gpu-1.lan", ".lan"),
        ("gpu-1", "<local>"),
        ("192.168.1.7", "192.168.0.0/16"),
        ("[::1]", "[::1]"),
        ("[::1]", "::1/128"),
        ("GPU-1.lan", "gpu-1.LAN"),
    ],
)
def test_no_proxy_in_the_forms_that_people_paste(
    monkeypatch: pytest.MonkeyPatch, host: str, form: str
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:7890")
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:7891")
    monkeypatch.setenv("no_proxy", f"other.invalid, {form}")
    assert proxy_for(yarl.URL(f"http://{host}:8000/v1")) is None
    assert proxy_for(yarl.URL("http://example.invalid/v1")) == "http://127.0.0.1:7890"


@pytest.mark.parametrize("place", ["socks5://user:secret@127.0.0.1:1080", "ftp://127.0.0.1"])
async def test_a_proxy_of_a_kind_we_cannot_use_is_said_once_and_not_per_item(
    monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", place)
    with pytest.raises(ConfigError) as caught:
        async with opened(URL):
            pass
    scheme = place.partition(":")[0]
    assert str(caught.value) == (
        f"the environment names a {scheme} proxy; batchgen can use http and https ones. "
        "Set HTTP_PROXY or HTTPS_PROXY, or name the host in NO_PROXY."
    )


@pytest.mark.parametrize(
    "place",
    [
        "http://user:secret#1@127.0.0.1:1",
        "http://user:12#secret@127.0.0.1:1",
        "http://user:12/secret@127.0.0.1:1",
        "127.0.0.1:secret",
        "http://",
        "http://[::1",
    ],
)
async def test_a_proxy_that_cannot_be_read_is_said_without_its_password(
    monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", place)
    with pytest.raises(ConfigError, match="proxy for http is not like http://user:") as caught:
        async with opened(URL):
            pass
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "environment",
    [
        {"SSL_CERT_FILE": "/nowhere/certificates.pem"},
        {"SSL_CERT_DIR": "/nowhere"},
        {"ALL_PROXY": "socks5://127.0.0.1:1080", "NO_PROXY": "127.0.0.1"},
        {"HTTPS_PROXY": "http://user:wo#rd@127.0.0.1:1"},
    ],
    ids=str,
)
async def test_what_the_environment_says_of_other_hosts_stops_nobody(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    async with opened(simulator.base_url) as client:
        assert (await client.complete(BODY, CHAT)).status == 200


# What we rely on of the openai package


async def test_openai_still_tells_headers_and_url_as_public_properties() -> None:
    async with AsyncOpenAI(
        api_key=KEY, base_url="http://127.0.0.1/v1", organization="org-1", project="proj-1"
    ) as openai:
        headers = {**openai.default_headers, **openai.auth_headers}
        assert openai.auth_headers == {"Authorization": f"Bearer {KEY}"}
        assert str(openai.base_url) == "http://127.0.0.1/v1/"
    assert headers["OpenAI-Organization"] == "org-1"
    assert headers["OpenAI-Project"] == "proj-1"
    assert headers["Content-Type"] == "application/json"
