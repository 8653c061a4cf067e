"""Provider batches as Mistral has them: against the simulated provider, and what others may say."""

import asyncio
import io
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from batchgen.config import ModelConfig
from batchgen.endpoints import CHAT
from batchgen.items import Answer, Failure, Reason
from batchgen.llm.batches import (
    BatchServer,
    BatchServerError,
    LineProblem,
    Refused,
    Seen,
    Standing,
    Unclear,
    open_batch_server,
)
from batchgen.llm.replies import read_reply
from batchgen.simulate import Simulator
from tests.kits.project import KEY
from tests.kits.provider import Provider, opened, provider

JOB = {"id": "j-1", "object": "batch", "status": "RUNNING", "created_at": 1_700_000_000}


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    simulator = Simulator(api_key=KEY)
    async with simulator.running():
        yield simulator


@pytest.fixture
async def server(simulator: Simulator) -> AsyncIterator[BatchServer]:
    async with opened(simulator.base_url, of="mistral") as server:
        yield server


@pytest.fixture
async def told() -> AsyncIterator[Provider]:
    async with provider() as one:
        yield one


@pytest.fixture
async def odd(told: Provider) -> AsyncIterator[BatchServer]:
    async with opened(told.url, of="mistral") as one:
        yield one


async def create(server: BatchServer, file_id: str = "in", window: str = "24h") -> Any:
    return await server.create(file_id, endpoint=CHAT, model="m-1", window=window, token="t-1")


async def begun(server: BatchServer, *texts: str) -> Seen:
    bodies = [{"messages": [{"role": "user", "content": text}]} for text in texts]
    lines = [server.line(f"id-{n}", body, CHAT) for n, body in enumerate(bodies)]
    file = b"".join(lines)
    file_id = await server.upload(io.BytesIO(file), len(file), "a.jsonl")
    made = await create(server, file_id)
    assert isinstance(made, Seen)
    assert made.input_file == file_id
    return made


async def ended(server: BatchServer, seen: Seen) -> Seen:
    async with asyncio.timeout(60):
        while not seen.standing.is_over:
            found = await server.get(seen.batch_id)
            assert found is not None
            seen = found
    return seen


async def test_the_host_of_mistral_has_its_batches() -> None:
    model = ModelConfig(base_url="https://api.mistral.ai/v1", api_key=KEY)
    async with open_batch_server(model, timeout_s=1) as server:
        line = server.line("a", {"model": "m", "messages": []}, CHAT)
    assert json.loads(line) == {"custom_id": "a", "body": {"model": "m", "messages": []}}


async def test_a_job_is_uploaded_made_seen_and_read(
    server: BatchServer, simulator: Simulator
) -> None:
    simulator.script("bad", "400")
    began_at = time.time_ns() // 1_000_000
    made = await begun(server, "good", "bad", "東\u2028京")
    assert (made.standing, made.status, made.token) == (Standing.RUNNING, "QUEUED", "t-1")
    seen = await ended(server, made)
    assert (seen.standing, seen.status) == (Standing.COMPLETED, "SUCCESS")
    assert (seen.total, seen.answered, seen.failed) == (3, 2, 1)
    assert await server.recent(began_at) == [seen]
    found = [line async for line in server.lines(seen)]
    assert {line.custom_id for line in found} == {"id-0", "id-1", "id-2"}
    whats = {line.custom_id: line.reply and read_reply(line.reply, CHAT) for line in found}
    assert isinstance(whats["id-0"], Answer)
    assert isinstance(whats["id-2"], Answer)
    failure = whats["id-1"]
    assert isinstance(failure, Failure)
    assert failure.reason is Reason.REJECTED
    assert simulator.bill.batch == {"good": 1, "東\u2028京": 1}
    assert seen.input_file is not None
    assert await server.forget([seen.input_file, seen.output_file or "", seen.error_file or ""])
    with pytest.raises(BatchServerError, match=r"^404 "):
        assert [line async for line in server.lines(seen)] == []


async def test_a_job_that_is_cancelled_or_not_there() -> None:
    simulator = Simulator(batch_seconds=10)
    async with simulator.running() as url, opened(url, of="mistral") as server:
        made = await begun(server, "a", "b")
        seen: Seen | None = made
        while seen is None or seen.status == "QUEUED":
            seen = await server.get(made.batch_id)
        assert seen.status == "RUNNING"
        simulator.hold()
        await server.cancel(made.batch_id)
        await server.cancel(made.batch_id)
        seen = await server.get(made.batch_id)
        assert seen is not None
        assert (seen.standing, seen.status) == (Standing.RUNNING, "CANCELLATION_REQUESTED")
        simulator.release()
        seen = await ended(server, made)
        await server.cancel(made.batch_id)
        assert seen.standing is Standing.CANCELLED
        found = [line async for line in server.lines(seen)]
        assert [line.error_code for line in found] == ["batch_cancelled"] * 2
        assert await server.get("j-0") is None
        with pytest.raises(BatchServerError, match=r"^404 "):
            await server.cancel("j-0")


async def test_why_a_job_failed_is_told(server: BatchServer) -> None:
    file_id = await server.upload(io.BytesIO(b"{}\nno\n"), 6, "a.jsonl")
    made = await create(server, file_id)
    seen = await ended(server, made)
    assert (seen.standing, seen.status) == (Standing.FAILED, "FAILED")
    assert [(one.code, one.line) for one in seen.problems] == [("", None)] * 2
    assert seen.problems[1].message == "line 2: This line is not parseable as valid JSON."


async def test_a_lost_reply_is_found_by_the_list(server: BatchServer, simulator: Simulator) -> None:
    simulator.fail_batches("lost_create=1")
    file_id = await server.upload(io.BytesIO(b"{}\n"), 3, "a.jsonl")
    assert isinstance(await create(server, file_id), Unclear)
    found = await server.recent(0)
    assert found is not None
    assert [(one.input_file, one.token) for one in found] == [(file_id, "t-1")]


async def test_the_list_has_pages(server: BatchServer) -> None:
    file_id = await server.upload(io.BytesIO(b"{}\n"), 3, "a.jsonl")
    made = [await create(server, file_id) for _ in range(205)]
    found = await server.recent(0)
    assert found is not None
    assert sorted(one.batch_id for one in found) == sorted(one.batch_id for one in made)


@pytest.mark.parametrize(
    ("window", "hours"), [("24h", 24), ("7d", 168), ("1h", 1), ("soon", "soon"), ("30m", "30m")]
)
async def test_the_window_is_told_in_hours(
    told: Provider, odd: BatchServer, window: str, hours: int | str
) -> None:
    told.says("POST /batch/jobs", 200, JOB)
    made = await create(odd, window=window)
    assert made == Seen("j-1", Standing.RUNNING, "RUNNING", created_at=1_700_000_000_000)
    assert told.asked[0].body == {
        "input_files": ["in"],
        "endpoint": "/v1/chat/completions",
        "model": "m-1",
        "metadata": {"batchgen": "t-1"},
        "timeout_hours": hours,
    }


@pytest.mark.parametrize(
    ("body", "seen"),
    [
        ({"status": "TIMEOUT_EXCEEDED"}, {"standing": Standing.EXPIRED}),
        ({"status": "CANCELLED"}, {"standing": Standing.CANCELLED}),
        ({"status": "RESTING"}, {"standing": Standing.RUNNING}),
        ({"status": "FAILED"}, {"standing": Standing.FAILED}),
        (
            {"status": "FAILED", "output_file": "o"},
            {"standing": Standing.EXPIRED, "output_file": "o"},
        ),
        ({"input_files": [], "metadata": None, "output_file": "", "errors": None}, {}),
        ({"input_files": ["a", "b"]}, {"input_file": "a"}),
        ({"input_files": [7]}, {}),
        ({"total_requests": 9, "succeeded_requests": 2, "failed_requests": 3},
         {"total": 9, "answered": 2, "failed": 3}),
        ({"errors": [{"message": "bad", "count": 2}, {"message": ""}, 7]},
         {"problems": (LineProblem("", "bad", None),)}),
    ],
)  # fmt: skip
async def test_a_job_is_read_whatever_is_missing(
    told: Provider, odd: BatchServer, body: dict[str, Any], seen: dict[str, Any]
) -> None:
    told.says("GET /batch/jobs/j-1", 200, {**JOB, **body})
    status = body.get("status", "RUNNING")
    expected = {"standing": Standing.RUNNING, "status": status, "created_at": 1_700_000_000_000}
    assert await odd.get("j-1") == Seen("j-1", **{**expected, **seen})


async def test_whether_a_job_was_made(told: Provider, odd: BatchServer) -> None:
    told.says("POST /batch/jobs", 422, {"detail": [{"msg": "no model"}]})
    assert isinstance(await create(odd), Refused)
    for status, body in ((500, ""), (200, ""), (200, {"id": None})):
        told.says("POST /batch/jobs", status, body)
        assert isinstance(await create(odd), Unclear)


@pytest.mark.parametrize("total", [250, None])
async def test_a_list_that_repeats_its_page_is_an_error(
    told: Provider, odd: BatchServer, total: int | None
) -> None:
    jobs = [{**JOB, "id": f"j-{n}"} for n in range(100)]
    told.says("GET /batch/jobs", 200, {"data": jobs, "total": total})
    with pytest.raises(BatchServerError, match="repeats its pages"):
        await odd.recent(0)
    assert [one.query["page"] for one in told.asked] == ["0", "1"]


async def test_pages_may_be_smaller_than_asked_for(told: Provider, odd: BatchServer) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        page = int(request.query["page"])
        jobs = [{**JOB, "id": f"j-{n}"} for n in range(30)][page * 20 : page * 20 + 20]
        return web.json_response({"data": jobs, "total": 30})

    told.answers["GET /batch/jobs"] = answer
    found = await odd.recent(0)
    assert found is not None
    assert len(found) == 30
    told.says("GET /batch/jobs", 404, "")
    assert await odd.recent(0) is None


async def test_a_window_that_is_no_number_of_hours_is_refused(server: BatchServer) -> None:
    file_id = await server.upload(io.BytesIO(b"{}\n"), 3, "a.jsonl")
    made = await create(server, file_id, window="soon")
    assert isinstance(made, Refused)
    assert "timeout_hours" in made.failure.message
