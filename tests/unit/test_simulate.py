"""The simulated model as a client meets it, over real HTTP."""

import asyncio
import io
import itertools
import json
import math
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from openai.types import Completion, CreateEmbeddingResponse
from openai.types.responses import Response

from batchgen.endpoints import CHAT
from batchgen.errors import BatchgenError, ConfigError
from batchgen.items import Answer, Failure, Reason, Reply
from batchgen.llm.replies import read_reply
from batchgen.llm.streams import Event, StreamedBody
from batchgen.simulate import (
    VENDOR_REPLIES,
    Behaviour,
    ErrorMix,
    Latency,
    Simulator,
    deciding,
    serve,
)
from batchgen.simulate.capacity import Outage

Client = aiohttp.ClientSession


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with aiohttp.ClientSession() as session:
        yield session


def chat(text: str, **params: Any) -> dict[str, Any]:
    return {"model": "m-1", "messages": [{"role": "user", "content": text}], **params}


async def post(client: Client, url: str, text: str, **params: Any) -> tuple[int, Any]:
    async with client.post(f"{url}/chat/completions", json=chat(text, **params)) as response:
        return response.status, await response.json()


async def content(client: Client, url: str, text: str, **params: Any) -> str:
    status, body = await post(client, url, text, **params)
    assert status == 200, body
    said = body["choices"][0]["message"]["content"]
    assert isinstance(said, str)
    return said


async def raw(client: Client, url: str, body: dict[str, Any]) -> tuple[bytes, str]:
    async with client.post(f"{url}/chat/completions", json=body) as response:
        return await response.read(), response.headers["x-request-id"]


async def statuses(client: Client, url: str, texts: list[str]) -> list[int]:
    return [(await post(client, url, text))[0] for text in texts]


async def round_trip(client: Client, url: str) -> None:
    """A round trip that is no call: lets the server get on without waiting for a time."""
    async with client.get(f"{url}/models") as response:
        await response.read()


# Answers


async def test_the_same_request_gets_the_same_bytes_from_any_server(client: Client) -> None:
    async with Simulator(seed=1).running() as one, Simulator(seed=2).running() as other:
        first = await raw(client, one, chat("hello", temperature=0.5))
        assert await raw(client, one, chat("hello", temperature=0.5)) == first
        assert await raw(client, other, chat("hello", temperature=0.5)) == first
        reordered = dict(reversed(chat("hello", temperature=0.5).items()))
        assert await raw(client, one, reordered) == first
        for different in (chat("hallo", temperature=0.5), chat("hello", temperature=0.6)):
            answer, request_id = await raw(client, one, different)
            assert answer != first[0]
            assert request_id != first[1]


async def test_an_answer_is_a_whole_chat_completion(client: Client) -> None:
    async with Simulator().running() as url:
        status, body = await post(client, url, "Tell me of whales", n=2)
        without_v1, _ = await post(client, url.removesuffix("/v1"), "hello")
    assert (status, without_v1) == (200, 200)
    first, second = (choice.pop("message") for choice in body["choices"])
    assert "Tell me of whales" in first["content"]
    assert "Tell me of whales" in second["content"]
    assert first["content"] != second["content"]
    assert first | {"content": ""} == {"role": "assistant", "content": "", "refusal": None}
    said = sum(math.ceil(len(message["content"]) / 4) for message in (first, second))
    assert body.pop("id").startswith("chatcmpl-")
    assert body == {
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "m-1",
        "choices": [{"index": i, "logprobs": None, "finish_reason": "stop"} for i in range(2)],
        "usage": {"prompt_tokens": 5, "completion_tokens": said, "total_tokens": 5 + said},
    }


async def test_the_answer_has_the_form_that_the_prompt_asks_for(client: Client) -> None:
    async with Simulator().running() as url:
        tagged = await content(client, url, "Write it between <draft> and </draft>, not <b>.")
        as_json = await content(client, url, "Answer in JSON.")
        both = await content(client, url, "JSON inside <out></out>, please")
        formatted = await content(client, url, "in <x>", response_format={"type": "json_object"})
    assert tagged.startswith("<draft>You wrote")
    assert tagged.endswith(".</draft>")
    assert "<" not in tagged[1:-8]
    assert json.loads(as_json)["quote"] == "Answer in JSON."
    assert set(json.loads(both.removeprefix("<out>").removesuffix("</out>"))) == {
        "answer",
        "quote",
        "score",
    }
    assert json.loads(formatted)["quote"] == "in x"


async def test_content_parts_and_lone_surrogates_are_understood(client: Client) -> None:
    parts = [{"type": "image_url", "image_url": {"url": "x"}}, {"type": "text", "text": "é\ud800"}]
    simulator = Simulator()
    async with simulator.running() as url:
        body = {"model": "m", "messages": [{"role": "user", "content": parts}]}
        answer, _ = await raw(client, url, body)
        async with client.get(f"{url}/ledger") as response:
            ledger = await response.json()
    assert 'You wrote "é"' in json.loads(answer)["choices"][0]["message"]["content"]
    assert ledger["items"] == {"é\ud800": 1}


async def test_a_body_of_many_megabytes_is_taken(client: Client) -> None:
    # As a file, since aiohttp's client warns of large bodies that are bytes.
    large = io.BytesIO(json.dumps(chat("x" * 8_000_000)).encode())
    async with (
        Simulator().running() as url,
        client.post(f"{url}/chat/completions", data=large) as response,
    ):
        assert response.status == 200
        assert (await response.json())["usage"]["prompt_tokens"] == 2_000_000


async def test_models_are_listed_and_other_paths_unknown(client: Client) -> None:
    async with Simulator().running() as url:
        async with client.get(f"{url}/models") as response:
            assert [model["id"] for model in (await response.json())["data"]] == ["simulated"]
        async with client.get(f"{url}/nothing") as response:
            assert response.status == 404
        async with client.post(f"{url}/moderations", json=chat("hi")) as response:
            assert response.status == 404
            assert "/v1/moderations" in (await response.json())["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"not JSON",
        b"\xff",
        b"[]",
        b'{"model": "m"}',
        b'{"messages": []}',
        b'{"messages": ["hi"]}',
        b'{"messages": [{"role": "user", "content": "hi"}], "temperature": 1e999}',
        b'{"messages":' + b"[" * 100_000,
    ],
    ids=lambda body: body[:24].decode(errors="replace") + str(len(body)),
)
async def test_a_request_that_no_server_would_take_gets_400(client: Client, body: bytes) -> None:
    simulator = Simulator(errors="500=1")
    async with (
        simulator.running() as url,
        client.post(f"{url}/chat/completions", data=body) as response,
    ):
        error = (await response.json())["error"]
    assert response.status == 400
    assert error["type"] == "invalid_request_error"
    assert simulator.calls == 1


async def test_a_wrong_key_gets_401_and_the_right_one_an_answer(client: Client) -> None:
    simulator = Simulator(api_key="sk-right")
    async with simulator.running() as url:
        for headers, expected in (
            ({}, 401),
            ({"Authorization": "Bearer sk-wrong"}, 401),
            ({"Authorization": "Bearer sk-right"}, 200),
        ):
            target = f"{url}/chat/completions"
            async with client.post(target, json=chat("hi"), headers=headers) as response:
                body = await response.json()
            assert response.status == expected
            if expected == 401:
                assert body["error"]["code"] == "invalid_api_key"
        async with client.get(f"{url}/models") as response:
            assert response.status == 401
    assert simulator.calls == 3


# Latency and errors


def test_latency_is_parsed_and_drawn() -> None:
    assert Latency.parse("0.2") == Latency("fixed", 0.2)
    assert Latency.parse("0.2").seconds(0.9) == 0.2
    assert Latency.parse("uniform:0.1:0.5").seconds(0.25) == pytest.approx(0.2)
    assert Latency.parse("lognormal:2.0:0.5").seconds(0.5) == pytest.approx(2.0)
    one_sigma = Latency.parse("lognormal:2.0:0.5").seconds(0.841344746)
    assert one_sigma == pytest.approx(2.0 * math.exp(0.5))


@pytest.mark.parametrize(
    "spec", ["", "-1", "nan", "inf", "fast", "uniform:1", "uniform:2:1", "normal:1:2", "1:2:3"]
)
def test_a_latency_that_is_not_understood_is_named(spec: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Latency.parse(spec)
    assert repr(spec) in str(caught.value)
    assert "uniform:LOW:HIGH" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ("429", "'429' must be KIND=SHARE"),
        ("429=lots", "'429=lots' must be"),
        ("429=0.1,reset=-1", "'reset=-1' must be"),
        ("429=1.5", "'429=1.5' must be"),
        ("399=0.1", "unknown kind '399' in '399=0.1'; allowed: a status from 400 to 599, reset,"),
        ("explode=0.1", "unknown kind 'explode'"),
        ("500=0.1,500=0.2", "'500' is there twice"),
        ("500=0.6,429=0.5", "add up to 1.1"),
    ],
)
def test_an_error_mix_that_is_not_understood_is_named(spec: str, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ErrorMix.parse(spec)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_error_mix_gives_each_kind_its_share() -> None:
    mix = ErrorMix.parse(" 429=0.25, reset=0.5 ,")
    assert [mix.pick(roll) for roll in (0.0, 0.24, 0.25, 0.74, 0.75, 1.0)] == [
        "429",
        "429",
        "reset",
        "reset",
        None,
        None,
    ]
    assert ErrorMix.parse("").pick(0.0) is None
    assert ErrorMix.parse(",".join(["500=0.1", "501=0.2", "502=0.7"])).pick(0.999) == "502"


async def test_errors_depend_on_seed_request_and_try_alone(client: Client) -> None:
    texts = [f"item {number}" for number in range(100)]

    async def met(seed: int) -> tuple[list[int], list[int]]:
        async with Simulator(errors="500=0.5", seed=seed).running() as url:
            first = await statuses(client, url, texts)
            return first, await statuses(client, url, texts)

    first, second = await met(seed=1)
    assert await met(seed=1) == (first, second)
    assert (await met(seed=2))[0] != first
    assert 30 < first.count(500) < 70
    assert any(pair == (500, 200) for pair in zip(first, second, strict=True))


@pytest.mark.parametrize("status", [400, 401, 429, 500, 503, 599])
async def test_a_status_comes_with_an_error_object(client: Client, status: int) -> None:
    async with Simulator(errors=f"{status}=1", retry_after_s=2.5).running() as url:
        async with client.post(f"{url}/chat/completions", json=chat("hi")) as response:
            error = (await response.json())["error"]
        assert response.status == status
        assert set(error) == {"message", "type", "param", "code"}
        waits = [response.headers.get(name) for name in ("Retry-After", "retry-after-ms")]
        assert waits == (["3", "2500"] if status == 429 else [None, None])


async def test_a_reset_is_a_reset_before_any_byte() -> None:
    async with Simulator(errors="reset=1").running() as url:
        host, port = url.removeprefix("http://").removesuffix("/v1").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        body = json.dumps(chat("hi")).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}"
        writer.write(head.encode() + b"\r\n\r\n" + body)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()


async def test_a_hanging_call_ends_when_its_client_leaves(client: Client) -> None:
    simulator = Simulator(errors="hang=1")
    async with simulator.running() as url:
        call = asyncio.create_task(post(client, url, "hi"))
        await simulator.received(1)
        assert simulator.in_flight == 1
        call.cancel()
        async with asyncio.timeout(5):
            while simulator.in_flight:
                await round_trip(client, url)
    assert simulator.answered == 0


async def test_a_trickle_never_becomes_a_body(client: Client) -> None:
    async with (
        Simulator(errors="trickle=1").running() as url,
        client.post(f"{url}/chat/completions", json=chat("hi")) as response,
    ):
        assert response.status == 200
        assert [await response.content.readexactly(1) for _ in range(3)] == [b" "] * 3
        assert not response.content.at_eof()


async def test_html_is_no_json(client: Client) -> None:
    async with (
        Simulator(errors="html=1").running() as url,
        client.post(f"{url}/chat/completions", json=chat("hi")) as response,
    ):
        assert (response.status, response.content_type) == (200, "text/html")
        assert (await response.text()).startswith("<html>")


async def test_a_cut_body_is_shorter_than_it_promised(client: Client) -> None:
    async with (
        Simulator(errors="cut=1").running() as url,
        client.post(f"{url}/chat/completions", json=chat("hi")) as response,
    ):
        assert response.status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()


async def test_bad_json_is_a_whole_body_that_stops_early(client: Client) -> None:
    async with (
        Simulator(errors="bad_json=1").running() as url,
        client.post(f"{url}/chat/completions", json=chat("hi")) as response,
    ):
        body = await response.read()
        assert (response.status, response.content_type) == (200, "application/json")
    assert body.startswith(b'{"id"')
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        json.loads(body)


async def test_answers_that_are_no_use(client: Client) -> None:
    async def body_of(kind: str) -> Any:
        async with Simulator(errors=f"{kind}=1").running() as url:
            return (await post(client, url, "hi"))[1]

    whole = (await body_of("stale"))["choices"][0]["message"]["content"]
    assert (await body_of("no_choices"))["choices"] is None
    assert (await body_of("empty"))["choices"] == []
    refusal = (await body_of("refusal"))["choices"][0]
    assert refusal["message"]["content"] is None
    assert refusal["message"]["refusal"]
    filtered = (await body_of("content_filter"))["choices"][0]
    assert (filtered["finish_reason"], filtered["message"]["content"]) == ("content_filter", "")
    prose = (await body_of("prose"))["choices"][0]
    assert prose["finish_reason"] == "stop"
    assert not re.search(r"[<>{}\[\]]", prose["message"]["content"])
    cut = (await body_of("length"))["choices"][0]
    assert cut["finish_reason"] == "length"
    assert cut["message"]["content"] == whole[: len(whole) // 2]


async def test_latency_delays_answers_but_not_refusals(client: Client) -> None:
    loop = asyncio.get_running_loop()
    simulator = Simulator(latency="0.2")
    simulator.script("", "429", "ok", Behaviour.ok(delay_s=0))
    async with simulator.running() as url:
        times = [loop.time()]
        for _ in range(3):
            await post(client, url, "hi")
            times.append(loop.time())
    refused_s, answered_s, undelayed_s = (b - a for a, b in itertools.pairwise(times))
    assert answered_s >= 0.19
    assert refused_s < 0.19
    assert undelayed_s < 0.19


async def test_over_the_rate_limit_comes_429_with_the_time_to_wait(client: Client) -> None:
    async with Simulator(rpm=6, burst=2).running() as url:
        assert await statuses(client, url, ["a", "b"]) == [200, 200]
        async with client.post(f"{url}/chat/completions", json=chat("c")) as response:
            assert response.status == 429
            wait_ms = int(response.headers["retry-after-ms"])
            assert int(response.headers["Retry-After"]) == math.ceil(wait_ms / 1000)
    # One token takes ten seconds; some of them may have passed since the bucket was full.
    assert 5_000 < wait_ms <= 10_000


@pytest.mark.parametrize(("status", "retry_after"), [(503, None), (429, "5")])
async def test_what_comes_beside_as_many_calls_as_it_takes_is_refused(
    client: Client, status: int, retry_after: str | None
) -> None:
    simulator = Simulator(latency="60", at_once=2, refuse_with=status, retry_after_s=5)
    async with simulator.running() as url:
        taken = [asyncio.create_task(post(client, url, text)) for text in "ab"]
        await simulator.received(2)
        async with client.post(f"{url}/chat/completions", json=chat("c")) as response:
            assert response.status == status
            assert response.headers.get("Retry-After") == retry_after
        await leave(taken[0])
        while simulator.in_flight > 1:
            await asyncio.sleep(0)
        taken.append(asyncio.create_task(post(client, url, "d")))
        await simulator.received(4)
        assert await statuses(client, url, ["e"]) == [status]
        assert simulator.in_flight == 2
        await asyncio.gather(*map(leave, taken[1:]))


async def leave(call: "asyncio.Task[Any]") -> None:
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


def test_an_outage_begins_and_ends_so_many_seconds_after_the_first_call() -> None:
    outage = Outage.parse("20:80:500")
    found = [outage.behaviour(now) for now in (100.0, 119.0, 120.0, 179.0, 180.0)]
    assert [one and one.status for one in found] == [None, None, 500, 500, None]
    hanging = Outage.parse("0:1:hang").behaviour(5.0)
    assert hanging is not None
    assert hanging.kind == "hang"


@pytest.mark.parametrize("spec", ["", "20", "80:20", "20:20", "a:b", "-1:5", "0:5:never"])
def test_an_outage_that_is_not_understood_is_named(spec: str) -> None:
    with pytest.raises(ConfigError, match=r"outage|never"):
        Outage.parse(spec)


async def test_during_an_outage_nobody_is_served(client: Client) -> None:
    async with Simulator(latency="60", outage="0:60").running() as url:
        assert await statuses(client, url, ["a", "b"]) == [503, 503]


async def test_the_rate_limit_lets_through_what_has_accrued(client: Client) -> None:
    async with Simulator(rpm=120).running() as url:
        assert await statuses(client, url, ["x"] * 3) == [200, 200, 429]
        async with asyncio.timeout(5):
            while (await post(client, url, "x"))[0] == 429:
                pass


async def test_over_the_limit_of_tokens_comes_429_too(client: Client) -> None:
    async with Simulator(tpm=600).running() as url:
        _, body = await post(client, url, "x")
        used = body["usage"]["total_tokens"]
        fit = 600 // used - 1
        assert await statuses(client, url, ["x"] * (fit + 1)) == [200] * fit + [429]
        async with client.post(f"{url}/chat/completions", json=chat("x")) as response:
            waits_s = int(response.headers["retry-after-ms"]) / 1000
    assert waits_s == pytest.approx((used * (fit + 2) - 600) / 10, abs=1)


async def limits_told(client: Client, simulator: Simulator) -> tuple[int, dict[str, str]]:
    """The tokens of a call, and the headers of its reply about limits."""
    prefix = "x-ratelimit-"
    async with (
        simulator.running() as url,
        client.post(f"{url}/chat/completions", json=chat("x")) as response,
    ):
        headers = {n: v for n, v in response.headers.items() if n.startswith(prefix)}
        used = (await response.json())["usage"]["total_tokens"]
    return used, {name.removeprefix(prefix): value for name, value in headers.items()}


async def test_replies_tell_what_is_left_of_the_limits(client: Client) -> None:
    used, said = await limits_told(client, Simulator(rpm=60, burst=60, tpm=6000))
    assert said == {
        "limit-requests": "60", "remaining-requests": "59", "reset-requests": "1.000s",
        "limit-tokens": "6000", "remaining-tokens": str(6000 - used),
        "reset-tokens": f"{used * 10}ms",
    }  # fmt: skip
    assert (await limits_told(client, Simulator(rpm=60, limit_headers=False)))[1] == {}


# Ledger and control


async def test_the_ledger_counts_calls_per_prompt(client: Client) -> None:
    simulator = Simulator(errors="500=1")
    async with simulator.running() as url:
        await statuses(client, url, ["apple", "apple", "pear"])
        async with client.get(f"{url}/ledger") as response:
            served = await response.json()
    assert served.pop("billed")["answers"] == 0
    counted = {"calls": 3, "answered": 3, "items": {"apple": 2, "pear": 1}}
    assert served == {**counted, "batches": {}, "requests": {}}
    assert simulator.ledger == {"apple": 2, "pear": 1}
    assert (simulator.calls, simulator.calls_of("apple"), simulator.calls_of("p")) == (3, 2, 3)


async def test_the_ledger_file_has_a_line_for_a_call_before_its_answer(
    client: Client, tmp_path: Path
) -> None:
    path = tmp_path / "ledger.jsonl"
    simulator = Simulator(ledger_path=path)
    simulator.script("", "503", "hang")
    async with simulator.running() as url:
        await post(client, url, "apple " * 100)
        call = asyncio.create_task(post(client, url, "apple " * 100))
        await simulator.received(2)
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        call.cancel()
    assert [(line["try"], line["outcome"]) for line in lines] == [(1, "503"), (2, "hang")]
    assert lines[0]["prompt"] == ("apple " * 100)[:80]
    assert lines[0]["key"] == lines[1]["key"]
    assert len(lines[0]["key"]) == 16
    assert lines[0]["time"] <= lines[1]["time"]


async def test_without_a_ledger_no_prompt_is_kept(client: Client) -> None:
    simulator = Simulator(keep_ledger=False)
    async with simulator.running() as url:
        await statuses(client, url, ["a", "b"])
    assert (simulator.calls, simulator.ledger, list(simulator.requests)) == (2, {}, [])


async def test_try_numbers_kept_without_a_ledger_are_bounded(
    client: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(deciding, "KEPT_TRIES", 4)
    simulator = Simulator(keep_ledger=False, ledger_path=tmp_path / "ledger")
    async with simulator.running() as url:
        await statuses(client, url, [*"aabcdef", "f", "a"])
    lines = (tmp_path / "ledger").read_text().splitlines()
    assert [json.loads(line)["try"] for line in lines] == [1, 2, 1, 1, 1, 1, 1, 2, 1]
    assert len(simulator._decider._tries) <= 4


async def test_what_was_received_can_be_looked_at(client: Client) -> None:
    simulator = Simulator()
    async with simulator.running() as url:
        headers = {"X-Mine": "yes"}
        target = f"{url}/chat/completions"
        async with client.post(target, json=chat("hi"), headers=headers) as response:
            await response.read()
    [request] = simulator.requests
    assert (request.body, request.path) == (chat("hi"), "/v1/chat/completions")
    assert request.headers["x-mine"] == "yes"


async def test_held_calls_are_received_and_answered_after_release(client: Client) -> None:
    simulator = Simulator()
    async with simulator.running() as url:
        simulator.hold()
        calls = [asyncio.create_task(content(client, url, f"item {n}")) for n in range(7)]
        await simulator.received(7)
        await simulator.received(1, "item 3")
        assert (simulator.in_flight, simulator.answered) == (7, 0)
        assert not any(call.done() for call in calls)
        simulator.release()
        answers = await asyncio.gather(*calls)
    assert ["item 3" in answer for answer in answers].index(True) == 3
    assert (simulator.in_flight, simulator.max_in_flight, simulator.answered) == (0, 7, 7)


async def test_waiting_for_calls_that_do_not_come_says_how_many_did(client: Client) -> None:
    simulator = Simulator()
    async with simulator.running() as url:
        await post(client, url, "hi")
        with pytest.raises(TimeoutError, match=r"1 of 2 calls arrived in 0\.01 s"):
            await simulator.received(2, timeout_s=0.01)
        with pytest.raises(TimeoutError, match="0 of 1"):
            await simulator.received(1, "other", timeout_s=0.01)


async def test_a_script_is_followed_call_by_call_and_then_over(client: Client) -> None:
    simulator = Simulator()
    simulator.script("pear", "500", Behaviour.error(429, code="insufficient_quota"))
    simulator.script("", Behaviour.ok("scripted"))
    async with simulator.running() as url:
        assert await statuses(client, url, ["a pear"]) == [500]
        assert await content(client, url, "apple") == "scripted"
        status, body = await post(client, url, "a pear")
        assert (status, body["error"]["code"]) == (429, "insufficient_quota")
        assert await statuses(client, url, ["a pear", "apple"]) == [200, 200]
    with pytest.raises(ConfigError, match="unknown behaviour 'explode'"):
        simulator.script("", "explode")


async def test_any_response_can_be_scripted(client: Client) -> None:
    simulator = Simulator()
    simulator.script(
        "",
        Behaviour.response(
            429, "slow down", content_type="text/plain", headers={"x-ratelimit-reset": "1s"}
        ),
        Behaviour.response(200, '{"a": "\ud800"}'),
        Behaviour.response(502, b"\x00\xff", headers={"Retry-After": "soon"}),
        Behaviour.error(429, headers={"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}),
        Behaviour.redirect("http://127.0.0.1:1/"),
        Behaviour.ok("\ud800"),
    )
    responses = []
    async with simulator.running() as url:
        for _ in range(6):
            async with client.post(
                f"{url}/chat/completions", json=chat("hi"), allow_redirects=False
            ) as response:
                responses.append((response, await response.read()))
    (plain, plain_body), (_, odd_body), (binary, binary_body), (dated, _), (moved, _), _ = responses
    assert (plain.status, plain.content_type, plain_body) == (429, "text/plain", b"slow down")
    assert plain.headers["X-RateLimit-Reset"] == "1s"
    assert "Retry-After" not in plain.headers
    assert odd_body == b'{"a": "\xed\xa0\x80"}'
    assert (binary.status, binary_body) == (502, b"\x00\xff")
    assert binary.headers["Retry-After"] == "soon"
    assert dated.headers["Retry-After"] == "Wed, 21 Oct 2015 07:28:00 GMT"
    assert "retry-after-ms" not in dated.headers
    assert (moved.status, moved.headers["Location"]) == (307, "http://127.0.0.1:1/")
    assert json.loads(responses[5][1])["choices"][0]["message"]["content"] == "\ud800"


async def test_a_stale_connection_is_reset_when_it_is_used_again(client: Client) -> None:
    simulator = Simulator()
    simulator.script("", "stale")
    async with simulator.running() as url:
        await content(client, url, "first")
        with pytest.raises((aiohttp.ClientOSError, aiohttp.ServerDisconnectedError)):
            await post(client, url, "second")
        await content(client, url, "third")
    assert (simulator.calls, simulator.dropped, simulator.calls_of("second")) == (2, 1, 0)


# Starting and stopping


async def test_stopping_does_not_wait_for_calls(client: Client) -> None:
    simulator = Simulator(latency="60")
    simulator.script("", "hang", "trickle", "ok")
    await simulator.start()
    calls = [asyncio.create_task(post(client, simulator.base_url, str(n))) for n in range(3)]
    await simulator.received(3)
    simulator.hold()
    calls.append(asyncio.create_task(post(client, simulator.base_url, "held")))
    await simulator.received(4)
    async with asyncio.timeout(2):
        await simulator.stop()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(result, aiohttp.ClientError) for result in results), results
    assert simulator.in_flight == 0


async def test_a_stopped_server_comes_back_on_its_port_with_its_counts(client: Client) -> None:
    simulator = Simulator()
    async with simulator.running() as url:
        await post(client, url, "hi")
    with pytest.raises(aiohttp.ClientConnectorError):
        await post(client, url, "hi")
    async with simulator.running() as again:
        await post(client, again, "hi")
    assert again == url
    assert simulator.calls_of("hi") == 2


async def test_only_loopback_is_listened_on() -> None:
    async with Simulator().running() as url:
        assert url.startswith("http://127.0.0.1:")
        port = int(url.removesuffix("/v1").rpartition(":")[2])
        with pytest.raises(OSError, match="Connect"):
            await asyncio.open_connection("127.0.0.2", port)


async def test_a_port_in_use_is_said_in_one_line() -> None:
    async with Simulator().running() as url:
        port = int(url.removesuffix("/v1").rpartition(":")[2])
        with pytest.raises(BatchgenError, match=rf"127\.0\.0\.1:{port}: the port is in use"):
            await Simulator(port=port).start()


async def test_a_ledger_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(BatchgenError, match=r"nowhere/ledger: No such file"):
        await Simulator(ledger_path=tmp_path / "nowhere" / "ledger").start()


async def test_serve_says_when_it_is_ready_and_ends_when_told(client: Client) -> None:
    stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
    said: Callable[[str], None] = ready.set_result
    serving = asyncio.create_task(serve(Simulator(), said, stop))
    url = await ready
    assert await statuses(client, url, ["hi"]) == [200]
    stop.set()
    async with asyncio.timeout(2):
        await serving
    with pytest.raises(aiohttp.ClientConnectorError):
        await post(client, url, "hi")


# Streams


async def events(client: Client, url: str, **params: Any) -> list[str]:
    async with client.post(f"{url}/chat/completions", json=chat("hi", **params)) as response:
        assert response.content_type == "text/event-stream"
        text = (await response.read()).decode()
    return text.removesuffix("\n\n").split("\n\n")


@pytest.mark.parametrize("params", [{}, {"n": 2}, {"seed": 3}])
async def test_a_stream_says_what_the_answer_says_without_one(
    client: Client, params: dict[str, Any]
) -> None:
    asked = {"stream": True, "stream_options": {"include_usage": True}}
    async with Simulator().running() as url:
        _, whole = await post(client, url, "hi", **params)
        sent = await events(client, url, **params, **asked)
        assert await events(client, url, **params, **asked) == sent
    body = StreamedBody()
    for event in sent:
        assert body.add(Event("", event.removeprefix("data: "))) or "delta" in event
    assert json.loads(body.to_json()) == whole
    assert len(sent) > 5
    assert sent[-1] == "data: [DONE]"


async def test_a_stream_counts_tokens_when_it_is_asked_to(client: Client) -> None:
    async with Simulator().running() as url:
        without = await events(client, url, stream=True)
        (_, counted, _) = (await events(
            client, url, stream=True, stream_options={"include_usage": True}
        ))[-3:]  # fmt: skip
    assert not any("usage" in event for event in without)
    assert json.loads(counted.removeprefix("data: "))["usage"]["prompt_tokens"] == 1


@pytest.mark.parametrize(
    ("kind", "last"),
    [("no_done", '"usage": {"pr'), ("stream_error", '"type": "server_error"'), ("bad_json", "")],
)
async def test_a_stream_may_go_wrong(client: Client, kind: str, last: str) -> None:
    simulator = Simulator()
    simulator.script("hi", kind)
    async with simulator.running() as url:
        sent = await events(client, url, stream=True, stream_options={"include_usage": True})
    assert last in sent[-1]
    assert "[DONE]" not in sent[-1]


async def test_a_stream_may_be_cut_off(client: Client) -> None:
    simulator = Simulator()
    simulator.script("hi", "cut")
    async with simulator.running() as url:
        with pytest.raises(aiohttp.ClientPayloadError):
            await events(client, url, stream=True)


async def test_a_stream_may_keep_alive_for_ever(client: Client) -> None:
    simulator = Simulator()
    simulator.script("hi", "keep_alive")
    async with (
        simulator.running() as url,
        client.post(f"{url}/chat/completions", json=chat("hi", stream=True)) as response,
    ):
        for _ in range(2):
            await response.content.readuntil(b": keep-alive\n\n")


async def test_a_stream_may_come_though_nobody_asked(client: Client) -> None:
    simulator = Simulator(errors="unasked_stream=1")
    async with simulator.running() as url:
        assert (await events(client, url, stream=False))[-1] == "data: [DONE]"


async def test_a_stream_takes_as_long_as_the_answer_without_one(client: Client) -> None:
    async with Simulator(latency="0.4").running() as url:
        began = asyncio.get_running_loop().time()
        await events(client, url, stream=True)
        assert asyncio.get_running_loop().time() - began >= 0.4


# --- other endpoints ---------------------------------------------------------------------------


async def sent(client: Client, url: str, path: str, **body: Any) -> Any:
    async with client.post(f"{url}{path}", json={"model": "m-1", **body}) as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def test_other_endpoints_answer_as_openai_does(client: Client) -> None:
    async with Simulator().running() as url:
        told = Response.model_validate(
            await sent(client, url, "/responses", input="hello", reasoning={"summary": "auto"})
        )
        assert told.output_text.startswith('You wrote "hello".')
        assert [item.type for item in told.output] == ["reasoning", "message"]
        body = await sent(client, url, "/completions", prompt="hello", n=2)
        assert len(Completion.model_validate(body).choices) == 2
        body = await sent(client, url, "/embeddings", input=["a", "b"], dimensions=5)
        vectors = [one.embedding for one in CreateEmbeddingResponse.model_validate(body).data]
        assert [len(vector) for vector in vectors] == [5, 5]
        assert math.isclose(sum(number * number for number in vectors[0]), 1, abs_tol=1e-5)
        again = await sent(client, url, "/embeddings", input="b", dimensions=5)
        assert again["data"][0]["embedding"] == vectors[1]
        packed = await sent(
            client, url, "/embeddings", input="b", dimensions=5, encoding_format="base64"
        )
        assert isinstance(packed["data"][0]["embedding"], str)


async def test_a_response_follows_the_format_of_its_text(client: Client) -> None:
    schema = {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]}
    wanted = {"format": {"type": "json_schema", "name": "x", "schema": schema}}
    async with Simulator().running() as url:
        body = await sent(client, url, "/responses", input="hello", text=wanted)
        assert json.loads(body["output"][0]["content"][0]["text"]) == {"a": 1}


async def test_answers_of_other_endpoints_can_be_unusable_too(client: Client) -> None:
    found = {}
    for kind in ("length", "content_filter", "refusal", "empty", "no_choices"):
        body = await scripted(client, kind, "/responses", input="x")
        details = body["incomplete_details"] or {}
        found[kind] = (body["status"], details.get("reason"))
        assert (body["output"] is None) == (kind == "no_choices")
    assert found == {
        "length": ("incomplete", "max_output_tokens"),
        "content_filter": ("incomplete", "content_filter"),
        "refusal": ("completed", None), "empty": ("completed", None),
        "no_choices": ("completed", None),
    }  # fmt: skip
    assert (await scripted(client, "empty", "/embeddings", input="x"))["data"] == []
    assert (await scripted(client, "no_choices", "/completions", prompt="x"))["choices"] is None


async def scripted(client: Client, kind: str, path: str, **body: Any) -> Any:
    simulator = Simulator()
    simulator.script("x", kind)
    async with simulator.running() as url:
        return await sent(client, url, path, **body)


@pytest.mark.parametrize(
    ("path", "body"),
    [("/responses", {"input": []}), ("/completions", {}), ("/embeddings", {"input": ""})],
)
async def test_a_request_without_a_prompt_is_refused(
    client: Client, path: str, body: dict[str, Any]
) -> None:
    async with (
        Simulator().running() as url,
        client.post(f"{url}{path}", json=body) as response,
    ):
        assert response.status == 400
        assert "the body must be JSON with '" in (await response.json())["error"]["message"]


@pytest.mark.parametrize(
    ("spec", "named"),
    [("no text", "must be TEXT=KIND"), ("=500", "must be TEXT=KIND"), ("a=9", "unknown kind '9'")],
)
def test_an_item_error_that_is_not_understood_is_named(spec: str, named: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(named)):
        Simulator(item_errors=[spec])


async def test_items_get_the_errors_that_are_theirs(client: Client) -> None:
    simulator = Simulator(item_errors=["a=b=content_403", "other=500"])
    async with simulator.running() as url:
        texts = ["a=b", "another", "a=b again", "c"]
        assert await statuses(client, url, texts) == [403, 500, 403, 200]
        _, body = await post(client, url, "a=b")
    assert body["error"].startswith("Content violates usage guidelines")


@pytest.mark.parametrize("name", VENDOR_REPLIES)
def test_what_vendors_say_is_taken_for_what_its_name_says(name: str) -> None:
    said = VENDOR_REPLIES[name]
    found = read_reply(Reply(started_at=0, latency_ms=1, status=said.status, body=said.body), CHAT)
    if name in ("slip", "finish_cut_off", "finish_unknown"):
        assert isinstance(found, Answer)
        assert (found.slip is not None) == (name == "slip")
        return
    assert isinstance(found, Failure)
    assert (found.halt is not None) == name.startswith(("no_", "forbidden", "firewall")), found
    assert (found.reason is Reason.REFUSAL) == name.startswith(("content_", "filter_", "finish_f"))
