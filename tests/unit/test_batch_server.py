"""Provider batches as OpenAI has them, against the simulated provider over real HTTP."""

import asyncio
import io
import time
from collections.abc import AsyncIterator

import pytest

from batchgen.endpoints import CHAT, EMBEDDINGS, Endpoint
from batchgen.items import Answer, Failure, Reason
from batchgen.llm.batches import (
    BatchLine,
    BatchServer,
    BatchServerError,
    LineProblem,
    Refused,
    Seen,
    Standing,
)
from batchgen.llm.replies import read_reply
from batchgen.simulate import Simulator
from tests.kits.project import KEY
from tests.kits.provider import opened

TOKEN = "0123456789abcdef" * 2
TEXTS = ["plain", "a\u2028b\u2029c\x85d", 'Grüße "東京" 🙂 \\u2028', "half \ud83d"]


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    simulator = Simulator(api_key=KEY)
    async with simulator.running():
        yield simulator


@pytest.fixture
async def server(simulator: Simulator) -> AsyncIterator[BatchServer]:
    async with opened(simulator.base_url) as server:
        yield server


def asking(text: str) -> dict[str, object]:
    return {"model": "m-1", "messages": [{"role": "user", "content": text}]}


async def uploaded(server: BatchServer, texts: list[str], endpoint: Endpoint = CHAT) -> str:
    lines = [server.line(f"id-{n}", asking(text), endpoint) for n, text in enumerate(texts)]
    file = b"".join(lines)
    return await server.upload(io.BytesIO(file), len(file), f"batchgen-{TOKEN}.jsonl")


async def begun(server: BatchServer, texts: list[str], token: str = TOKEN) -> Seen:
    file_id = await uploaded(server, texts)
    made = await server.create(file_id, endpoint=CHAT, model="m-1", window="24h", token=token)
    assert isinstance(made, Seen)
    return made


async def ended(server: BatchServer, seen: Seen) -> Seen:
    async with asyncio.timeout(60):
        while not seen.standing.is_over:
            found = await server.get(seen.batch_id)
            assert found is not None
            seen = found
    return seen


async def lines_of(server: BatchServer, seen: Seen) -> dict[str | None, BatchLine]:
    found = [line async for line in server.lines(seen)]
    by_id = {line.custom_id: line for line in found}
    assert len(by_id) == len(found)
    return by_id


async def test_a_batch_is_uploaded_made_seen_and_read(
    server: BatchServer, simulator: Simulator
) -> None:
    began_at = time.time_ns() // 1_000_000
    made = await begun(server, TEXTS)
    assert (made.standing, made.status, made.token) == (Standing.RUNNING, "validating", TOKEN)
    assert made.created_at is not None
    assert made.expires_at == made.created_at + 24 * 3600 * 1000
    assert began_at - 1000 <= made.created_at <= time.time_ns() // 1_000_000
    seen = await ended(server, made)
    assert seen.standing is Standing.COMPLETED
    assert (seen.total, seen.answered, seen.failed) == (4, 4, 0)
    assert (seen.input_file, seen.error_file, seen.problems) == (made.input_file, None, ())
    assert await server.recent(began_at) == [seen]
    found = await lines_of(server, seen)
    assert found.keys() == {f"id-{n}" for n in range(4)}
    for line in found.values():
        assert line.reply is not None
        assert isinstance(read_reply(line.reply, CHAT), Answer)
        assert (line.reply.status, line.reply.latency_ms, line.error_code) == (200, 0, None)
        assert line.reply.headers["x-request-id"]
    assert simulator.bill.batch == {text.replace("\ud83d", "?"): 1 for text in TEXTS}


async def test_the_ends_of_lines_of_some_readers_are_sent_as_escapes(server: BatchServer) -> None:
    line = server.line("a", asking(TEXTS[1]), CHAT).decode()
    assert line.splitlines(keepends=True) == [line]
    assert line.endswith('"a\\u2028b\\u2029c\\u0085d"}]}}\n')
    assert '"url":"/v1/chat/completions"' in line
    assert '"url":"/v1/embeddings"' in server.line("a", {"model": "m"}, EMBEDDINGS).decode()


async def test_errors_of_lines_are_replies_with_their_status(
    server: BatchServer, simulator: Simulator
) -> None:
    simulator.script("bad", "400")
    simulator.script("late", "500")
    seen = await ended(server, await begun(server, ["good", "bad", "late"]))
    assert (seen.answered, seen.failed) == (1, 2)
    found = await lines_of(server, seen)
    whats = {
        custom_id: line.reply and read_reply(line.reply, CHAT) for custom_id, line in found.items()
    }
    assert isinstance(whats["id-0"], Answer)
    assert isinstance(whats["id-1"], Failure)
    assert whats["id-1"].reason is Reason.REJECTED
    assert isinstance(whats["id-2"], Failure)
    assert whats["id-2"].reason is Reason.SERVER


async def test_what_was_not_answered_of_a_cancelled_batch_says_so() -> None:
    simulator = Simulator(batch_seconds=10)
    async with simulator.running() as url, opened(url) as server:
        made = await begun(server, ["a", "b"])
        seen: Seen | None = made
        while seen is None or seen.status == "validating":
            seen = await server.get(made.batch_id)
        simulator.hold()
        await server.cancel(made.batch_id)
        await server.cancel(made.batch_id)  # while it is being cancelled
        simulator.release()
        seen = await ended(server, made)
        await server.cancel(made.batch_id)  # when it is over
        assert (seen.standing, seen.output_file) == (Standing.CANCELLED, None)
        found = await lines_of(server, seen)
    assert found.keys() == {"id-0", "id-1"}
    assert {line.error_code for line in found.values()} == {"batch_cancelled"}
    assert all(line.reply is None and line.error_message for line in found.values())
    assert simulator.bill.batch == {}


async def test_why_a_batch_failed_is_told_by_line(server: BatchServer) -> None:
    line = server.line("same", asking("a"), CHAT)
    file_id = await server.upload(io.BytesIO(line + line), 2 * len(line), "a.jsonl")
    made = await server.create(file_id, endpoint=CHAT, model="m-1", window="24h", token=TOKEN)
    assert isinstance(made, Seen)
    seen = await ended(server, made)
    assert seen.standing is Standing.FAILED
    [problem] = seen.problems
    assert problem == LineProblem("duplicate_custom_id", problem.message, 2)
    assert "duplicate" in problem.message
    assert [line async for line in server.lines(seen)] == []


async def test_whose_lines_of_an_input_file_are_is_told_by_their_numbers(
    server: BatchServer,
) -> None:
    lines = [server.line(f"id-{n}", asking("a"), CHAT) for n in range(1, 5)]
    file = b"".join([*lines, b'{"custom_id": "id-5", \n', b"no\n", b"\n"])
    file_id = await server.upload(io.BytesIO(file), len(file), "a.jsonl")
    found = await server.custom_ids(file_id, {2, 4, 5, 6, 7, 8, 99})
    assert found == {2: "id-2", 4: "id-4", 5: "id-5"}
    with pytest.raises(BatchServerError, match=r"^404 "):
        await server.custom_ids("file-x", {1})


async def test_a_file_is_read_from_where_it_stands_as_far_as_told(
    server: BatchServer, simulator: Simulator
) -> None:
    line = server.line("a", asking("a"), CHAT)
    file = io.BytesIO(b"not this" + line + b"nor this")
    file.seek(8)
    file_id = await server.upload(file, len(line), "a.jsonl")
    made = await server.create(file_id, endpoint=CHAT, model="m-1", window="24h", token=TOKEN)
    assert isinstance(made, Seen)
    assert (await ended(server, made)).standing is Standing.COMPLETED


async def test_a_file_that_is_shorter_than_told_is_an_error_of_the_file(
    server: BatchServer,
) -> None:
    with pytest.raises(OSError, match=r"^the file ends 5 bytes before its end$"):
        await server.upload(io.BytesIO(b"{}\n"), 8, "a.jsonl")


async def test_the_list_goes_back_to_the_time_over_many_pages(server: BatchServer) -> None:
    file_id = await uploaded(server, ["a"])
    began_at = time.time_ns() // 1_000_000
    made = []
    for n in range(205):
        seen = await server.create(
            file_id, endpoint=CHAT, model="m-1", window="24h", token=f"{n:032x}"
        )
        assert isinstance(seen, Seen)
        made.append(seen.batch_id)
    found = await server.recent(began_at)
    assert found is not None
    assert sorted(one.batch_id for one in found) == sorted(made)
    assert len({one.token for one in found}) == 205
    assert await server.recent(began_at + 3_600_000) == []


async def test_what_is_not_there_is_none_and_gone(server: BatchServer) -> None:
    assert await server.get("batch_x/../y?z") is None
    with pytest.raises(BatchServerError, match=r"^404 "):
        await server.cancel("batch_x")
    file_id = await uploaded(server, ["a"])
    assert await server.forget([file_id, "", file_id, "file-x"])
    assert await server.forget([file_id])
    with pytest.raises(BatchServerError, match=r"^404 No such File"):
        await lines_of(server, Seen("b", Standing.COMPLETED, "completed", output_file=file_id))


async def test_a_wrong_key_halts_and_is_not_shown(simulator: Simulator) -> None:
    async with opened(simulator.base_url, key="sk-wrong-key-0123456789") as server:
        made = await server.create("f", endpoint=CHAT, model="m", window="24h", token=TOKEN)
        assert isinstance(made, Refused)
        assert made.failure.halt is not None
        assert "does not accept the API key" in made.failure.halt
        for call in (server.recent(0), server.get("b"), server.upload(io.BytesIO(), 0, "a")):
            with pytest.raises(BatchServerError) as caught:
                await call
            assert caught.value.failure.halt == made.failure.halt
        assert not await server.forget(["f"])
