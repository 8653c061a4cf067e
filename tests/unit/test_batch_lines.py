"""Lines of answer files: split where they end, and read whatever they are."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.config import ModelConfig, secrets_of
from batchgen.endpoints import CHAT
from batchgen.items import Answer, Failure, Reason
from batchgen.llm.batches import BatchLine
from batchgen.llm.batches.lines import LineReader, LineSplitter
from batchgen.llm.replies import read_reply
from tests.kits.project import KEY

READER = LineReader(secrets_of(ModelConfig(api_key=KEY)))
BODY = {
    "object": "chat.completion",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"content": "Yes"}}],
}


def read(line: Any) -> BatchLine:
    raw = line if isinstance(line, bytes) else json.dumps(line, ensure_ascii=False).encode()
    return READER.read(raw)


def answered(body: Any, status: Any = 200, **more: Any) -> dict[str, Any]:
    response = {"status_code": status, "request_id": "req_1", "body": body}
    return {"id": "r", "custom_id": "a-1", "response": response, "error": None, **more}


# Splitting


@given(st.lists(st.binary(max_size=20)), st.lists(st.integers(1, 15), min_size=1))
def test_pieces_are_split_at_newlines_alone_wherever_they_are_cut(
    lines: list[bytes], cuts: list[int]
) -> None:
    whole = b"\n".join(line.replace(b"\n", b"") for line in lines)
    splitter, found, place = LineSplitter(), [], 0
    while place < len(whole):
        size = cuts[place % len(cuts)]
        found += splitter.feed(whole[place : place + size])
        place += size
    assert [*found, *splitter.feed(b"\n")] == whole.split(b"\n")


def test_of_a_line_that_is_too_long_the_beginning_is_kept_and_the_next_is_whole() -> None:
    splitter = LineSplitter(most_bytes=10_000)
    kept = [len(part) for _ in range(1000) for part in splitter.feed(b"x" * 1000)]
    assert kept == []
    assert splitter.feed(b"x\nab\n") == [b"x" * 4096, b"ab"]
    assert splitter.feed(b"c" * 10_000 + b"\n") == [b"c" * 10_000]
    assert splitter.feed(b"c" * 10_001 + b"\nd\n") == [b"c" * 4096, b"d"]


# Reading


def test_an_answer_is_the_reply_that_a_call_would_have_had() -> None:
    found = read(answered(BODY))
    assert found.custom_id == "a-1"
    assert found.reply is not None
    assert (found.reply.status, found.reply.headers) == (200, {"x-request-id": "req_1"})
    assert json.loads(found.reply.body or "") == BODY
    assert isinstance(read_reply(found.reply, CHAT), Answer)


@pytest.mark.parametrize(
    "line",
    [
        answered(json.dumps(BODY)),  # a text that is JSON, of ogx
        answered(BODY, "200"),
        answered(BODY, None),
        {"custom_id": "a-1", "response": {"body": BODY, "request_id": None}},
        b"\xef\xbb\xbf" + json.dumps(answered(BODY)).encode() + b"\r",
        json.dumps(answered({**BODY, "x": 1})).encode().replace(b'"x": 1', b'"x": NaN'),
        json.dumps(answered({**BODY, "x": "y"})).encode().replace(b'"y"', b'"\xff"'),
        json.dumps(answered({**BODY, "x": 1})).encode().replace(b"1}", b"9" * 5000 + b"}"),
        answered({**BODY, "x": "\u2028\x85"}),
    ],
)
def test_an_answer_is_read_however_it_is_written(line: Any) -> None:
    found = read(line)
    assert found.custom_id == "a-1"
    assert found.reply is not None
    what = read_reply(found.reply, CHAT)
    assert isinstance(what, Answer)
    assert what.text == "Yes"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (answered({"error": {"message": "no"}}, 400), Reason.REJECTED),
        (answered("down", 503), Reason.SERVER),
        (answered(None, 500), Reason.SERVER),
        (answered(None, 400, error={"code": "x", "message": "no"}), Reason.REJECTED),  # vLLM
        (answered(None, 200, error={"error": {"code": 429}}), Reason.RATE_LIMIT),
        (answered("<html>", 200), Reason.BAD_RESPONSE),
        (answered(None, 200), Reason.BAD_RESPONSE),
    ],
)
def test_an_error_with_a_status_is_read_as_of_a_call(line: Any, reason: Reason) -> None:
    found = read(line)
    assert found.reply is not None
    what = read_reply(found.reply, CHAT)
    assert isinstance(what, Failure)
    assert what.reason is reason


SAID = "You exceeded your current quota"
NO_CREDIT = {"error": {"message": SAID, "code": "insufficient_quota"}}


def of_ogx(message: str) -> dict[str, Any]:
    return {"id": "r", "custom_id": "a-1", "error": {"type": "request_failed", "message": message}}


@pytest.mark.parametrize(
    ("said", "reason", "message"),
    [
        ("Error code: 400 - simulated 400", Reason.REJECTED, "400 simulated 400"),
        ("Error code: 429 - slower", Reason.RATE_LIMIT, "429 slower"),
        ("Error code: 503 - down", Reason.SERVER, "503 down"),
        ("Error code: 500", Reason.SERVER, "500"),
        (
            f"Error code: 429 - {NO_CREDIT}",
            Reason.RATE_LIMIT,
            f"429 {SAID}",
        ),
        ("Error code: 400 - {'error': " + "[" * 2000, Reason.REJECTED, "400 {'error': [[["),
        ("Error code: 400 - {1: {2}}", Reason.REJECTED, "400"),
        ("Error code: 400 - {'no': 1j}", Reason.REJECTED, "400 {'no': 1j}"),
        ("Error code: 400 - {f()}", Reason.REJECTED, "400 {f()}"),
    ],
)
def test_a_status_that_is_told_in_words_alone_is_one(
    said: str, reason: Reason, message: str
) -> None:
    found = read(of_ogx(said))
    assert found.custom_id == "a-1"
    assert found.reply is not None
    what = read_reply(found.reply, CHAT)
    assert isinstance(what, Failure)
    assert what.reason is reason
    assert what.message.startswith(message)


def test_what_a_quoted_body_says_counts_as_it_does_online() -> None:
    found = read(of_ogx(f"Error code: 429 - {NO_CREDIT}"))
    assert found.reply is not None
    what = read_reply(found.reply, CHAT)
    assert isinstance(what, Failure)
    assert what.halt is not None


@pytest.mark.parametrize(
    "said", ["Connection error.", "Error code: 4000 - x", "an Error code: 400"]
)
def test_other_words_are_no_status(said: str) -> None:
    assert read(of_ogx(said)) == BatchLine("a-1", None, "request_failed", said)


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        (
            {"custom_id": "a", "response": None,
             "error": {"code": "batch_expired", "message": "This request could not be executed"}},
            "batch_expired", "This request could not be executed",
        ),
        ({"custom_id": "a", "error": {"type": "server_error"}}, "server_error",
         '{"type":"server_error"}'),
        ({"custom_id": "a", "response": {"status_code": 0, "body": None}, "error": "no"},
         "no_reply", "no"),
        ({"custom_id": "a"}, "no_reply", ""),
    ],
)  # fmt: skip
def test_what_was_not_answered_has_the_code_of_its_error(
    line: Any, code: str, message: str
) -> None:
    assert read(line) == BatchLine("a", None, code, message)


@pytest.mark.parametrize("line", [b"<html>", b"[1]", b"{", b"\xff\xfe", b"null", b"[" * 100_000])
def test_a_line_that_nobody_can_read_shows_its_beginning(line: bytes) -> None:
    custom_id, reply, code, message = read(line)
    assert (custom_id, reply, code) == (None, None, "unreadable")
    assert message.startswith("a line that is no JSON, or too long: ")
    assert len(message) < 600


@pytest.mark.parametrize(
    "line",
    [
        b'{"id":"r","custom_id": "a-1","response":{"status_code":200,"body":{"choi',
        json.dumps(answered(BODY))[:-1].encode() + b',"x":' + b"[" * 100_000 + b"}",
        json.dumps(answered({})).replace("{}", "[" * 3000 + "]" * 3000).encode(),
    ],
)
def test_whose_an_unreadable_line_is_is_told_where_it_says_so(line: bytes) -> None:
    found = read(line)
    assert found.custom_id == "a-1"
    assert found.reply is not None
    what = read_reply(found.reply, CHAT)
    assert isinstance(what, Failure)
    assert what.reason is Reason.BAD_RESPONSE


@pytest.mark.parametrize("custom_id", [None, 7, "\ud83d", ["a"]])
def test_a_custom_id_that_is_no_text_is_none(custom_id: Any) -> None:
    line = json.dumps({**answered(BODY), "custom_id": custom_id}).encode()
    assert READER.read(line).custom_id is None


def test_no_line_shows_the_key() -> None:
    for line in (
        answered({"error": {"message": f"wrong key {KEY}"}}, 401),
        answered(BODY | {"x": KEY}),
        {"custom_id": "a", "error": {"code": "x", "message": KEY}},
        f'{{"custom_id": "a", "error {KEY}'.encode(),
        f"<html>{KEY}".encode(),
    ):
        assert KEY not in repr(read(line))
