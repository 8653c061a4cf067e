"""The other formats of the export, and an export in several files."""

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow.json
import pyarrow.parquet as pq
import pytest

from batchgen.errors import UsageError
from batchgen.export import ExportRequest, Extra, FormatSpec, export_file
from batchgen.export.writer import Content, LineWriter
from batchgen.items import State
from batchgen.pool import open_pool
from batchgen.simulate import Behaviour, Simulator
from batchgen.store import ResultRow, open_store
from batchgen.where import Where
from tests.kits.project import Project, ended

Words = Callable[[int], Iterator[dict[str, Any]]]
MODEL = "simulated"


@pytest.fixture
async def labelled(project: Project, simulator: Simulator) -> Project:
    """Three done items of several shapes and one that failed, by parser json."""
    project.write("system.txt", "You label.\n")
    project.config("parser: json\nprompts: {system_prompt_path: system.txt}\n")
    simulator.script("Say tea", Behaviour.ok('{"label": "good", "score": 0.5}'))
    simulator.script("Say sum", Behaviour.ok('{"label": "=1+1", "tags": ["a", "é"]}'))
    simulator.script("One more", Behaviour.ok('{"label": "bad"}'))
    simulator.script("Say nothing", Behaviour.ok("no JSON"))
    project.pool(
        [
            {"word": "tea", "id": "a-1", "metadata": {"source": "web"}},
            {"word": "sum", "n": -5, "note": "-5 °C"},
            {"word": "nothing"},
            {
                "messages": [
                    {"role": "user", "content": "Hi"},
                    {"role": "assistant", "content": "Hello"},
                    {"role": "user", "content": [{"type": "text", "text": "One more"}]},
                ]
            },
        ]
    )
    assert (await project.batchgen("run", "pool.jsonl")).code == 3
    return project


async def exported(project: Project, *arguments: str, name: str) -> Path:
    out = await project.batchgen("export", *arguments)
    assert out.code == 0
    assert out.err.splitlines()[-1].partition(";")[0] == f"3 rows -> {project.path / name}"
    return project.path / name


async def lines_of(project: Project, kind: str, *arguments: str) -> list[Any]:
    out = await project.batchgen("export", "--format", kind, "-o", "-", *arguments)
    assert out.code == 0, out.err
    return [json.loads(line) for line in out.out.splitlines()]


# --- tables -----------------------------------------------------------------------------------


def sheet(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))


async def test_csv_has_a_column_for_each_field_and_runs_no_formula(labelled: Project) -> None:
    await labelled.batchgen("export", "-o", "out.csv")
    data = (labelled.path / "out.csv").read_bytes()
    assert data.startswith(b"\xef\xbb\xbfid,input.word,input.id,")
    rows = sheet(data)
    assert list(rows[0]) == [
        "id", "input.word", "input.id", "input.metadata.source", "input.n", "input.note",
        "input.messages", "response", "parsed.label", "parsed.score", "parsed.tags",
        "metadata.source", "model", "finish_reason", "prompt_tokens", "completion_tokens",
        "cached_tokens", "reasoning_tokens", "cost_usd", "attempts", "timestamp",
    ]  # fmt: skip
    first, second, third = rows
    assert (first["id"], first["metadata.source"], first["parsed.score"]) == ("a-1", "web", "0.5")
    assert second["id"] == "2"
    assert (second["parsed.label"], second["parsed.tags"]) == ("'=1+1", '["a", "é"]')
    # A number is one, below nought too; a text that could be a formula is told to be text.
    assert (second["input.n"], second["input.note"]) == ("-5", "'-5 °C")
    assert (third["input.word"], json.loads(third["input.messages"])[0]["content"]) == ("", "Hi")


@pytest.mark.quick("=", "@", "\\t=")
@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", "\r=", "\n=", "\uff1d"])
async def test_a_cell_that_begins_a_formula_is_text(
    project: Project, simulator: Simulator, start: str
) -> None:
    text = f"{start}cmd|' /C calc'!A0"
    simulator.script("Say x", Behaviour.ok(text))
    project.pool([{"word": "x", "id": text}])
    assert (await project.batchgen("run", "pool.jsonl", "-o", "out.csv")).code == 0
    (row,) = sheet((project.path / "out.csv").read_bytes())
    assert [row["id"], row["response"], row["parsed"]] == [f"'{text}"] * 3


async def test_csv_of_prompts_in_two_parts_and_of_values_without_fields(
    project: Project, simulator: Simulator
) -> None:
    project.config("parser: json\n")
    simulator.script("Say a", Behaviour.ok("[1, null]"))
    simulator.script("Say b", Behaviour.ok('{"x": true}'))
    project.pool([{"user_prompt_kwargs": {"word": word}} for word in "ab"])
    await project.batchgen("run", "pool.jsonl", "-o", "out.csv")
    rows = sheet((project.path / "out.csv").read_bytes())
    assert [row["input.user_prompt_kwargs.word"] for row in rows] == ["a", "b"]
    assert [(row["parsed"], row["parsed.x"]) for row in rows] == [("[1, null]", ""), ("", "true")]


@pytest.mark.on_both_engines
@pytest.mark.slow
async def test_csv_of_objects_with_ever_new_fields_has_one_column_for_them(
    project: Project,
) -> None:
    project.pool([{"word": "x", f"field{n}": n} for n in range(300)])
    await project.batchgen("run", "pool.jsonl", "-o", "out.csv")
    rows = sheet((project.path / "out.csv").read_bytes())
    assert [json.loads(row["input"])[f"field{n}"] for n, row in enumerate(rows)] == list(range(300))


async def test_a_csv_is_a_pool_again(labelled: Project) -> None:
    path = await exported(labelled, "-o", str(labelled.path / "out.csv"), name="out.csv")
    assert [type(entry).__name__ for entry in open_pool(str(path))] == ["PoolItem"] * 3


async def test_parquet_has_typed_columns_and_json_texts(labelled: Project) -> None:
    path = await exported(labelled, "--format", "parquet", name="output/default.parquet")
    table = pq.read_table(path)
    assert {field.name: str(field.type) for field in table.schema} == {
        "id": "string", "input": "string", "response": "string",
        "parsed": "struct<label: string, score: double, tags: list<element: string>>",
        "metadata": "string", "model": "string", "finish_reason": "string",
        "prompt_tokens": "int64", "completion_tokens": "int64", "cached_tokens": "int64",
        "reasoning_tokens": "int64", "cost_usd": "double", "attempts": "int64",
        "timestamp": "timestamp[ms, tz=UTC]",
    }  # fmt: skip
    expected = labelled.export()
    for row, line in zip(table.to_pylist(), expected, strict=True):
        assert row.pop("id") == str(line["id"])
        assert json.loads(row.pop("input")) == line["input"]
        parsed = row.pop("parsed")
        assert {name: part for name, part in parsed.items() if part is not None} == line["parsed"]
        assert json.loads(row.pop("metadata") or "null") == line["metadata"]
        at = datetime.fromisoformat(line["timestamp"].replace("Z", "+00:00"))
        assert row.pop("timestamp") == at
        usage = {name: row.pop(name) for name in list(row) if name.endswith("_tokens")}
        assert {name: n for name, n in usage.items() if n is not None} == line["usage"]
        assert row == {name: line[name] for name in row}


async def test_the_failed_items_are_a_table_too(labelled: Project) -> None:
    assert (await labelled.batchgen("export", "--failed", "--format", "parquet")).code == 0
    (row,) = pq.read_table(labelled.path / "output/default.failed.parquet").to_pylist()
    assert (row["id"], row["response"], row["parsed"], row["reason"]) == (
        "3", "no JSON", None, "parse",
    )  # fmt: skip
    await labelled.batchgen("export", "--failed", "-o", "failed.csv")
    (row,) = sheet((labelled.path / "failed.csv").read_bytes())
    assert (row["id"], row["response"], row["reason"]) == ("3", "no JSON", "parse")


async def test_no_results_are_an_empty_table(project: Project, words: Words) -> None:
    project.pool(words(2))
    await project.batchgen("enqueue", "pool.jsonl")
    for name in ("out.csv", "out.parquet", "out.jsonl"):
        assert (await project.batchgen("export", "-o", name)).code == 0
    assert sheet((project.path / "out.csv").read_bytes()) == []
    assert pq.read_table(project.path / "out.parquet").num_rows == 0
    assert (project.path / "out.jsonl").read_bytes() == b""


@pytest.mark.slow
async def test_a_big_table_is_written_in_groups(project: Project, words: Words) -> None:
    project.pool(words(11_000))
    assert (await project.batchgen("run", "pool.jsonl", "-o", "out.parquet", "-c", "200")).code == 0
    file = pq.ParquetFile(project.path / "out.parquet")
    groups = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
    assert groups == [10_000, 1_000]
    ids = file.read(["id"]).column("id").to_pylist()
    assert ids == [str(n + 1) for n in range(11_000)]


@pytest.mark.quick("out.csv.gz")
@pytest.mark.parametrize("name", ["out.xlsx", "out.JSON", "out.csv.gz"])
async def test_a_file_whose_name_means_another_format_is_refused(
    labelled: Project, name: str
) -> None:
    problem = f"{name}: no export is a {Path(name).suffix.lower()} file; name it .jsonl, .csv or "
    for command in (["export"], ["run", "pool.jsonl"], ["export", "--follow"], ["work"]):
        done = await labelled.batchgen(*command, "-o", name)
        assert (done.code, problem in done.err) == (2, True), done.err
    assert not (labelled.path / name).exists()
    named = await labelled.batchgen("export", "-o", name, "--format", "jsonl")
    assert (named.code, len((labelled.path / name).read_text().splitlines())) == (0, 3)


# --- conversations ----------------------------------------------------------------------------

SYSTEM = {"role": "system", "content": "You label."}


async def test_messages_are_what_was_asked_and_the_answer(labelled: Project) -> None:
    labelled.write("prompts/user_prompts/default.txt", "another template: {word}")
    first, second, third = await lines_of(labelled, "messages")
    assert first == {
        "messages": [
            SYSTEM,
            {"role": "user", "content": "Say tea"},
            {"role": "assistant", "content": '{"label": "good", "score": 0.5}'},
        ],
        "metadata": {"source": "web"},
    }
    assert second.keys() == {"messages"}
    assert third["messages"][1:] == [
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": [{"type": "text", "text": "One more"}]},
        {"role": "assistant", "content": '{"label": "bad"}'},
    ]


async def test_each_item_is_rendered_by_its_own_recipe(project: Project, words: Words) -> None:
    project.pool(words(1))
    await project.batchgen("run", "pool.jsonl")
    project.write("prompts/user_prompts/default.txt", "Shout {word}")
    await project.batchgen("run", "pool.jsonl", "--recipe", "add")
    chats = await lines_of(project, "messages")
    assert [chat["messages"][0]["content"] for chat in chats] == ["Say w0", "Shout w0"]


async def test_sharegpt_has_the_turns_and_the_system_text(labelled: Project) -> None:
    first, _, third = await lines_of(labelled, "sharegpt")
    assert first == {
        "conversations": [
            {"from": "human", "value": "Say tea"},
            {"from": "gpt", "value": '{"label": "good", "score": 0.5}'},
        ],
        "system": "You label.",
    }
    assert third == {
        "conversations": [
            {"from": "human", "value": "Hi"},
            {"from": "gpt", "value": "Hello"},
            {"from": "human", "value": "One more"},
            {"from": "gpt", "value": '{"label": "bad"}'},
        ]
    }


async def test_alpaca_has_one_instruction(labelled: Project) -> None:
    refused = await labelled.batchgen("export", "--format", "alpaca")
    assert (refused.code, refused.err) == (
        2,
        "error: item 4: alpaca has no place for a conversation of several turns. Use --format "
        "messages, or leave the item out with --where.\n",
    )
    assert list((labelled.path / "output").iterdir()) == [labelled.path / "output/default.jsonl"]
    first, _ = await lines_of(labelled, "alpaca", "--where", "input.messages == null")
    assert first == {
        "instruction": "Say tea",
        "input": "",
        "output": '{"label": "good", "score": 0.5}',
        "system": "You label.",
    }


@pytest.mark.quick("alpaca")
@pytest.mark.parametrize(
    ("content", "kind", "what"),
    [
        ([{"type": "image_url", "image_url": {"url": "data:,"}}], "sharegpt",
         "content that is not text"),
        ([{"type": "image_url", "image_url": {"url": "data:,"}}], "alpaca",
         "content that is not text"),
    ],
)  # fmt: skip
async def test_an_image_fits_into_messages_only(
    project: Project, content: Any, kind: str, what: str
) -> None:
    project.pool([{"messages": [{"role": "user", "content": content}]}])
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    refused = await project.batchgen("export", "--format", kind)
    assert refused.code == 2
    assert f"item 1: {kind} has no place for {what}" in refused.err
    (chat,) = await lines_of(project, "messages")
    assert chat["messages"][0]["content"] == content


def with_message(message: dict[str, Any], **rest: Any) -> str:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1}
    body = {"id": "x", "model": MODEL, "choices": [choice], "usage": usage, **rest}
    return json.dumps(body)


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


async def test_an_answer_of_tool_calls_keeps_them(project: Project, simulator: Simulator) -> None:
    body = with_message({"content": None, "tool_calls": [CALL]})
    simulator.script("Say x", Behaviour.response(200, body))
    project.pool([{"word": "x"}])
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    (chat,) = await lines_of(project, "messages")
    assert chat["messages"][1] == {"role": "assistant", "content": None, "tool_calls": [CALL]}
    (line,) = await lines_of(project, "openai-batch")
    assert line["response"]["body"] == json.loads(body)


async def test_failed_items_are_nothing_to_train_on(labelled: Project) -> None:
    refused = await labelled.batchgen("export", "--failed", "--format", "messages")
    assert (refused.code, refused.err) == (
        2,
        "error: format messages: failed items have no answer to train on; choose "
        "jsonl, csv, parquet or openai-batch.\n",
    )


# --- OpenAI's batch output --------------------------------------------------------------------


@pytest.mark.quick("message0", "message5")
@pytest.mark.parametrize(
    "message",
    [
        {"content": "plain", "refusal": None},
        {"content": 'é "quoted"\n\u2028', "reasoning_content": "hm"},
        {"content": [{"type": "text", "text": "in parts"}]},
        {"content": "\U0001f30d and a call", "tool_calls": [CALL]},
        {"content": None, "tool_calls": [CALL]},
        {"tool_calls": [CALL]},
    ],
)
async def test_a_batch_line_has_the_body_as_the_server_sent_it(
    project: Project, simulator: Simulator, message: dict[str, Any]
) -> None:
    body = with_message(message, system_fingerprint="fp", extra={"half": "\ud800"})
    headers = {"x-request-id": "req-1"}
    simulator.script("Say x", Behaviour.response(200, body, headers=headers))
    project.pool([{"word": "x", "id": "né"}])
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    assert await lines_of(project, "openai-batch") == [
        {
            "id": "batch_req_1",
            "custom_id": "né",
            "response": {"status_code": 200, "request_id": "req-1", "body": json.loads(body)},
            "error": None,
        }
    ]


async def test_a_failed_batch_line_has_its_error_and_what_was_sent(
    project: Project, simulator: Simulator
) -> None:
    project.config("parser: json\nwork: {max_attempts: 1, timeout_s: 1}\n")
    simulator.script("Say bad", Behaviour.error(400, message="no such thing"))
    simulator.script(
        "Say odd", Behaviour.response(404, "<html>\nnowhere", content_type="text/html")
    )
    simulator.script("Say gone", "hang")
    simulator.script("Say nothing", Behaviour.ok("no JSON"))
    project.pool([{"word": word} for word in ("bad", "odd", "gone", "nothing")])
    assert (await project.batchgen("run", "pool.jsonl")).code == 3
    bad, odd, gone, nothing = await lines_of(project, "openai-batch", "--failed")
    assert bad["response"]["status_code"] == 400
    assert bad["response"]["body"]["error"]["message"] == "no such thing"
    assert odd["response"]["body"]["error"]["message"] == "<html>\nnowhere"
    assert (gone["response"], gone["error"]["code"]) == (None, "timeout")
    assert nothing["response"]["body"]["choices"][0]["message"]["content"] == "no JSON"
    # As OpenAI has it: an error is for what got no answer over HTTP.
    assert [line["error"] for line in (bad, odd, nothing)] == [None, None, None]
    assert all(isinstance(one["response"]["request_id"], str) for one in (bad, odd, nothing))


@pytest.mark.quick('{"id": 7, "choices": [{"message": {"content": "x"}}]}')
@pytest.mark.parametrize(
    ("answer", "request_id"),
    [
        (json.dumps({"id": "chat-7", "choices": [{"message": {"content": "x"}}]}), "chat-7"),
        (json.dumps({"choices": [{"message": {"content": "x"}}]}), "batch_req_1"),
        (json.dumps({"id": 7, "choices": [{"message": {"content": "x"}}]}), "batch_req_1"),
    ],
)
async def test_the_request_id_of_a_batch_line_is_a_text_always(
    project: Project, simulator: Simulator, answer: str, request_id: str
) -> None:
    without = {"x-request-id": ""}
    simulator.script("Say x", Behaviour.response(200, answer, headers=without))
    project.pool([{"word": "x"}])
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    [line] = await lines_of(project, "openai-batch")
    assert line["response"]["request_id"] == request_id


@pytest.mark.quick("answers1", "answers5", "answers8")
@pytest.mark.parametrize(
    ("answers", "kind", "values"),
    [
        (['"a"', '"b"'], "string", ["a", "b"]),
        (["1", "2"], "int64", [1, 2]),
        (["1", "2.5"], "double", [1.0, 2.5]),
        (["true", "null"], "bool", [True, None]),
        (['["a"]', "[]"], "list<element: string>", [["a"], []]),
        (['{"a": 1}', '{"b": [{"c": null}]}'],
         "struct<a: int64, b: list<element: struct<c: string>>>",
         [{"a": 1, "b": None}, {"a": None, "b": [{"c": None}]}]),
        # shapes that have no type in common stay JSON
        (["1", '"a"'], "string", ["1", '"a"']),
        (['{"a": 1}', '{"a": "x"}'], "string", ['{"a": 1}', '{"a": "x"}']),
        (["{}", "{}"], "string", ["{}", "{}"]),
        (["1", "99999999999999999999"], "string", ["1", "99999999999999999999"]),
    ],
)  # fmt: skip
async def test_parsed_has_a_type_in_parquet_where_it_has_one_shape(
    project: Project, simulator: Simulator, answers: list[str], kind: str, values: list[Any]
) -> None:
    project.config("parser: json\n")
    for number, answer in enumerate(answers):
        simulator.script(f"Say w{number}", Behaviour.ok(answer))
    project.pool([{"word": f"w{number}"} for number in range(len(answers))])
    await project.batchgen("run", "pool.jsonl", "-o", "out.parquet")
    table = pq.read_table(project.path / "out.parquet")
    assert str(table.schema.field("parsed").type) == kind
    assert table.column("parsed").to_pylist() == values


async def test_a_format_is_one_entry_and_a_writer(labelled: Project) -> None:
    def line(row: ResultRow, content: Content) -> str:
        return f"{json.loads(row.response)} {len(content.messages_of(row) or ())}\n"

    writer = partial(LineWriter, line)
    spec = FormatSpec(name="text", suffix=".txt", row="text", writer=writer, is_for_training=True)
    where = Where("id == 'a-1'")
    async with open_store(labelled.database) as store:
        [experiment] = await store.experiments()
        file = labelled.path / "out.txt"
        exported = await export_file(store, experiment, file, ExportRequest(spec, where=where))
    assert exported.rows == 1
    assert file.read_text() == '{"label": "good", "score": 0.5} 2\n'
    for refused in ({"extras": (Extra.BODY,)}, {"group": True}, {"state": State.FAILED}):
        with pytest.raises(UsageError, match="format text"):
            ExportRequest(spec, **refused)


# --- several files, and a summary -------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.on_both_engines
@pytest.mark.parametrize("name", ["out.jsonl", "out.csv", "out.parquet"])
async def test_shards_hold_the_rows_in_the_order_of_the_pool(
    project: Project, words: Words, name: str
) -> None:
    project.pool(words(1100))
    assert (await project.batchgen("run", "pool.jsonl", "-c", "100")).code == 0
    out = await project.batchgen("export", "-o", name, "--shards", "3", "--json")
    stem, _, suffix = name.partition(".")
    files = [project.path / f"{stem}-0000{k}-of-00003.{suffix}" for k in (1, 2, 3)]
    assert out.json == {"path": name, "rows": 1100, "files": list(map(str, files))}
    shares = [ids_in(file) for file in files]
    assert [len(share) for share in shares] == [366, 367, 367]
    assert list(chain(*shares)) == [str(n + 1) for n in range(1100)]
    assert not (project.path / name).exists()
    if suffix == "jsonl":
        whole = (project.path / "output/default.jsonl").read_bytes()
        assert b"".join(file.read_bytes() for file in files) == whole


def ids_in(file: Path) -> list[str]:
    if file.suffix == ".parquet":
        return list(pq.read_table(file, columns=["id"]).column("id").to_pylist())
    if file.suffix == ".csv":
        return [row["id"] for row in sheet(file.read_bytes())]
    return [str(json.loads(line)["id"]) for line in file.read_text().splitlines()]


async def test_chosen_rows_are_shared_equally_too(project: Project, words: Words) -> None:
    project.pool(words(9))
    await project.batchgen("run", "pool.jsonl")
    where = ("--where", "id > 4", "--shards", "2", "-o", "out.jsonl")
    assert (await project.batchgen("export", *where)).code == 0
    files = [project.path / f"out-0000{k}-of-00002.jsonl" for k in (1, 2)]
    assert [ids_in(file) for file in files] == [["5", "6"], ["7", "8", "9"]]


async def test_more_shards_than_rows_are_some_empty_files(project: Project, words: Words) -> None:
    project.pool(words(1))
    await project.batchgen("run", "pool.jsonl")
    assert (await project.batchgen("export", "-o", "out.csv", "--shards", "3")).code == 0
    files = sorted(project.path.glob("out-*.csv"))
    assert sorted(len(sheet(file.read_bytes())) for file in files) == [0, 0, 1]


async def test_a_summary_tells_what_is_in_the_files(labelled: Project) -> None:
    labelled.config("parser: json\nprompts: {system_prompt_path: system.txt}\n", seed=1)
    out = await labelled.batchgen(
        "export", "-o", "out.jsonl", "--where", "parsed.label != 'bad'", "--summary", "sum.json"
    )
    assert out.code == 0, out.err
    summary = json.loads((labelled.path / "sum.json").read_text())
    ((digest,),) = labelled.query("select digest from recipes")
    data = (labelled.path / "out.jsonl").read_bytes()
    usage = [json.loads(line)["usage"] for line in data.splitlines()]
    assert summary.pop("exported_at").endswith("Z")
    spent = summary.pop("spent")
    assert (spent["calls"], spent["unknown_calls"]) == (4, 0)
    assert spent["prompt_tokens"] > sum(one["prompt_tokens"] for one in usage)
    assert summary == {
        "experiment": "default",
        "format": "jsonl",
        "state": "done",
        "where": "parsed.label != 'bad'",
        "rows": 2,
        "files": [
            {
                "path": str(labelled.path / "out.jsonl"),
                "rows": 2,
                "sha256": hashlib.sha256(data).hexdigest(),
            }
        ],
        "usage": {
            "prompt_tokens": sum(one["prompt_tokens"] for one in usage),
            "completion_tokens": sum(one["completion_tokens"] for one in usage),
            "cached_tokens": 0,
            "reasoning_tokens": 0,
        },
        "cost_usd": 0.0,
        "recipes": [
            {"digest": digest.hex(), "rows": 2, "model": MODEL, "endpoint": "chat", "params": {}}
        ],
        "counts": {"done": 3, "failed": 1, "pending": 0, "running": 0},
    }


async def test_a_summary_changes_nothing_in_the_export(labelled: Project) -> None:
    for name in ("output/default.jsonl", *(["batchgen.db"] if labelled.file.exists() else [])):
        refused = await labelled.batchgen("export", "--summary", name)
        assert refused.code == 2, refused.err
    before = (labelled.path / "output/default.jsonl").read_bytes()
    assert (await labelled.batchgen("export", "--summary", "sum.json")).code == 0
    assert (labelled.path / "output/default.jsonl").read_bytes() == before
    assert (await labelled.batchgen("verify")).code == 0


async def test_a_summary_that_cannot_be_written_is_told(labelled: Project) -> None:
    out = await labelled.batchgen("export", "-o", "out.jsonl", "--summary", "/dev/full")
    assert (out.code, out.err) == (
        1,
        "error: /dev/full: cannot write the summary (No space left on device).\n",
    )


# --- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--shards", "2"], ["--summary", "sum.json"]])
async def test_what_needs_a_file_is_refused_on_stdout(
    labelled: Project, arguments: list[str]
) -> None:
    refused = await labelled.batchgen("export", "-o", "-", *arguments)
    assert (refused.code, refused.out, refused.err) == (
        2,
        "",
        "error: shards and a summary need a file. Name one with -o.\n",
    )


async def test_a_table_goes_to_stdout_too(labelled: Project) -> None:
    process = await labelled.start("export", "--format", "parquet", "-o", "-")
    out, _ = await process.communicate()
    assert pq.read_table(io.BytesIO(out)).num_rows == 3


@pytest.mark.quick("csv")
@pytest.mark.parametrize("kind", ["csv", "parquet", "messages"])
async def test_a_full_device_is_one_clear_line(labelled: Project, kind: str) -> None:
    out = await labelled.batchgen("export", "--format", kind, "-o", "/dev/full")
    assert (out.code, out.err) == (
        1,
        "error: /dev/full: cannot write the export (No space left on device).\n",
    )


async def test_verify_knows_of_other_formats_whether_they_were_changed(labelled: Project) -> None:
    for arguments in (["-o", "out.csv"], ["--failed", "-o", "bad.jsonl"],
                      ["--where", "id == 2", "-o", "some.jsonl"],
                      ["--shards", "2", "-o", "s.parquet"]):  # fmt: skip
        assert (await labelled.batchgen("export", *arguments)).code == 0
    assert (await labelled.batchgen("verify")).code == 0
    for name in ("out.csv", "s-00002-of-00002.parquet"):
        with (labelled.path / name).open("ab") as file:
            file.write(b"x")
    verified = await labelled.batchgen("verify")
    assert verified.code == 1
    assert verified.out == "".join(
        f"{labelled.path / name}: is not what export wrote (changed since?); export it again\n"
        for name in ("out.csv", "s-00002-of-00002.parquet")
    )


async def test_a_file_in_another_format_in_the_place_of_an_export_is_no_contradiction(
    labelled: Project,
) -> None:
    for arguments in (["--format", "messages"], ["--failed"], []):
        assert (await labelled.batchgen("export", "-o", "out.jsonl", *arguments)).code == 0
        verified = await labelled.batchgen("verify")
        assert (verified.code, verified.out) == (
            0, "All is well: 4 items, 3 done, each with its answer.\n",
        )  # fmt: skip


@pytest.mark.slow
@pytest.mark.on_both_engines
async def test_without_pyarrow_nothing_is_written_and_one_line_says_what_to_install(
    labelled: Project,
) -> None:
    labelled.write("pyarrow.py", "raise ImportError('not here')\n")
    for command in (["export", "-o", "out.parquet"], ["enqueue", "data.parquet"]):
        labelled.write("data.parquet", "")
        refused = await ended(await labelled.start(*command, fresh=True))
        assert (refused.code, refused.err) == (
            2,
            "error: Parquet needs pyarrow, which is not installed: "
            "pip install 'batchgen-llm[parquet]'\n",
        )
    assert not (labelled.path / "out.parquet").exists()
    assert list(labelled.path.glob(".*part")) == []


async def test_arrow_reads_the_jsonl_too(project: Project, words: Words) -> None:
    """The reader that Hugging Face's `datasets` has."""
    project.pool({**word, "metadata": {"n": 1}} for word in words(1000))
    assert (await project.batchgen("run", "pool.jsonl", "-c", "100")).code == 0
    table = pyarrow.json.read_json(project.path / "output/default.jsonl")
    assert table.to_pylist()[999]["input"] == {"word": "w999", "metadata": {"n": 1}}
    assert table.column("id").to_pylist() == list(range(1, 1001))
