"""`export --with`, and `show`: what an answer had beside its text."""

import csv
import io
import json
from typing import Any

import pyarrow.parquet as pq
import pytest

from batchgen.simulate import Behaviour, Simulator
from tests.kits.project import Project
from tests.kits.typist import Typist

CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
OLD_CALL = {"name": "f", "arguments": "{}"}
LOGPROBS = {"content": [{"token": "tea", "logprob": -0.5, "top_logprobs": []}]}
EXTRAS = ["reasoning", "tool_calls", "logprobs", "body"]
ALL = [option for name in EXTRAS for option in ("--with", name)]


def body_of(message: dict[str, Any], **choice: Any) -> dict[str, Any]:
    said = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}
    return {"id": "x", "model": "m", "choices": [said | choice], "fingerprint": "fp"}


BODIES = {
    "all": body_of(
        {"content": "Tea.", "reasoning_content": "=hm\n", "tool_calls": [CALL]}, logprobs=LOGPROBS
    ),
    "other names": body_of(
        {"content": None, "reasoning": "half \ud800", "function_call": OLD_CALL}
    ),
    "nothing": body_of({"content": "Plain.", "reasoning_content": None, "tool_calls": []}),
}


@pytest.fixture
async def answered(project: Project, simulator: Simulator, batchgen: Typist) -> Project:
    for word, body in BODIES.items():
        simulator.script(f"Say {word}", Behaviour.response(200, json.dumps(body)))
    project.pool({"word": word} for word in BODIES)
    ran = await batchgen("run", "pool.jsonl")
    assert ran.code == 0, ran.err
    return project


async def lines(batchgen: Typist, *arguments: str) -> list[dict[str, Any]]:
    out = await batchgen("export", "-o", "-", *arguments)
    assert out.code == 0, out.err
    return [json.loads(line) for line in out.out.splitlines()]


async def test_lines_have_them_at_their_end_and_null_where_there_was_none(
    answered: Project, batchgen: Typist
) -> None:
    plain, rich = await lines(batchgen), await lines(batchgen, *ALL, "--with", "body")
    assert [list(row)[-4:] for row in rich] == [EXTRAS] * 3
    assert [{k: v for k, v in row.items() if k not in EXTRAS} for row in rich] == plain
    assert [[row[name] for name in EXTRAS] for row in rich] == [
        ["=hm\n", [CALL], LOGPROBS, BODIES["all"]],
        ["half �", [{"type": "function", "function": OLD_CALL}], None, BODIES["other names"]],
        [None, None, None, BODIES["nothing"]],
    ]
    (first, *_) = await lines(batchgen, "--with", "logprobs", "--with", "reasoning")
    assert list(first)[-2:] == ["logprobs", "reasoning"]


async def test_a_parquet_file_has_them_as_json_text(answered: Project, batchgen: Typist) -> None:
    assert (await batchgen("export", "-o", "out.parquet", *ALL)).code == 0
    rows = pq.read_table(answered.path / "out.parquet").to_pylist()
    read = [[row[name] and json.loads(row[name]) for name in EXTRAS] for row in rows]
    jsonl = [[row[name] for name in EXTRAS] for row in await lines(batchgen, *ALL)]
    assert read == jsonl


async def test_a_sheet_has_them_and_runs_no_formula(answered: Project, batchgen: Typist) -> None:
    assert (await batchgen("export", "-o", "out.csv", *ALL)).code == 0
    text = (answered.path / "out.csv").read_bytes().decode("utf-8-sig")
    first, second, third = csv.DictReader(io.StringIO(text, newline=""))
    assert list(first)[-4:] == EXTRAS
    assert first["reasoning"] == "'=hm\n"
    assert second["reasoning"] == "half �"
    assert json.loads(first["tool_calls"]) == [CALL]
    assert json.loads(first["body"]) == BODIES["all"]
    assert [third[name] for name in EXTRAS[:3]] == ["", "", ""]


async def test_a_conversation_has_the_reasoning_in_its_answer(
    answered: Project, batchgen: Typist
) -> None:
    chats = await lines(batchgen, "--format", "messages", "--with", "reasoning")
    first, second, third = (chat["messages"][-1] for chat in chats)
    assert first == {"role": "assistant", "content": "Tea.", "reasoning_content": "=hm\n"}
    assert second["reasoning_content"] == "half �"
    assert third == {"role": "assistant", "content": "Plain."}
    without = await lines(batchgen, "--format", "messages")
    assert ["reasoning_content" in chat["messages"][-1] for chat in without] == [False] * 3


@pytest.mark.quick("--follow --with body")
@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ("--format messages --with body", "format messages: it has no place for body; choose"),
        ("--format alpaca --with reasoning", "format alpaca: it has no place for reasoning"),
        ("--format openai-batch --with body", "format openai-batch: it has no place for body"),
        ("--follow --with body", "does not go with --with;"),
        ("--with thoughts", "'thoughts' is not one of 'reasoning', 'tool_calls', 'logprobs'"),
    ],
)
async def test_what_has_no_place_for_them_is_refused(
    answered: Project, batchgen: Typist, options: str, problem: str
) -> None:
    refused = await batchgen("export", *options.split())
    assert (refused.code, problem in refused.err) == (2, True), refused.err


async def test_failed_items_have_what_was_sent(
    project: Project, simulator: Simulator, batchgen: Typist
) -> None:
    project.config("parser: json\nwork: {max_attempts: 1}\n")
    simulator.script("Say b", Behaviour.response(400, "no\nJSON"))
    refusal = {"error": {"message": "no", "code": None}}
    simulator.script("Say c", Behaviour.response(400, json.dumps(refusal)))
    thought = body_of({"content": "no JSON", "reasoning": "hm"})
    simulator.script("Say a", Behaviour.response(200, json.dumps(thought)))
    project.pool({"word": word} for word in "abc")
    assert (await batchgen("run", "pool.jsonl", "-c", "1")).code == 3
    rows = await lines(batchgen, "--failed", "--with", "reasoning", "--with", "body")
    assert [[row["reasoning"], row["body"]] for row in rows] == [
        ["hm", thought], [None, "no\nJSON"], [None, refusal],
    ]  # fmt: skip
    assert list(rows[0])[-4:] == ["reason", "error", "reasoning", "body"]


async def test_verify_knows_such_a_file_by_its_hash(answered: Project, batchgen: Typist) -> None:
    assert (await batchgen("export", "-o", "out.jsonl", "--with", "body")).code == 0
    assert (await batchgen("verify")).code == 0
    with (answered.path / "out.jsonl").open("a") as file:
        file.write("{}\n")
    assert (await batchgen("verify")).code == 1


async def test_show_has_them_and_why_an_answer_was_not_parsed(
    project: Project, simulator: Simulator, batchgen: Typist
) -> None:
    project.config("parser: json\nwork: {parse_attempts: 2}\n")
    first = body_of({"content": "no JSON", "reasoning_content": "one\ntwo", "tool_calls": [CALL]})
    simulator.script("Say x", Behaviour.response(200, json.dumps(first)), Behaviour.ok('{"a": 1}'))
    project.pool([{"word": "x"}])
    assert (await batchgen("run", "pool.jsonl")).code == 0
    shown = (await batchgen("show", "1")).out
    line, *said = shown.partition("attempt 1: ")[2].splitlines()
    assert line.startswith("answered, but not parsed: "), shown
    assert said[:6] == [
        "    reasoning:", "        one", "        two", "", "    no JSON", "    tool calls:",
    ]  # fmt: skip
    call, _, _ = "\n".join(said[6:]).partition("\n\nattempt 2: answered, HTTP 200")
    assert json.loads(call) == [CALL]
    assert "but not parsed" not in shown.partition("attempt 2")[2]
