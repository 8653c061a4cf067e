"""Providers of batches that reply as no good one would: what is known then, and what is not."""

import asyncio
import gzip
import io
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from batchgen.config import ModelConfig, SentValue
from batchgen.endpoints import CHAT
from batchgen.errors import ConfigError
from batchgen.items import Reason, Trouble
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
from tests.kits.project import KEY
from tests.kits.provider import Provider, opened, provider
from tests.kits.tcp import answering, closing, listening, silence

DONE = Seen("b-1", Standing.COMPLETED, "completed", output_file="out", error_file="err")
BATCH = {"id": "b-1", "object": "batch", "status": "in_progress", "created_at": 1_700_000_000}


@pytest.fixture
async def told() -> AsyncIterator[Provider]:
    async with provider() as one:
        yield one


@pytest.fixture
async def server(told: Provider) -> AsyncIterator[BatchServer]:
    async with opened(told.url) as one:
        yield one


async def create(server: BatchServer) -> Seen | Refused | Unclear:
    return await server.create("in", endpoint=CHAT, model="m-1", window="24h", token="t")


async def read(server: BatchServer, seen: Seen = DONE) -> list[str | None]:
    return [line.custom_id async for line in server.lines(seen)]


def line(custom_id: str, text: str = "Yes") -> bytes:
    body = {"choices": [{"message": {"content": text}}]}
    response = {"status_code": 200, "request_id": "r", "body": body}
    value = {"custom_id": custom_id, "response": response, "error": None}
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"


def head(*headers: str, status: str = "200 OK") -> bytes:
    return "\r\n".join((f"HTTP/1.1 {status}", *headers, "", "")).encode()


# Whether a batch was made


@pytest.mark.parametrize("status", [500, 502, 503, 504, 408, 409, 425])
async def test_after_an_error_of_the_server_the_batch_may_have_been_made(
    told: Provider, server: BatchServer, status: int
) -> None:
    told.says("POST /batches", status, {"error": {"message": "sorry"}})
    assert await create(server) == Unclear(f"{status} sorry")
    assert [one.method for one in told.asked] == ["POST"]  # once


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("", "an empty body"),
        ("<html>Welcome</html>", "<html>Welcome</html>"),
        ({"object": "batch", "id": ""}, '{"object": "batch", "id": ""}'),
        ([BATCH], None),
        ({"id": 7}, None),
    ],
)
async def test_a_success_without_a_batch_tells_nothing(
    told: Provider, server: BatchServer, body: Any, said: str | None
) -> None:
    told.says("POST /batches", 200, body)
    made = await create(server)
    assert isinstance(made, Unclear)
    assert made.message.startswith("200, but not what was asked for: ")
    assert said is None or made.message.endswith(said)


async def test_an_error_with_status_200_tells_nothing_either(
    told: Provider, server: BatchServer
) -> None:
    told.says("POST /batches", 200, {"error": {"message": "busy", "code": 503}})
    assert await create(server) == Unclear("503 busy")


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "ServerDisconnectedError: Server disconnected"),
        (
            head("Content-Length: 99") + b'{"id":',
            "the connection ended in the middle of the answer",
        ),
        (b"SSH-2.0\r\n", "ClientResponseError: Bad status line"),
    ],
)
async def test_a_lost_reply_tells_nothing(raw: bytes, said: str) -> None:
    async with listening(closing(raw)) as url, opened(url) as server:
        made = await create(server)
    assert isinstance(made, Unclear)
    assert made.message.startswith(said)


async def test_a_reply_that_does_not_come_in_time_tells_nothing() -> None:
    begun = answering(head("Content-Length: 99") + b"{")
    for serve in (silence, begun):
        async with listening(serve) as url, opened(url, timeout_s=0.2) as server:
            assert await create(server) == Unclear("no whole answer within 0.2 s")


async def test_nobody_there_means_that_nothing_was_made() -> None:
    async with listening(silence) as url:
        pass
    async with opened(url) as server:
        made = await create(server)
        assert isinstance(made, Refused)
        assert made.failure.trouble is Trouble.UNREACHABLE
        assert made.failure.reason is Reason.CONNECTION
        with pytest.raises(BatchServerError) as caught:
            await server.get("b-1")
        assert caught.value.failure.trouble is Trouble.UNREACHABLE


@pytest.mark.parametrize("status", [400, 403, 404, 413, 422, 429])
async def test_after_a_refusal_nothing_was_made(
    told: Provider, server: BatchServer, status: int
) -> None:
    told.says("POST /batches", status, {"error": {"message": "no"}}, Retry_After="7")
    made = await create(server)
    assert isinstance(made, Refused)
    assert made.failure.message == f"{status} no"
    assert made.failure.retry_after_s == (7.0 if status == 429 else None)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(told: Provider, server: BatchServer, status: int) -> None:
    async with provider() as elsewhere:
        places = ["POST /batches", "GET /batches", "GET /files/out/content", "DELETE /files/out"]
        for place in [*places, "POST /files"]:
            told.says(place, status, "", Location=f"{elsewhere.url}/files/out/content")
        made = await create(server)
        assert isinstance(made, Refused)
        assert made.failure.halt is not None
        assert "sends us elsewhere" in made.failure.halt
        with pytest.raises(BatchServerError, match=f"^{status} redirects to http"):
            await server.recent(0)
        with pytest.raises(BatchServerError, match=f"^{status} redirects to http"):
            await read(server)
        with pytest.raises(BatchServerError, match=f"^{status} redirects to http"):
            await server.upload(io.BytesIO(b"{}"), 2, "a.jsonl")
        assert not await server.forget(["out"])
    assert elsewhere.asked == []


async def test_no_error_shows_the_key(told: Provider, server: BatchServer) -> None:
    body = {"error": {"message": f"the key {KEY} may not", "code": KEY}}
    for place in ("POST /batches", "GET /batches", "POST /files", "GET /files/out/content"):
        told.says(place, 418, body, Location=KEY)
    shown = [repr(await create(server))]
    for call in (server.recent(0), server.upload(io.BytesIO(), 0, "a"), read(server)):
        with pytest.raises(BatchServerError) as caught:
            await call
        shown += [str(caught.value), repr(caught.value.failure)]
    assert all("may not" in one and KEY not in one for one in shown)


async def test_a_batch_is_asked_for_with_all_that_finds_it_again(
    told: Provider, server: BatchServer
) -> None:
    told.says("POST /batches", 200, BATCH)
    made = await create(server)
    assert made == Seen("b-1", Standing.RUNNING, "in_progress", created_at=1_700_000_000_000)
    assert told.asked[0].body == {
        "input_file_id": "in",
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "metadata": {"batchgen": "t"},
    }


# What a batch says of itself


@pytest.mark.parametrize(
    ("body", "seen"),
    [
        ({"status": "COMPLETED"}, {"standing": Standing.COMPLETED}),
        ({"status": "canceled"}, {"standing": Standing.CANCELLED}),
        ({"status": "expired"}, {"standing": Standing.EXPIRED}),
        ({"status": "resting"}, {"standing": Standing.RUNNING}),
        ({"status": None}, {"standing": Standing.RUNNING, "status": ""}),
        ({"output_file_id": "", "error_file_id": "", "input_file_id": ""}, {}),
        ({"output_file_id": 7, "error_file_id": "e"}, {"error_file": "e"}),
        ({"metadata": {"batchgen": ""}}, {}),
        ({"metadata": "x"}, {}),
        ({"metadata": {"batchgen": "t"}}, {"token": "t"}),
        ({"request_counts": {"total": 0, "completed": None, "failed": True}}, {}),
        (
            {"request_counts": {"total": 9, "completed": 2, "failed": 3}},
            {"total": 9, "answered": 2, "failed": 3},
        ),
        ({"request_counts": []}, {}),
        ({"created_at": "today", "expires_at": 1.5}, {"created_at": None, "expires_at": 1500}),
        ({"created_at": 1e30, "expires_at": -1}, {"created_at": None}),
        # What has been answered is billed: it has not failed as one that nothing ran of.
        (
            {"status": "failed", "request_counts": {"completed": 1}},
            {"standing": Standing.EXPIRED, "answered": 1},
        ),
        (
            {"status": "failed", "output_file_id": "o"},
            {"standing": Standing.EXPIRED, "output_file": "o"},
        ),
        (
            {"status": "failed", "errors": {"data": [
                {"code": "invalid_json_line", "line": 3, "message": "no JSON"},
                {"code": None, "line": None, "message": 7}, None, "x",
            ]}},
            {"standing": Standing.FAILED, "problems": (
                LineProblem("invalid_json_line", "no JSON", 3), LineProblem("", "", None),
            )},
        ),
        ({"status": "failed", "errors": 7}, {"standing": Standing.FAILED}),
    ],
)  # fmt: skip
async def test_a_batch_is_read_whatever_is_missing(
    told: Provider, server: BatchServer, body: dict[str, Any], seen: dict[str, Any]
) -> None:
    told.says("GET /batches/b-1", 200, {**BATCH, **body})
    status = body.get("status", BATCH["status"])
    expected = {"standing": Standing.RUNNING, "status": status, "created_at": 1_700_000_000_000}
    assert await server.get("b-1") == Seen("b-1", **{**expected, **seen})


async def test_a_get_that_fails_is_not_taken_for_a_batch_that_is_gone(
    told: Provider, server: BatchServer
) -> None:
    for status, body in ((500, ""), (401, ""), (200, ""), (200, {"id": ""}), (200, [])):
        told.says("GET /batches/b-1", status, body)
        with pytest.raises(BatchServerError):
            await server.get("b-1")
    told.says("GET /batches/b-1", 404, "")
    assert await server.get("b-1") is None


async def test_a_cancel_is_an_error_only_while_the_batch_runs(
    told: Provider, server: BatchServer
) -> None:
    told.says("POST /batches/b-1/cancel", 409, {"error": {"message": "cannot"}})
    for status in ("completed", "expired", "failed", "cancelled", "cancelling"):
        told.says("GET /batches/b-1", 200, {**BATCH, "status": status})
        await server.cancel("b-1")
    told.says("GET /batches/b-1", 200, {**BATCH, "status": "validating"})
    with pytest.raises(BatchServerError, match=r"^409 cannot$"):
        await server.cancel("b-1")


# The list


def of_list(told: Provider, pages: dict[str, Any]) -> None:
    """A list whose page after a batch, or '' for the first one, is that."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.json_response(pages[request.query.get("after", "")])

    told.answers["GET /batches"] = answer


def batches(*created: int) -> list[dict[str, Any]]:
    return [{**BATCH, "id": f"b-{second}", "created_at": second} for second in created]


async def ids_since(server: BatchServer, second: int) -> list[str] | None:
    found = await server.recent(second * 1000)
    return None if found is None else [one.batch_id for one in found]


@pytest.mark.parametrize("status", [404, 405, 501])
async def test_a_provider_may_have_no_list(
    told: Provider, server: BatchServer, status: int
) -> None:
    told.says("GET /batches", status, "")
    assert await ids_since(server, 0) is None


async def test_the_list_is_read_no_further_than_the_time(
    told: Provider, server: BatchServer
) -> None:
    of_list(
        told,
        {
            "": {"data": batches(50, 40), "has_more": True},
            "b-40": {"data": batches(30, 20), "has_more": True},
            "b-20": {"data": batches(10), "has_more": True},
        },
    )
    assert await ids_since(server, 25) == ["b-50", "b-40", "b-30"]
    assert [one.query for one in told.asked] == [
        {"limit": "100"}, {"limit": "100", "after": "b-40"},
    ]  # fmt: skip
    # A provider tells whole seconds: this one may have been made at 20.7.
    found = await server.recent(20_700)
    assert found is not None
    assert [one.batch_id for one in found] == ["b-50", "b-40", "b-30", "b-20"]


async def test_a_page_follows_the_batch_that_the_provider_names(
    told: Provider, server: BatchServer
) -> None:
    """LiteLLM shows batches by ids of its own, and knows none of them there."""
    first = {"data": batches(50, 40), "last_id": "its-40", "has_more": True}
    then = {"data": batches(30), "last_id": "its-30", "has_more": False}
    of_list(told, {"": first, "its-40": then})
    assert await ids_since(server, 0) == ["b-50", "b-40", "b-30"]


async def test_a_list_that_begins_with_the_oldest_is_read_to_its_end(
    told: Provider, server: BatchServer
) -> None:
    of_list(
        told,
        {
            "": {"data": batches(10, 20), "has_more": True},
            "b-20": {"data": batches(30, 40), "has_more": False},
        },
    )
    assert await ids_since(server, 25) == ["b-40", "b-30"]


@pytest.mark.parametrize(
    "page",
    [batches(30, 20), {"data": batches(30, 20)}, {"data": batches(30, 20), "has_more": False}],
)
async def test_a_list_may_have_no_pages(told: Provider, server: BatchServer, page: Any) -> None:
    of_list(told, {"": page})
    assert await ids_since(server, 0) == ["b-30", "b-20"]
    assert len(told.asked) == 1


@pytest.mark.parametrize("page", [{"data": []}, {"data": None, "has_more": True}, []])
async def test_a_list_may_be_empty(told: Provider, server: BatchServer, page: Any) -> None:
    of_list(told, {"": page})
    assert await ids_since(server, 0) == []


async def test_a_list_that_repeats_its_pages_is_an_error_and_not_short(
    told: Provider, server: BatchServer
) -> None:
    told.says("GET /batches", 200, {"data": batches(30, 20), "has_more": True})
    with pytest.raises(BatchServerError, match=r"repeats its pages$"):
        await server.recent(0)
    assert len(told.asked) == 2
    assert await ids_since(server, 25) == ["b-30"]  # without what is repeated


@pytest.mark.slow
async def test_a_list_without_an_end_ends(told: Provider, server: BatchServer) -> None:
    numbers = iter(range(1_000_000, 0, -1))

    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        return web.json_response({"data": batches(next(numbers)), "has_more": True})

    told.answers["GET /batches"] = answer
    with pytest.raises(BatchServerError, match="has no end"):
        await server.recent(0)


async def test_a_reply_that_is_no_list_is_an_error(told: Provider, server: BatchServer) -> None:
    for status, body in ((200, {}), (200, ""), (200, {"error": "x"}), (500, ""), (429, "")):
        told.says("GET /batches", status, body)
        with pytest.raises(BatchServerError):
            await server.recent(0)


# Upload


async def test_a_file_goes_up_as_a_form_with_what_goes_with_each_request(
    told: Provider, server: BatchServer
) -> None:
    form: dict[str, Any] = {}

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        assert not request.headers.get("Transfer-Encoding")
        async for part in await request.multipart():
            form[str(part.name)] = (part.filename, await part.read())  # type: ignore[union-attr]
        return web.json_response({"id": "file-1"})

    told.answers["POST /files"] = answer
    file = io.BytesIO(b'{"a": 1}\n')
    assert await server.upload(file, 9, "batchgen-x.jsonl") == "file-1"
    assert form == {"purpose": (None, b"batch"), "file": ("batchgen-x.jsonl", b'{"a": 1}\n')}
    headers = told.asked[0].headers
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert headers["User-Agent"].startswith("AsyncOpenAI/Python ")


async def test_no_cookie_is_kept(told: Provider) -> None:
    told.says("GET /batches/b-1", 200, BATCH, Set_Cookie="machine=7")
    async with opened(
        told.url.replace("127.0.0.1", "localhost")
    ) as server:  # none is kept of an IP
        await server.get("b-1")
        await server.get("b-1")
    assert ["Cookie" in one.headers for one in told.asked] == [False, False]


@pytest.mark.parametrize("status", [404, 405, 501])
async def test_a_server_without_files_has_no_batches(
    told: Provider, server: BatchServer, status: int
) -> None:
    told.says("POST /files", status, "")
    with pytest.raises(BatchServerError) as caught:
        await server.upload(io.BytesIO(b"{}\n"), 3, "a.jsonl")
    assert caught.value.failure.halt is not None
    assert "files of provider batches" in caught.value.failure.halt


@pytest.mark.parametrize("body", ["", {}, {"id": ""}, {"id": 7}, []])
async def test_an_upload_without_an_id_is_an_error(
    told: Provider, server: BatchServer, body: Any
) -> None:
    told.says("POST /files", 200, body)
    with pytest.raises(BatchServerError, match=r"^200, but not what was asked for: "):
        await server.upload(io.BytesIO(b"{}\n"), 3, "a.jsonl")


async def test_an_upload_may_take_long_while_something_of_it_goes(told: Provider) -> None:
    """Twice as long as nothing may happen."""
    size = 64 * 1024 * 1024  # more than stands in buffers

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        for _ in range(20):
            await request.content.readexactly(1024 * 1024)
            await asyncio.sleep(0.1)
        while await request.content.readany():
            pass
        return web.json_response({"id": "file-1"})

    told.answers["POST /files"] = answer
    async with opened(told.url, timeout_s=1) as server:
        began_at = time.monotonic()
        assert await server.upload(io.BytesIO(bytes(size)), size, "a.jsonl") == "file-1"
        assert time.monotonic() - began_at > 2


async def test_an_upload_that_nobody_takes_ends() -> None:
    size = 64 * 1024 * 1024

    async def takes_nothing(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read(1)

    async with listening(takes_nothing) as url, opened(url, timeout_s=0.5) as server:
        with pytest.raises(BatchServerError) as caught:
            await server.upload(io.BytesIO(bytes(size)), size, "a.jsonl")
    assert caught.value.failure.reason is Reason.TIMEOUT


async def test_a_refusal_in_the_middle_of_an_upload_is_told(told: Provider) -> None:
    size = 64 * 1024 * 1024
    raw = head("Content-Length: 2", status="413 Too Large") + b"{}"
    async with listening(answering(raw)) as url, opened(url) as server:
        with pytest.raises(BatchServerError, match=r"^413"):
            await server.upload(io.BytesIO(bytes(size)), size, "a.jsonl")


# Download


async def test_both_files_are_read_to_their_ends(told: Provider, server: BatchServer) -> None:
    told.says("GET /files/out/content", 200, b"\n" + line("a") + b"\r\n  \n" + line("b")[:-1])
    told.says("GET /files/err/content", 200, line("c"))
    assert await read(server) == ["a", "b", "c"]
    told.says("GET /files/err/content", 200, b"")
    assert await read(server) == ["a", "b"]
    same = Seen("b-1", Standing.EXPIRED, "expired", output_file="out", error_file="out")
    assert await read(server, same) == ["a", "b"]
    assert await read(server, Seen("b-1", Standing.EXPIRED, "expired")) == []


async def test_a_line_may_be_large_and_have_any_character(
    told: Provider, server: BatchServer
) -> None:
    texts = ["\u2028\u2029\x85\x1e\x0c\r\n", "x" * 20_000_000, "東京"]
    whole = b"".join(line(str(n), text) for n, text in enumerate(texts))
    told.says("GET /files/out/content", 200, whole)
    told.says("GET /files/err/content", 200, "")
    found = [one async for one in server.lines(DONE)]
    assert [one.custom_id for one in found] == ["0", "1", "2"]
    bodies = [json.loads(one.reply.body or "") for one in found if one.reply]
    assert [body["choices"][0]["message"]["content"] for body in bodies] == texts


CUT = [
    head("Content-Length: 100000") + line("a") + line("b"),
    head("Content-Length: 100000") + line("a") + line("b")[:-20],
    head("Transfer-Encoding: chunked") + b"%x\r\n%b\r\n" % (len(line("a")), line("a")),
    head("Transfer-Encoding: chunked") + b"fff\r\n" + line("a"),
]


@pytest.mark.parametrize("raw", CUT)
async def test_a_file_that_is_cut_is_not_taken_for_whole(raw: bytes) -> None:
    async with listening(closing(raw)) as url, opened(url) as server:
        with pytest.raises(BatchServerError) as caught:
            await read(server)
    assert caught.value.failure.reason is Reason.CONNECTION
    assert str(caught.value) == "the connection ended in the middle of the answer"


@pytest.mark.parametrize(("size", "is_whole"), [(0, True), (1, False), (None, False), ("x", False)])
async def test_an_end_that_http_does_not_tell_is_told_by_the_files_size(
    size: int | str | None, is_whole: bool
) -> None:
    content = line("a") + line("b")
    told = size if isinstance(size, str) or size is None else len(content) + size
    about = json.dumps({"id": "out", "bytes": told}).encode()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        if b"/files/out/content" in request:
            writer.write(head("Connection: close") + content)
        elif b"/files/out" in request:
            writer.write(head(f"Content-Length: {len(about)}") + about)
        await writer.drain()
        writer.close()

    seen = Seen("b-1", Standing.COMPLETED, "completed", output_file="out")
    async with listening(serve) as url, opened(url) as server:
        if is_whole:
            assert await read(server, seen) == ["a", "b"]
        else:
            with pytest.raises(BatchServerError, match="whether the file is whole"):
                await read(server, seen)


@pytest.mark.parametrize("missing", [0, 30])
async def test_a_packed_file_is_whole_if_it_has_the_files_size(
    told: Provider, server: BatchServer, missing: int
) -> None:
    content = line("a") + b"".join(line(str(n), f"{n:09}") for n in range(2000)) + line("b")
    packed = gzip.compress(content)
    packed = packed[: len(packed) - missing]
    told.says("GET /files/out/content", 200, packed, Content_Encoding="gzip")
    told.says("GET /files/out", 200, {"id": "out", "bytes": len(content)})
    told.says("GET /files/err/content", 200, "")
    if not missing:
        assert len(await read(server)) == 2002
    else:
        with pytest.raises(BatchServerError, match="whether the file is whole"):
            await read(server)


async def test_each_request_has_a_connection_of_its_own(
    told: Provider, server: BatchServer
) -> None:
    """On one that is kept, which the provider may have closed, a create could get lost."""
    places = []

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        places.append(request.transport.get_extra_info("peername"))
        return web.json_response(BATCH)

    told.answers["GET /batches/b-1"] = told.answers["POST /batches"] = answer
    for _ in range(3):
        await server.get("b-1")
        assert isinstance(await create(server), Seen)
    assert len(set(places)) == 6


@pytest.mark.parametrize(
    ("status", "body", "content_type"),
    [
        (200, "<html>Log in</html>", "text/html; charset=utf-8"),
        (200, "", "text/html"),
        (200, "<html>Log in</html>", "text/plain"),
        (200, {"error": {"message": "not ready"}}, "application/json"),
        (200, '{\n"error": 1\n}', "application/json"),
        (200, "null", "application/json"),
        (404, {"error": {"message": "no file"}}, "application/json"),
        (500, "", "application/json"),
    ],
)
async def test_what_is_no_file_of_answers_is_an_error_and_not_an_empty_one(
    told: Provider, server: BatchServer, status: int, body: Any, content_type: str
) -> None:
    told.says("GET /files/out/content", status, body, Content_Type=content_type)
    told.says("GET /files/err/content", 200, "")
    with pytest.raises(BatchServerError):
        await read(server)


async def test_a_download_that_stands_still_ends() -> None:
    raw = head("Content-Length: 100000") + line("a")
    async with listening(answering(raw)) as url, opened(url, timeout_s=0.2) as server:
        with pytest.raises(BatchServerError, match=r"^nothing more of the file within 0\.2 s$"):
            await read(server)
    async with listening(silence) as url, opened(url, timeout_s=0.2) as server:
        with pytest.raises(BatchServerError, match=r"^no reply within 0\.2 s$"):
            await read(server)


async def test_a_download_may_take_long_while_something_comes(told: Provider) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for n in range(20):
            await asyncio.sleep(0.1)
            await response.write(line(str(n)))
        return response

    told.answers["GET /files/out/content"] = answer
    told.says("GET /files/err/content", 200, "")
    async with opened(told.url, timeout_s=1) as server:
        assert await read(server) == [str(n) for n in range(20)]


async def test_who_reads_a_file_slowly_is_not_taken_for_a_slow_provider(told: Provider) -> None:
    told.says("GET /files/out/content", 200, line("a", "x" * 1000) * 5000)
    told.says("GET /files/err/content", 200, "")
    n = 0
    async with opened(told.url, timeout_s=0.3) as server:
        async for _ in server.lines(DONE):
            n += 1
            if n % 1000 == 0:
                await asyncio.sleep(0.4)
    assert n == 5000


async def test_who_stops_reading_closes_the_connection(told: Provider) -> None:
    left = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head("Content-Length: 100000") + line("a"))
        await reader.read()
        left.set()

    async with listening(serve) as url, opened(url) as server:
        lines = server.lines(DONE)
        assert (await anext(lines)).custom_id == "a"
        await lines.aclose()
        async with asyncio.timeout(30):
            await left.wait()


# Files that are to go


async def test_files_are_gone_when_all_are(told: Provider, server: BatchServer) -> None:
    told.says("DELETE /files/a", 200, {"deleted": True})
    told.says("DELETE /files/c", 500, "")
    assert await server.forget(["a", "b"])
    assert not await server.forget(["c", "a"])
    assert [one.path for one in told.asked] == ["/files/a", "/files/b", "/files/c", "/files/a"]
    async with listening(silence) as url:
        pass
    async with opened(url) as gone:
        assert not await gone.forget(["a"])
        assert await gone.forget([])


async def test_ids_cannot_lead_elsewhere(told: Provider, server: BatchServer) -> None:
    assert await server.get("../files?x=1#y") is None
    assert told.asked[0].path == "/batches/../files?x=1#y"  # all of it as one name
    assert told.asked[0].query == {}


async def test_what_the_user_sends_with_calls_goes_with_these_too(told: Provider) -> None:
    model = ModelConfig(
        base_url=told.url,
        api_key=KEY,
        headers={"X-Title": SentValue("mine"), "content-type": SentValue("application/json; a=b")},
        query={"api-version": SentValue("2024-10-21")},
    )
    told.says("GET /batches", 200, {"data": batches(30), "has_more": False})
    told.says("POST /files", 200, {"id": "file-1"})
    async with open_batch_server(model, timeout_s=30) as server:
        await server.recent(0)
        await create(server)
        await server.upload(io.BytesIO(b"{}\n"), 3, "a.jsonl")
    listed, created, uploaded = told.asked
    assert listed.query == {"api-version": "2024-10-21", "limit": "100"}
    assert created.query == uploaded.query == {"api-version": "2024-10-21"}
    assert [one.headers["X-Title"] for one in told.asked] == ["mine"] * 3
    assert "Content-Type" not in listed.headers
    assert created.headers["Content-Type"] == "application/json; a=b"
    assert uploaded.headers["Content-Type"].startswith("multipart/form-data; boundary=")
    assert {one.headers["Accept-Encoding"] for one in told.asked} == {"identity"}


async def test_a_key_that_cannot_be_sent_is_an_error_before_anything_is(told: Provider) -> None:
    with pytest.raises(ConfigError, match=r"^model\.api_key: "):
        async with opened(told.url, key="sk-\n"):
            pass


async def test_the_proxy_of_the_environment_is_used(
    told: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = told.url.removeprefix("http://").removesuffix("/v1")
    monkeypatch.setenv("HTTP_PROXY", f"http://user:pass-0123456@{place}")
    told.says("POST /batches", 502, {"error": {"message": "dXNlcjpwYXNzLTAxMjM0NTY="}})
    async with opened("http://provider.invalid/v1") as server:
        assert await create(server) == Unclear("502 [proxy password]")
    assert told.asked[0].headers["Host"] == "provider.invalid"


async def test_a_tunnel_that_a_proxy_does_not_make_means_that_nothing_was_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw = head("Content-Length: 0", status="502 Bad Gateway")
    async with listening(answering(raw)) as url:
        monkeypatch.setenv("HTTPS_PROXY", url.removesuffix("/v1"))
        async with opened("https://provider.invalid/v1") as server:
            made = await create(server)
    assert isinstance(made, Refused)
    assert made.failure.trouble is Trouble.UNREACHABLE
