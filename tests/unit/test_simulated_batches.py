"""Files and batches of the simulated model, as the client of OpenAI meets them over real HTTP."""

import json
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from batchgen.simulate import Simulator, bill
from tests.kits.batches import CHAT, begin, ended, jsonl, line, rows, served, upload


async def codes(client: AsyncOpenAI, content: bytes, url: Any = CHAT) -> list[Any]:
    batch = await ended(client, await begin(client, content, url))
    assert batch.status == "failed"
    assert batch.errors is not None
    return [(one.code, one.line, one.param) for one in batch.errors.data or ()]


# Files


async def test_a_file_is_kept_as_it_is_until_it_is_deleted() -> None:
    async with served(Simulator()) as client:
        content = "é\u2028\r\n\0--\r\n".encode() * 100_000
        made = await client.files.create(file=("a.jsonl", content), purpose="batch")
        assert (made.object, made.bytes, made.filename) == ("file", len(content), "a.jsonl")
        assert made.purpose == "batch"
        assert (await client.files.content(made.id)).content == content
        assert await client.files.retrieve(made.id) == made
        gone = await client.files.delete(made.id)
        assert (gone.id, gone.deleted) == (made.id, True)
        for asked in (client.files.retrieve, client.files.content, client.files.delete):
            with pytest.raises(openai.NotFoundError, match=f"No such File object: {made.id}"):
                await asked(made.id)


async def test_files_are_listed_newest_first_and_page_by_page() -> None:
    async with served(Simulator()) as client:
        made = [await upload(client, b"{}", f"{n}.jsonl") for n in range(5)]
        assert [one.id async for one in client.files.list()] == made[::-1]
        assert [one.id async for one in client.files.list(limit=2)] == made[::-1]
        assert [one.id async for one in client.files.list(order="asc")] == made
        assert [one.id async for one in client.files.list(purpose="batch_output")] == []


async def test_an_upload_without_a_purpose_is_refused() -> None:
    async with served(Simulator()) as client:
        with pytest.raises(openai.BadRequestError, match="'purpose' is a required property"):
            await client.post(
                "/files",
                cast_to=object,
                files={"file": b"{}"},
                body={},
                options={"headers": {"Content-Type": "multipart/form-data"}},
            )
        assert [one async for one in client.files.list()] == []


# Batches


async def test_each_line_gets_what_a_call_with_its_body_gets() -> None:
    texts = [f"Say {n} \u2028 é" for n in range(300)]
    simulator = Simulator(seed=3)
    async with served(simulator) as client:
        batch = await begin(client, jsonl(line(f"id-{n}", text) for n, text in enumerate(texts)))
        assert batch.status == "validating"
        batch = await ended(client, batch)
        found = await rows(client, batch.output_file_id)
        online = [
            await client.chat.completions.create(
                model="m-1", messages=[{"role": "user", "content": text}]
            )
            for text in texts
        ]
    assert (batch.status, batch.error_file_id, batch.model) == ("completed", None, "m-1")
    assert batch.request_counts is not None
    assert batch.request_counts.model_dump() == {"total": 300, "completed": 300, "failed": 0}
    ids = [one["custom_id"] for one in found]
    assert ids != sorted(ids, key=lambda one: int(one[3:]))
    by_id = {one["custom_id"]: one for one in found}
    assert len(by_id) == 300
    for n, whole in enumerate(online):
        row = by_id[f"id-{n}"]
        assert row["error"] is None
        assert row["response"]["status_code"] == 200
        assert row["response"]["body"] == whole.model_dump(exclude_unset=True)
        assert set(row) == {"id", "custom_id", "response", "error"}
        assert set(row["response"]) == {"status_code", "request_id", "body"}
    assert batch.usage is not None
    used = [one.usage.total_tokens for one in online if one.usage]
    assert batch.usage.total_tokens == sum(used)
    assert simulator.bill.batch == simulator.bill.online == dict.fromkeys(texts, 1)
    assert (simulator.bill.answers, simulator.bill.in_batches, simulator.bill.twice) == (
        600, 300, 300
    )  # fmt: skip
    assert simulator.calls == 300


@pytest.mark.parametrize(
    ("url", "body"),
    [
        ("/v1/responses", {"input": "hi"}),
        ("/v1/completions", {"prompt": "hi"}),
        ("/v1/embeddings", {"input": ["a", "b"]}),
    ],
)
async def test_batches_are_of_any_endpoint(url: str, body: dict[str, Any]) -> None:
    async with served(Simulator()) as client:
        batch = await ended(client, await begin(client, jsonl([line("a", url=url, **body)]), url))
        [row] = await rows(client, batch.output_file_id)
        online = await client.post(
            url.removeprefix("/v1"), cast_to=object, body={"model": "m-1", **body}
        )
    assert row["response"]["body"] == online
    assert batch.usage is not None
    assert batch.usage.total_tokens > 0


async def test_lines_that_fail_are_in_the_error_file() -> None:
    simulator = Simulator(item_errors=["bad=400", "down=503", "gone=reset", "no=content_403"])
    simulator.script("filter", "content_filter")
    texts = ("good", "bad", "down", "gone", "no", "filter")
    lines = [line(text, text) for text in texts]
    lines.append(line("none", messages=[]))
    async with served(simulator) as client:
        batch = await ended(client, await begin(client, jsonl(lines)))
        good = {one["custom_id"]: one for one in await rows(client, batch.output_file_id)}
        bad = {one["custom_id"]: one for one in await rows(client, batch.error_file_id)}
    assert set(good) == {"good", "filter"}
    assert {name: one["response"]["status_code"] for name, one in bad.items()} == {
        "bad": 400, "down": 503, "gone": 500, "no": 403, "none": 400,
    }  # fmt: skip
    assert all(one["error"] is None for one in bad.values())
    assert bad["bad"]["response"]["body"]["error"]["type"] == "invalid_request_error"
    assert batch.request_counts is not None
    assert batch.request_counts.model_dump() == {"total": 7, "completed": 2, "failed": 5}
    assert simulator.bill.batch == {"good": 1, "filter": 1}


async def test_a_batch_of_failures_alone_has_no_output_file() -> None:
    async with served(Simulator(errors="500=1")) as client:
        batch = await ended(client, await begin(client, jsonl([line("a"), line("b")])))
        assert len(await rows(client, batch.error_file_id)) == 2
    assert (batch.status, batch.output_file_id) == ("completed", None)


async def test_a_batch_goes_through_its_states_and_says_when() -> None:
    async with served(Simulator(batch_seconds=1)) as client:
        batch = await begin(
            client, jsonl(line(str(n), str(n)) for n in range(50)), metadata={"mine": "x"}
        )
        seen, counts = [batch.status], set()
        while batch.status != "completed":
            batch = await client.batches.retrieve(batch.id)
            assert batch.request_counts is not None
            counts.add(batch.request_counts.completed)
            if batch.status != seen[-1]:
                seen.append(batch.status)
    assert seen == ["validating", "in_progress", "finalizing", "completed"]
    assert len(counts) > 10
    assert batch.metadata == {"mine": "x"}
    assert None not in (batch.in_progress_at, batch.finalizing_at, batch.completed_at)
    assert batch.expires_at == batch.created_at + 86_400


async def test_batches_are_listed_newest_first_and_page_by_page() -> None:
    async with served(Simulator()) as client:
        made = [(await begin(client, jsonl([line("a")]))).id for _ in range(25)]
        page = await client.batches.list()
        assert [one.id for one in page.data] == made[:4:-1]
        assert page.has_more
        assert [one.id async for one in client.batches.list(limit=7)] == made[::-1]
        raw = await client.batches.with_raw_response.list(limit=10, after=made[10])
        body = json.loads(raw.content)
        assert (body["first_id"], body["last_id"], body["has_more"]) == (made[9], made[0], False)
        for wrong in ({"limit": 101}, {"limit": 0}, {"after": "batch_x"}):
            with pytest.raises(openai.BadRequestError):
                await client.batches.list(**wrong)


# What is refused, and what fails


async def test_creation_is_refused_where_openai_refuses_it() -> None:
    async with served(Simulator()) as client:
        file_id = await upload(client, jsonl([line("a")]))
        asked: dict[str, Any] = {
            "input_file_id": file_id, "endpoint": CHAT, "completion_window": "24h",
        }  # fmt: skip
        for wrong, message in (
            ({"endpoint": "/v1/nothing"}, "Invalid value: '/v1/nothing'"),
            ({"completion_window": "soon"}, "Invalid value: 'soon'"),
            ({"metadata": {str(n): "x" for n in range(17)}}, "16 pairs"),
            ({"metadata": {"k" * 65: "x"}}, "64 characters"),
            ({"metadata": {"k": "x" * 513}}, "512"),
            ({"input_file_id": None}, "Missing required parameter: 'input_file_id'"),
        ):
            with pytest.raises(openai.BadRequestError, match=message):
                await client.batches.create(**{**asked, **wrong})
        assert [one async for one in client.batches.list()] == []
        with pytest.raises(openai.NotFoundError, match="No batch found with id 'batch_x'"):
            await client.batches.retrieve("batch_x")
        with pytest.raises(openai.NotFoundError, match="unknown URL PUT"):
            await client.put("/batches/batch_x", cast_to=object)


async def test_without_the_key_nothing_is_taken() -> None:
    simulator = Simulator(api_key="sk-right")
    async with served(simulator, "sk-wrong") as client:
        for asked in (client.files.list(), client.batches.list(), client.batches.retrieve("x")):
            with pytest.raises(openai.AuthenticationError):
                await asked
        with pytest.raises(openai.AuthenticationError):
            await upload(client, b"{}")
    async with served(simulator, "sk-right") as client:
        assert (await ended(client, await begin(client, jsonl([line("a")])))).status == "completed"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", ("empty_file", None, None)),
        (b"\n", ("invalid_json_line", 1, None)),
        (jsonl([line("a")]) + b'{"custom_id": "b"', ("invalid_json_line", 2, None)),
        (jsonl([line("a")]) + b"\xff\n", ("invalid_json_line", 2, None)),
        (jsonl([[1]]), ("invalid_json_line", 1, None)),
        (jsonl([line("a"), line("b"), line("a", "other")]),
         ("duplicate_custom_id", 3, "custom_id")),
        (jsonl([line("a", url="/v1/embeddings", input="x")]), ("url_mismatch", 1, "url")),
        (jsonl([line("a"), line("b", model="m-2")]), ("model_mismatch", 2, "model")),
        (jsonl([line("a", model=None)]), ("missing_required_parameter", 1, "model")),
        (jsonl([{**line("a"), "custom_id": 7}]),
         ("missing_required_parameter", 1, "custom_id")),
        (jsonl([{**line("a"), "body": None}]), ("missing_required_parameter", 1, "body")),
        (jsonl([{**line("a"), "method": "GET"}]), ("invalid_method", 1, "method")),
    ],
    ids=lambda value: str(value[:2]) if isinstance(value, tuple) else "",
)  # fmt: skip
async def test_one_bad_line_fails_the_batch(content: bytes, expected: Any) -> None:
    simulator = Simulator()
    async with served(simulator) as client:
        assert await codes(client, content) == [expected]
    assert simulator.bill.answers == 0


async def test_all_bad_lines_are_named() -> None:
    async with served(Simulator()) as client:
        content = b"x\n" + jsonl([line("a"), line("a", model="m-2")])
        assert await codes(client, content) == [
            ("invalid_json_line", 1, None),
            ("duplicate_custom_id", 3, "custom_id"),
            ("model_mismatch", 3, "model"),
        ]


async def test_a_file_that_does_not_exist_is_taken_and_fails_later() -> None:
    async with served(Simulator()) as client:
        batch = await client.batches.create(
            input_file_id="file-none", endpoint=CHAT, completion_window="24h"
        )
        batch = await ended(client, batch)
    assert batch.status == "failed"
    assert batch.errors is not None
    assert [one.code for one in batch.errors.data or ()] == ["invalid_input_file"]
    assert batch.request_counts is not None
    assert batch.request_counts.total == 0


async def test_a_batch_has_at_most_so_many_lines() -> None:
    async with served(Simulator()) as client:
        content = b"".join(b'{"custom_id":"%d"}\n' % n for n in range(50_001))
        assert ("too_many_tasks", None, None) not in await codes(client, content[:900])
        many = jsonl(line(str(n)) for n in range(50_001))
        assert await codes(client, many) == [("too_many_tasks", None, None)]


# Cancelling


async def test_what_was_done_of_a_cancelled_batch_is_in_its_output_file() -> None:
    simulator = Simulator(batch_seconds=2)
    async with served(simulator) as client:
        batch = await begin(client, jsonl(line(str(n), str(n)) for n in range(2_000)))
        while batch.request_counts is None or batch.request_counts.completed < 100:
            batch = await client.batches.retrieve(batch.id)
        batch = await client.batches.cancel(batch.id)
        assert batch.status == "cancelling"
        assert (await client.batches.cancel(batch.id)).status == "cancelling"
        batch = await ended(client, batch)
        good, bad = (
            await rows(client, batch.output_file_id),
            await rows(client, batch.error_file_id),
        )
        with pytest.raises(openai.ConflictError, match="Cannot cancel a batch with status 'canc"):
            await client.batches.cancel(batch.id)
    assert batch.status == "cancelled"
    assert 100 <= len(good) == simulator.bill.in_batches < 2_000
    assert {one["custom_id"] for one in (*good, *bad)} == {str(n) for n in range(2_000)}
    assert len(good) + len(bad) == 2_000
    assert {one["error"]["code"] for one in bad} == {"batch_cancelled"}
    assert all(one["response"] is None for one in bad)


async def test_a_batch_may_be_cancelled_before_it_began() -> None:
    simulator = Simulator(batch_seconds=600)
    async with served(simulator) as client:
        batch = await begin(client, jsonl([line("a")]))
        assert (await client.batches.cancel(batch.id)).status == "cancelling"
    simulator = Simulator()
    async with served(simulator) as client:
        simulator.hold()
        batch = await begin(client, jsonl([line("a")]))
        await client.batches.cancel(batch.id)
        simulator.release()
        batch = await ended(client, batch)
    assert (batch.status, batch.output_file_id, batch.error_file_id) == ("cancelled", None, None)
    assert simulator.bill.answers == 0


async def test_a_batch_goes_on_though_its_input_file_is_deleted() -> None:
    async with served(Simulator(batch_seconds=0.5)) as client:
        batch = await begin(client, jsonl(line(str(n)) for n in range(100)))
        while not batch.in_progress_at:
            batch = await client.batches.retrieve(batch.id)
        await client.files.delete(batch.input_file_id)
        batch = await ended(client, batch)
        assert len(await rows(client, batch.output_file_id)) == 100


# The server


async def test_batches_know_no_rate_limit_and_leave_it_to_calls() -> None:
    async with served(Simulator(rpm=1, tpm=60)) as client:
        batch = await ended(client, await begin(client, jsonl(line(str(n)) for n in range(100))))
        assert batch.request_counts is not None
        assert batch.request_counts.completed == 100
        asked: Any = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
        assert await client.chat.completions.create(**asked)
        with pytest.raises(openai.RateLimitError):
            await client.chat.completions.create(**asked)


@pytest.mark.parametrize("place", ["/openai/v1", ""])
async def test_files_and_batches_are_where_the_other_endpoints_are(place: str) -> None:
    async with Simulator().running() as url:
        base_url = url.removesuffix("/v1") + place
        async with openai.AsyncOpenAI(base_url=base_url, api_key="x", max_retries=0) as client:
            batch = await ended(client, await begin(client, jsonl([line("a")])))
    assert batch.status == "completed"


async def test_of_answers_that_are_made_twice_the_latest_are_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bill, "_KEPT", 4)
    simulator = Simulator(keep_ledger=False)
    async with served(simulator) as client:
        for text in "aabcdefgah":
            await client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": text}]
            )
        batch = await begin(client, jsonl([line("x", "h", model="m"), line("y", "z", model="m")]))
        await ended(client, batch)
    assert (simulator.bill.answers, simulator.bill.twice) == (12, 2)
    assert (simulator.bill.online, simulator.bill.batch) == ({}, {})


async def test_a_server_that_comes_back_goes_on_with_its_batches() -> None:
    simulator = Simulator(batch_seconds=1)
    async with served(simulator) as client:
        batch = await begin(client, jsonl(line(str(n), str(n)) for n in range(500)))
        while batch.request_counts is None or not batch.request_counts.completed:
            batch = await client.batches.retrieve(batch.id)
    async with served(simulator) as client:
        batch = await ended(client, batch)
        assert len(await rows(client, batch.output_file_id)) == 500
    assert simulator.bill.batch == {str(n): 1 for n in range(500)}


async def test_batches_wait_while_the_server_holds_its_answers() -> None:
    simulator = Simulator()
    async with served(simulator) as client:
        simulator.hold()
        batch = await begin(client, jsonl([line("a")]))
        for _ in range(20):
            batch = await client.batches.retrieve(batch.id)
        assert batch.status == "validating"
        simulator.release()
        assert (await ended(client, batch)).status == "completed"


async def test_the_ledger_tells_what_was_billed() -> None:
    async with served(Simulator()) as client:
        await ended(client, await begin(client, jsonl([line("a", "apple"), line("b", "pear")])))
        await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "pear"}]
        )
        told: Any = await client.get("/ledger", cast_to=object)
    assert told["billed"] == {
        "answers": 3, "in_batches": 2, "answered_twice": 0, "online": {"pear": 1},
        "batch": {"apple": 1, "pear": 1},
    }  # fmt: skip
