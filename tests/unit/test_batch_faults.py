"""What may go wrong with batches of the simulated model, through the client of OpenAI."""

import asyncio
import json
from collections import Counter
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI
from openai.types import Batch

from batchgen.errors import ConfigError
from batchgen.simulate import Simulator
from tests.kits.batches import CHAT, begin, ended, jsonl, line, rows, served, upload


def lines(n: int) -> bytes:
    return jsonl(line(str(number), f"Say {number}") for number in range(n))


async def done(client: AsyncOpenAI, n: int = 10) -> Batch:
    return await ended(client, await begin(client, lines(n)))


async def listed(client: AsyncOpenAI) -> list[Batch]:
    return [batch async for batch in client.batches.list()]


async def create(client: AsyncOpenAI, file_id: str) -> Batch:
    return await client.batches.create(
        input_file_id=file_id, endpoint=CHAT, completion_window="24h"
    )


async def download(client: AsyncOpenAI, file_id: str, got: list[bytes]) -> None:
    async with client.files.with_streaming_response.content(file_id) as response:
        async for piece in response.iter_bytes():
            got.append(piece)


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ("explode", "unknown 'explode' in 'explode'; allowed: lost_upload, lost_create,"),
        ("lost_create=x", "'lost_create=x' must have a whole number"),
        ("late_list", "'late_list' must be late_list=SECONDS"),
        ("late_list=-1", "must be late_list=SECONDS"),
        ("expire=1.5", "must be expire=SHARE"),
        ("expire=0.5:x", "must be expire=SHARE"),
        ("failed", "must be failed=CODE"),
        ("token_limit=few", "must have a whole number"),
        ("refuse_create=reset", "must be refuse_create=STATUS"),
        ("refuse_create=99", "unknown behaviour '99'"),
        ("slow,slow=1", "'slow' is there twice"),
    ],
)
def test_faults_that_are_not_understood_are_named(spec: str, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Simulator(batch_faults=spec)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


# Replies that do not come, or lie


async def test_a_batch_is_made_though_the_reply_is_lost() -> None:
    async with served(Simulator(batch_faults="lost_create=1")) as client:
        file_id = await upload(client, lines(3))
        with pytest.raises(openai.APIConnectionError):
            await create(client, file_id)
        [lost] = await listed(client)
        assert lost.input_file_id == file_id
        assert (await ended(client, lost)).status == "completed"
        assert (await create(client, file_id)).id != lost.id


async def test_no_batch_is_made_where_the_request_is_lost() -> None:
    async with served(Simulator(batch_faults="dropped_create=2")) as client:
        file_id = await upload(client, lines(3))
        for _ in range(2):
            with pytest.raises(openai.APIConnectionError):
                await create(client, file_id)
        assert await listed(client) == []
        made = await create(client, file_id)
        assert [batch.id for batch in await listed(client)] == [made.id]


async def test_a_batch_is_made_though_the_reply_is_an_error() -> None:
    async with served(Simulator(batch_faults="false_create=503:1")) as client:
        file_id = await upload(client, lines(3))
        with pytest.raises(openai.InternalServerError):
            await create(client, file_id)
        assert [batch.input_file_id for batch in await listed(client)] == [file_id]


async def test_a_batch_is_refused_with_what_vendors_say() -> None:
    async with served(Simulator(batch_faults="refuse_create=no_credit:1")) as client:
        file_id = await upload(client, lines(3))
        with pytest.raises(openai.RateLimitError, match="You exceeded your current quota"):
            await create(client, file_id)
        assert await listed(client) == []
        assert await create(client, file_id)


async def test_a_file_is_kept_though_the_reply_is_lost() -> None:
    async with served(Simulator(batch_faults="lost_upload=1")) as client:
        with pytest.raises(openai.APIConnectionError):
            await upload(client, lines(3))
        [kept] = [file async for file in client.files.list()]
        assert (await client.files.content(kept.id)).content == lines(3)


async def test_a_download_is_cut_half_way() -> None:
    async with served(Simulator(batch_faults="cut_download=1")) as client:
        content = lines(10_000)
        file_id = await upload(client, content)
        got: list[bytes] = []
        with pytest.raises(httpx2.RemoteProtocolError, match="peer closed connection"):
            await download(client, file_id, got)
        assert b"".join(got) == content[: len(content) // 2]
        assert (await client.files.content(file_id)).content == content


# The list


async def test_a_list_may_not_be_there() -> None:
    async with served(Simulator(batch_faults="no_list")) as client:
        batch = await begin(client, lines(1))
        with pytest.raises(openai.NotFoundError):
            await listed(client)
        assert (await ended(client, batch)).status == "completed"


async def test_a_list_may_be_late() -> None:
    async with served(Simulator(batch_faults="late_list=0.5")) as client:
        batch = await begin(client, lines(1))
        assert await listed(client) == []
        assert (await client.batches.retrieve(batch.id)).id == batch.id
        async with asyncio.timeout(10):
            while not (found := await listed(client)):
                pass
        assert [one.id for one in found] == [batch.id]


# How a batch ends


async def test_a_batch_fails_for_the_lines_that_are_named() -> None:
    async with served(Simulator(batch_faults="validation=Say 1")) as client:
        batch = await done(client, 12)
        assert batch.status == "failed"
        assert batch.errors is not None
        assert [(one.line, one.code) for one in batch.errors.data or ()] == [
            (2, "invalid_request"), (11, "invalid_request"), (12, "invalid_request"),
        ]  # fmt: skip
        assert (await done(client, 1)).status == "completed"


async def test_a_batch_fails_for_its_first_line_or_for_nothing() -> None:
    async with served(Simulator(batch_faults="validation=:1,failed=server_busy:2")) as client:
        found = []
        for _ in range(3):
            batch = await done(client)
            problems = (batch.errors.data if batch.errors else None) or []
            found.append((batch.status, [(one.code, one.line) for one in problems]))
    assert found == [
        ("failed", [("invalid_request", 1)]),
        ("failed", [("server_busy", None)]),
        ("completed", []),
    ]


async def test_more_enqueued_tokens_than_the_limit_fail_a_batch() -> None:
    limit = len(lines(10)) // 4
    simulator = Simulator(batch_faults=f"token_limit={limit}")
    async with served(simulator) as client:
        assert (await done(client, 10)).status == "completed"
        simulator.fail_batches(f"token_limit={limit},slow=1")
        first = await begin(client, lines(6))
        async with asyncio.timeout(10):
            while first.status != "in_progress":
                first = await client.batches.retrieve(first.id)
        batch = await done(client, 6)
        assert batch.status == "failed"
        assert batch.errors is not None
        [problem] = batch.errors.data or []
        assert (problem.code, problem.line) == ("token_limit_exceeded", None)
        assert str(problem.message).startswith("Enqueued token limit reached for m-1")
        await ended(client, await client.batches.cancel(first.id))
        assert (await done(client, 6)).status == "completed"


async def test_more_enqueued_tokens_than_the_limit_may_be_refused() -> None:
    simulator = Simulator(batch_faults=f"token_limit_429={len(lines(10)) // 4}")
    async with served(simulator) as client:
        simulator.hold()
        batch = await begin(client, lines(6))
        with pytest.raises(openai.RateLimitError, match="Enqueued token limit reached"):
            await begin(client, lines(6))
        simulator.release()
        await ended(client, batch)
        assert (await done(client, 6)).status == "completed"


async def test_a_share_of_the_lines_expires() -> None:
    simulator = Simulator(batch_faults="expire=0.25:1")
    async with served(simulator) as client:
        batch = await done(client, 20)
        good, bad = (
            await rows(client, batch.output_file_id),
            await rows(client, batch.error_file_id),
        )
        assert (await done(client, 20)).status == "completed"
    assert batch.status == "expired"
    assert batch.expired_at is not None
    assert {one["custom_id"] for one in (*good, *bad)} == {str(n) for n in range(20)}
    assert [(one["response"], one["error"]["code"]) for one in bad] == [(None, "batch_expired")] * 5
    assert len(good) == 15
    assert simulator.bill.in_batches == 35


async def test_all_lines_may_expire() -> None:
    simulator = Simulator(batch_faults="expire=1")
    async with served(simulator) as client:
        batch = await done(client, 3)
        assert len(await rows(client, batch.error_file_id)) == 3
    assert (batch.status, batch.output_file_id) == ("expired", None)
    assert simulator.bill.answers == 0


async def test_a_slow_batch_never_ends_until_it_is_cancelled() -> None:
    simulator = Simulator(batch_faults="slow=1")
    async with served(simulator) as client:
        batch = await begin(client, lines(10))
        assert (await done(client)).status == "completed"
        async with asyncio.timeout(10):
            while batch.request_counts is None or batch.request_counts.completed < 5:
                batch = await client.batches.retrieve(batch.id)
        assert batch.status == "in_progress"
        batch = await ended(client, await client.batches.cancel(batch.id))
        good, bad = (
            await rows(client, batch.output_file_id),
            await rows(client, batch.error_file_id),
        )
    assert batch.status == "cancelled"
    assert (len(good), len(bad)) == (5, 5)


# What the files have


async def test_a_share_of_the_lines_fails_and_may_succeed_when_asked_again() -> None:
    simulator = Simulator(batch_faults="server_error=0.5")
    async with served(simulator) as client:
        failed = []
        for _ in range(2):
            batch = await done(client, 100)
            bad = await rows(client, batch.error_file_id)
            assert {one["response"]["status_code"] for one in bad} == {500}
            failed.append({one["custom_id"] for one in bad})
    assert all(30 < len(one) < 70 for one in failed)
    assert failed[0] != failed[1]


async def test_lines_may_be_missing_twice_or_foreign() -> None:
    simulator = Simulator(batch_faults="no_line,twice_line=2,foreign_line=3")
    async with served(simulator) as client:
        batch = await done(client, 10)
        found = Counter(one["custom_id"] for one in await rows(client, batch.output_file_id))
    foreign = {name: found.pop(name) for name in ("foreign-0", "foreign-1", "foreign-2")}
    assert set(foreign.values()) == {1}
    assert len(found) == 9
    assert sorted(found.values()) == [1] * 7 + [2, 2]
    assert batch.request_counts is not None
    assert batch.request_counts.completed == 10
    assert simulator.bill.answers == 10


async def test_the_body_may_be_json_in_a_text() -> None:
    async with served(Simulator(batch_faults="text_body=1")) as client:
        [first] = await rows(client, (await done(client, 1)).output_file_id)
        [second] = await rows(client, (await done(client, 1)).output_file_id)
    assert json.loads(first["response"]["body"]) == second["response"]["body"]


async def test_the_id_of_the_output_may_come_late() -> None:
    async with served(Simulator(batch_faults="late_output=0.5")) as client:
        batch = await done(client, 2)
        assert (batch.status, batch.output_file_id) == ("completed", None)
        async with asyncio.timeout(10):
            while batch.output_file_id is None:
                batch = await client.batches.retrieve(batch.id)
        assert len(await rows(client, batch.output_file_id)) == 2


async def test_an_id_that_is_not_there_may_be_an_empty_text() -> None:
    async with served(Simulator(batch_faults="empty_id")) as client:
        batch = await begin(client, lines(2))
        assert (batch.output_file_id, batch.error_file_id) == ("", "")
        batch = await ended(client, batch)
        assert batch.error_file_id == ""
        assert len(await rows(client, batch.output_file_id)) == 2


# Keeping step, and outages


async def test_requests_can_be_held_once_they_are_done() -> None:
    simulator = Simulator()
    async with served(simulator) as client:
        file_id = await upload(client, lines(2))
        simulator.hold("POST /batches")
        call = asyncio.create_task(create(client, file_id))
        await simulator.asked(1, "POST /batches")
        [made] = await listed(client)
        assert (await ended(client, made)).status == "completed"
        assert not call.done()
        simulator.release()
        assert (await call).id == made.id
        with pytest.raises(TimeoutError, match="1 of 2 calls"):
            await simulator.asked(2, "POST /batches", timeout_s=0.01)
        told: Any = await client.get("/ledger", cast_to=object)
    assert told["batches"] == {"completed": 1}
    assert told["requests"]["POST /batches"] == 1


async def test_during_an_outage_there_are_no_batches_either() -> None:
    async with served(Simulator(outage="0:60")) as client:
        with pytest.raises(openai.InternalServerError):
            await upload(client, lines(2))
        with pytest.raises(openai.InternalServerError):
            await listed(client)
