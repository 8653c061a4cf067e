"""Every command as a user or a script meets it: what it prints where, and what it leaves."""

import asyncio
import csv
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import click
import pytest

from batchgen.cli import cli
from batchgen.cli.hints import HINTS
from batchgen.errors import Remedy
from batchgen.simulate import Simulator
from batchgen.simulate.behaviours import Behaviour
from tests.kits.database import change
from tests.kits.project import Project, ended
from tests.kits.typist import Typist

Words = Callable[[int], Iterator[dict[str, Any]]]


EXPORT_KEYS = [
    "id", "input", "response", "parsed", "metadata", "model", "finish_reason", "usage",
    "cost_usd", "attempts", "timestamp",
]  # fmt: skip
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
COMMANDS = [
    "init", "demo", "simulate", "enqueue", "work", "run", "status", "batches", "failures", "show",
    "view", "pause", "resume", "set", "stop", "retry", "reparse", "review", "export", "report",
    "verify", "experiments", "move",
]  # fmt: skip


def every_command(group: click.Group = cli, *above: str) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        yield (*above, name)
        if isinstance(command, click.Group):
            yield from every_command(command, *above, name)


async def failing_job(project: Project, batchgen: Typist, simulator: Simulator) -> None:
    """Three items; the second one fails for good."""
    project.pool([{"word": "one"}, {"word": "two", "id": "deux"}, {"word": "three"}])
    simulator.script("two", Behaviour.error(400, message="no such luck"))
    assert (await batchgen("enqueue", "pool.jsonl")).code == 0
    assert (await project.batchgen("work")).code == 3


# --- help -------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", list(every_command()), ids=" ".join)
def test_every_command_has_help_with_an_example(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    cli.main([*command, "--help"], prog_name="batchgen", standalone_mode=False)
    out = capsys.readouterr().out
    assert out.startswith(f"Usage: batchgen {' '.join(command)} ")
    example = out.split("Example:\n")[1]
    assert re.search(rf"^    batchgen {' '.join(command)}\b", example, re.MULTILINE)


async def test_help_lists_the_commands_in_the_order_of_a_run(project: Project) -> None:
    shown = await project.batchgen("--help")
    listed = re.findall(r"^  (\w+)  ", shown.out.split("Commands:\n")[1], re.MULTILINE)
    assert listed == COMMANDS  # a new command must be given its place here
    assert (shown.code, shown.err) == (0, "")


async def test_no_command_shows_the_help_and_the_version_is_one_line(project: Project) -> None:
    assert "Commands:" in (await project.batchgen()).err
    assert re.fullmatch(r"batchgen \d+\.\d+\.\d+\n", (await project.batchgen("--version")).out)


@pytest.mark.parametrize("code", ["import batchgen", "import batchgen.cli as c; c.cli(['--help'])"])
def test_neither_the_import_nor_the_help_loads_what_a_job_needs(code: str) -> None:
    slow = "{'openai', 'aiohttp', 'yaml', 'rich', 'jinja2', 'aiosqlite', 'sqlite3', 'regex'}"
    script = (
        f"import atexit, sys\natexit.register(lambda: print({slow} & set(sys.modules)))\n{code}"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.quick("status")
@pytest.mark.parametrize("command", ["status", "failures", "show", "batches"])
def test_what_only_reads_does_not_load_the_client(command: str) -> None:
    script = (
        f"import sys, batchgen.cli.{command}\nprint({{'openai', 'aiohttp'}} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"


def test_the_short_help_of_a_command_is_how_its_own_help_begins(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    cli.main(["--help"], prog_name="batchgen", standalone_mode=False)
    lines = capsys.readouterr().out.split("Commands:\n")[1].split("\n\n")[0].splitlines()
    shown = dict(line.split(maxsplit=1) for line in lines)
    assert shown == {
        name: command.get_short_help_str(200) for name, command in cli.commands.items()
    }


def test_the_command_line_has_words_for_each_remedy() -> None:
    assert set(HINTS) == set(Remedy)


# --- json -------------------------------------------------------------------------------------


async def test_json_of_enqueue(project: Project, batchgen: Typist, words: Words) -> None:
    project.pool([*words(2), {"wrod": 1}])
    done = await batchgen(
        "enqueue", "pool.jsonl", "--json", "--skip-invalid", "bad", "--experiment", "x"
    )
    expected = {"experiment": "x", "read": 2, "new": 2, "skipped": 1, "asked_anew": 0}
    assert (done.code, done.json) == (0, expected)
    again = await batchgen("enqueue", "pool.jsonl", "--json", "--limit", "2")
    assert again.json == {
        "experiment": "default",
        "read": 2,
        "new": 2,
        "skipped": 0,
        "asked_anew": 0,
    }


async def test_status_failures_and_show_as_json_and_as_text(
    project: Project, batchgen: Typist, simulator: Simulator
) -> None:
    await failing_job(project, batchgen, simulator)
    status = (await batchgen("status", "--json")).json
    counts = {
        "total": 3, "pending": 0, "running": 0, "done": 2, "failed": 1,
        "reasons": {"rejected": 1}, "calls": 3, "unknown_calls": 0,
    }  # fmt: skip
    assert counts.items() <= status["total"].items()
    answered = project.query("select sum(prompt_tokens), sum(completion_tokens) from attempts")
    total = status["total"]
    assert [(total["prompt_tokens"], total["completion_tokens"])] == answered
    (experiment,) = status["experiments"]
    assert experiment["name"] == "default"
    assert TIME.fullmatch(experiment["created_at"])
    assert counts.items() <= experiment.items()
    assert status["workers"] == []

    status = (await batchgen("status")).out
    assert re.search(r"^default +3 +0 +0 +2 +1$", status, re.MULTILINE)
    assert "failed because of: rejected 1   (batchgen failures)" in status
    assert (await batchgen("failures")).out.startswith(
        "default:\n       1  rejected      400 no such luck   (batchgen show 2)\n"
        "          The same request fails again. See it: batchgen show 2. "
    )
    shown = (await batchgen("show", "2")).out
    assert shown.startswith("item 2 (id deux) of default: failed, rejected: 400 no such luck\n")
    assert "model and parameters:\n    endpoint: chat\n    model: simulated\n" in shown
    assert "user:\n    Say two\n" in shown
    assert "attempt 1: failed, rejected: 400 no such luck, HTTP 400" in shown


async def test_json_of_failures_show_and_retry(
    project: Project, batchgen: Typist, simulator: Simulator
) -> None:
    await failing_job(project, batchgen, simulator)
    failure = {
        "experiment": "default", "reason": "rejected", "error": "400 no such luck", "count": 1,
        "example": 2,
    }  # fmt: skip
    (group,) = (await batchgen("failures", "--json")).json
    assert group.pop("hint").startswith("The same request fails again. ")
    assert group == failure
    assert (await batchgen("failures", "--reason", "parse", "--json")).json == []

    shown = (await batchgen("show", "deux", "--json")).json
    (attempt,) = shown.pop("attempts")
    assert TIME.fullmatch(shown.pop("finished_at"))
    assert shown == {
        "id": "deux", "number": 2, "experiment": "default", "state": "failed",
        "reason": "rejected", "error": "400 no such luck",
        "input": {"word": "two", "id": "deux"},
        "endpoint": "chat", "messages": [{"role": "user", "content": "Say two"}],
        "settings": {"model": "simulated"}, "parsed": None, "parser": None,
    }  # fmt: skip
    assert (attempt["outcome"], attempt["http_status"], attempt["response"]) == (
        "failed",
        400,
        None,
    )
    assert json.loads(attempt["body"])["error"]["message"] == "no such luck"
    assert (await batchgen("show", "2", "--json")).json["id"] == "deux"

    assert (await batchgen("retry", "--json")).json == {"retried": 1, "dry_run": False}
    assert (await project.batchgen("work")).code == 0
    shown = (await batchgen("show", "deux", "--json")).json
    assert [attempt["outcome"] for attempt in shown["attempts"]] == ["failed", "answered"]
    assert shown["state"] == "done"
    assert shown["parsed"] == shown["attempts"][1]["response"]
    assert simulator.calls == 4


async def test_json_of_export_verify_and_experiments(
    project: Project, batchgen: Typist, simulator: Simulator
) -> None:
    await failing_job(project, batchgen, simulator)
    path = project.path / "output" / "default.jsonl"
    exported = await batchgen("export", "--json")
    left_out = {"failed": 1, "open": 0, "not_chosen": 0}
    assert (exported.json, exported.err) == (
        {"path": str(path), "rows": 2, "left_out": left_out}, "",
    )  # fmt: skip
    assert (await batchgen("verify", "--json")).json == {"ok": True, "problems": [], "outdated": {}}
    (listed,) = (await batchgen("experiments", "--json")).json
    assert TIME.fullmatch(listed.pop("created_at"))
    assert listed == {"name": "default", "total": 3, "done": 2, "failed": 1}

    path.write_text("changed\n")
    wrong = await batchgen("verify", "--json")
    assert (wrong.code, wrong.json["ok"], len(wrong.json["problems"])) == (1, False, 1)
    assert str(path) in wrong.json["problems"][0]


# --- what is printed where --------------------------------------------------------------------


async def test_data_goes_to_stdout_and_talk_to_stderr(
    project: Project, batchgen: Typist, simulator: Simulator
) -> None:
    await failing_job(project, batchgen, simulator)
    for command, talk in [
        (["enqueue", "pool.jsonl"], "default: 3 items read, 0 new\n"),
        (["work"], "2 done, 1 failed, 0 left; 0 calls in this run\n"),
        (["export"], f"2 rows -> {project.path}/output/default.jsonl; left out: 1 failed "),
    ]:
        type_ = project.batchgen if command == ["work"] else batchgen
        done = await type_(*command)
        assert done.out == ""
        assert talk in done.err
        assert (await type_("-q", *command)).out == ""
    for command in [["status"], ["failures"], ["show", "1"], ["verify"], ["experiments"]]:
        done = await batchgen(*command)
        assert (done.code, done.err) == (0, "")
        quiet = await batchgen("-q", *command)
        assert without_rates(quiet.out) == without_rates(done.out)


def without_rates(text: str) -> str:
    """A status as it was at any other time."""
    return re.sub(r"[\d.]+ (items|tokens)/s", r"\1/s", text)


async def test_one_is_not_spoken_of_as_many(project: Project, batchgen: Typist) -> None:
    project.pool([{"word": "a"}])
    done = await batchgen("enqueue", "pool.jsonl", "--dry-run")
    assert done.out.startswith("1 item would be enqueued into default; nothing was written.\n")
    done = await project.batchgen("run", "pool.jsonl")
    assert done.err.startswith("default: 1 item read, 1 new\n")
    assert done.err.endswith(
        "1 done, 0 failed, 0 left; 1 call in this run\n"
        f"1 row -> {project.path}/output/default.jsonl\n"
    )
    verified = await batchgen("verify")
    assert verified.out == "All is well: 1 item, 1 done, each with its answer.\n"


async def test_a_run_that_ends_early_says_how_to_go_on(
    project: Project, batchgen: Typist, simulator: Simulator, words: Words
) -> None:
    simulator.script("w0", Behaviour.error(400))
    project.pool(words(3))
    await batchgen("enqueue", "pool.jsonl")
    done = await project.batchgen("work", "-c", "1", "--max-items", "2")
    assert done.err.endswith(
        "1 done, 1 failed, 1 left; 2 calls in this run\n"
        "failed because of: rejected 1. See them, and what to do about each: batchgen failures\n"
        "Run the same command to go on.\n"
    )


async def test_an_empty_pool_is_told(project: Project, batchgen: Typist) -> None:
    project.write("pool.jsonl", "\n\n")
    warning, line = "warning: pool.jsonl: the pool is empty\n", "default: 0 items read, 0 new\n"
    enqueued = await batchgen("enqueue", "pool.jsonl")
    assert (enqueued.code, enqueued.err) == (0, warning + line)
    assert (await batchgen("-q", "enqueue", "pool.jsonl", "--dry-run")).err == warning
    assert (await batchgen("enqueue", "-")).err.startswith("warning: stdin: the pool is empty\n")
    assert (await batchgen("enqueue", "pool.jsonl", "--limit", "0")).err == line
    project.write("pool.jsonl", "{}\n")
    skipped = await batchgen("enqueue", "pool.jsonl", "--skip-invalid", "bad.jsonl")
    assert skipped.err.endswith("default: 0 items read, 0 new, 1 invalid skipped\n")
    assert "the pool is empty" not in skipped.err


async def test_quiet_is_silent_unless_there_is_a_problem(project: Project, words: Words) -> None:
    project.pool(words(3))
    done = await project.batchgen("-q", "run", "pool.jsonl")
    assert (done.code, done.out, done.err) == (0, "", "")
    assert len(project.export()) == 3
    project.write("pool.jsonl", "nope\n")
    wrong = await project.batchgen("-q", "run", "pool.jsonl")
    assert wrong.err == "error: pool.jsonl:1: not JSON: Expecting value at column 1\n"


async def test_a_reader_that_leaves_gets_no_traceback(project: Project, words: Words) -> None:
    """`batchgen export -o - | head -1`"""
    project.config("prompts: {user_prompt_path: long.txt}\n")
    project.write("long.txt", "{word} " + "long " * 1000)
    project.pool({"word": f"{word['word']} {'x' * 20_000}"} for word in words(50))
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    for command in (["export", "-o", "-"], ["show", "1"]):
        process = await project.start(*command)
        assert process.stdout is not None
        assert process.stderr is not None
        if command[0] == "export":
            assert json.loads(await process.stdout.readline())["id"] == 1
        process.stdout._transport.close()  # type: ignore[attr-defined]  # asyncio has no other way
        assert await process.stderr.read() == b""
        await process.wait()


# --- export -----------------------------------------------------------------------------------


async def test_export_lines_have_the_keys_of_the_contract_in_its_order(
    project: Project, simulator: Simulator
) -> None:
    metadata = {"b": [1, {"世": None}], "a": 1.0}
    item = {"word": "世界 🌍", "id": "né", "metadata": metadata}
    simulator.script("世界", Behaviour.ok("你好，世界！\n“引号” <&> \u2028"))
    project.pool([item, {"word": "plain"}])
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    data = (project.path / "output/default.jsonl").read_bytes()
    assert "你好，世界！" in data.decode()
    assert "\\u" not in data.decode()
    first, second = (json.loads(line) for line in data.decode().rstrip("\n").split("\n"))
    assert list(first) == list(second) == EXPORT_KEYS
    assert TIME.fullmatch(first.pop("timestamp"))
    assert first == {
        "id": "né", "input": item, "response": "你好，世界！\n“引号” <&> \u2028",
        "parsed": "你好，世界！\n“引号” <&> \u2028", "metadata": metadata, "model": "simulated",
        "finish_reason": "stop", "usage": {"prompt_tokens": 2, "completion_tokens": 5},
        "cost_usd": None, "attempts": 1,
    }  # fmt: skip
    assert (second["id"], second["metadata"]) == (2, None)


async def test_metadata_of_any_kind_is_exported_as_it_was_given(
    project: Project, batchgen: Typist
) -> None:
    written = [
        "true", "false", "0.1234567890123456", str(10**29), '"a\\u0000b"', "[true, 1.0]", "null",
    ]  # fmt: skip
    lines = [f'{{"word": "{n}", "metadata": {one}}}\n' for n, one in enumerate(written)]
    project.write("pool.jsonl", "".join(lines))
    assert (await batchgen("run", "pool.jsonl")).code == 0
    assert [json.dumps(line["metadata"]) for line in project.export()] == written


async def test_parsed_is_what_the_parser_makes_of_the_answer(
    project: Project, batchgen: Typist, simulator: Simulator
) -> None:
    cases: list[tuple[str, str, Any]] = [
        ("raw", "<d>a</d>", "<d>a</d>"),
        ("tag:d", "<D x='1'> 世 </D> and <d>b</d>", ["世", "b"]),
        ("json", 'Here: ```json\n{"a": [1, null, "世"]}\n```', {"a": [1, None, "世"]}),
        ("regex:(?P<n>\\d+) (?P<unit>\\w+)", "12 apples", {"n": "12", "unit": "apples"}),
        ("mine.py:parse", "abc", {"reversed": "cba", "word": "w4"}),
    ]
    project.write(
        "mine.py",
        "def parse(response, item): return {'reversed': response[::-1], 'word': item['word']}\n",
    )
    for number, (parser, answer, _) in enumerate(cases):
        project.config(f"parser: {json.dumps(parser)}\n")
        project.pool([{"word": f"w{number}"}])
        simulator.script(f"Say w{number}", Behaviour.ok(answer))
        worked = await project.batchgen("run", "pool.jsonl", "--experiment", f"e{number}")
        assert worked.code == 0, worked.err
    lines = [line for number in range(len(cases)) for line in project.export(f"e{number}")]
    got = [(line["response"], line["parsed"]) for line in lines]
    assert got == [(answer, parsed) for _, answer, parsed in cases]


async def test_export_to_a_file_to_stdout_and_the_failed(
    project: Project, batchgen: Typist, simulator: Simulator
) -> None:
    await failing_job(project, batchgen, simulator)
    await batchgen("export")
    text = (project.path / "output/default.jsonl").read_text()
    assert [json.loads(line)["input"]["word"] for line in text.splitlines()] == ["one", "three"]
    assert (await batchgen("export", "-o", "-")).out == text
    named = await batchgen("export", "-o", "sub/mine.jsonl")
    assert named.err.startswith("2 rows -> sub/mine.jsonl; left out: 1 failed ")
    assert (project.path / "sub/mine.jsonl").read_text() == text

    (failed,) = (await batchgen("export", "--failed", "-o", "-")).out.splitlines()
    line = json.loads(failed)
    assert list(line) == [*EXPORT_KEYS, "reason", "error"]
    values = [line[key] for key in ("id", "response", "parsed", "reason", "error")]
    assert values == ["deux", None, None, "rejected", "400 no such luck"]
    await batchgen("export", "--failed")
    assert (project.path / "output/default.failed.jsonl").read_text() == failed + "\n"
    assert (project.path / "output/default.jsonl").read_text() == text
    assert (await batchgen("export", "--failed", "-o", "bad.jsonl")).code == 0
    assert (project.path / "bad.jsonl").read_text() == failed + "\n"


async def test_with_a_time_stamp_a_second_run_has_the_same_file(
    project: Project, simulator: Simulator, words: Words
) -> None:
    project.config("output_data: {output_dir: out, experiment_name: e, need_time_stamp: true}\n")
    project.pool(words(2))
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    # As if it had been made long ago.
    made_at_ms = int(datetime(2026, 1, 2, 3, 4, 5).timestamp() * 1000)  # noqa: DTZ001  local
    change(project.database, f"update experiments set created_at = {made_at_ms}")
    (first,) = (project.path / "out").iterdir()
    assert re.fullmatch(r"e_\d{8}-\d{6}\.jsonl", first.name)
    project.pool(words(3))
    for _ in range(2):
        assert (await project.batchgen("run", "pool.jsonl")).code == 0
    assert {file.name for file in (project.path / "out").iterdir()} == {
        first.name, "e_20260102-030405.jsonl",
    }  # fmt: skip
    assert simulator.calls == 3


# --- pools ------------------------------------------------------------------------------------


async def test_pools_of_every_kind_end_to_end_with_params_that_override(
    project: Project, batchgen: Typist, simulator: Simulator
) -> None:
    project.config(
        "prompts: {user_prompt_path: u.txt, system_prompt_path: s.txt}\n", temperature=0.5
    )
    project.write("u.txt", "Say {word}")
    project.write("s.txt", "Be {tone}")
    ready = [{"role": "user", "content": [{"type": "text", "text": "ready"}]}]
    body = {"model": "other", "messages": [{"role": "user", "content": "batch"}], "top_p": 0.1}
    project.pool(
        [
            {"word": "flat", "tone": "calm", "params": {"temperature": 0, "seed": 7}},
            {"user_prompt_kwargs": {"word": "kwargs"}, "system_prompt_kwargs": {"tone": "warm"}},
            {"messages": ready, "params": {"temperature": None}},
            {"custom_id": "b1", "method": "POST", "url": "/v1/chat/completions", "body": body},
        ]
    )
    with (project.path / "pool.csv").open("w", newline="") as file:
        rows = [["word", "tone", "id", "params"], ["csv, quoted", "dry", "c1", '{"max_tokens": 5}']]
        csv.writer(file).writerows(rows)
    project.write(
        "made.py",
        "def items():\n    yield {'word': 'made', 'tone': 'odd', 'params': {'model': 'm2'}}\n",
    )
    project.write("list.json", '[{"word": "listed", "tone": "flat"}]')
    for source in ("pool.jsonl", "pool.csv", "made.py:items", "list.json"):
        assert (await batchgen("enqueue", source)).code == 0
    assert (await project.batchgen("work", "-c", "1")).code == 0
    assert (await batchgen("export")).code == 0

    def sent(system: str | None, user: Any, **params: Any) -> dict[str, Any]:
        messages = [{"role": "user", "content": user}]
        if system:
            messages.insert(0, {"role": "system", "content": system})
        request = {"model": "simulated", "messages": messages, "temperature": 0.5}
        return {**request, "stream": False, **params}

    plain = sent(None, ready[0]["content"])
    del plain["temperature"]
    assert [dict(request.body) for request in simulator.requests] == [
        sent("Be calm", "Say flat", temperature=0, seed=7),
        sent("Be warm", "Say kwargs"),
        plain,
        sent(None, "batch", model="other", top_p=0.1),
        sent("Be dry", "Say csv, quoted", max_tokens=5),
        sent("Be odd", "Say made", model="m2"),
        sent("Be flat", "Say listed"),
    ]
    assert [line["id"] for line in project.export()] == [1, 2, 3, "b1", "c1", 6, 7]
    assert project.export()[3]["input"]["body"] == body


async def test_stdin_is_a_pool(project: Project, batchgen: Typist, simulator: Simulator) -> None:
    lines = '{"word": "a"}\n\n{"word": "世"}'.encode()
    done = await batchgen("enqueue", "-", "--json", stdin=lines)
    assert done.json["new"] == 2
    await project.batchgen("work")
    assert sorted(simulator.ledger) == ["Say a", "Say 世"]


async def test_limit_priority_and_skip_invalid(
    project: Project, batchgen: Typist, simulator: Simulator
) -> None:
    project.pool([{"word": "low"}, {"wrod": "bad"}, {"word": "never"}])
    options = ["--limit", "2", "--skip-invalid", "bad.jsonl"]
    assert (await batchgen("enqueue", "pool.jsonl", *options)).code == 0
    project.pool([{"word": "high"}], "urgent.jsonl")
    assert (await batchgen("enqueue", "urgent.jsonl", "--priority", "5")).code == 0
    assert (await project.batchgen("work", "-c", "1")).code == 0
    assert list(simulator.ledger) == ["Say high", "Say low"]
    assert (project.path / "bad.jsonl").read_text() == '{"wrod": "bad"}\n'


@pytest.mark.on_both_engines
async def test_a_dry_run_shows_the_first_prompt_and_writes_nothing(
    project: Project, batchgen: Typist, words: Words
) -> None:
    project.pool(words(3))
    before = sorted(project.path.rglob("*"))
    dry = await batchgen("enqueue", "pool.jsonl", "--dry-run", "--limit", "2")
    assert (dry.code, dry.err) == (0, "")
    assert dry.out == (
        "2 items would be enqueued into default; nothing was written.\n"
        "Estimated: 18 tokens in; no cost, as max_tokens is not set\n\nuser:\nSay w0\n"
    )
    dry = await batchgen("enqueue", "pool.jsonl", "--dry-run", "--json")
    assert dry.json == {
        "read": 3, "new": 3, "asked_anew": 0, "waiting": 0,
        "first_messages": [{"role": "user", "content": "Say w0"}],
        "prompt_tokens": 27, "completion_tokens": None, "cost_usd": None, "batch_cost_usd": None,
        "is_measured": False,
    }  # fmt: skip
    assert sorted(project.path.rglob("*")) == before


async def test_a_dry_run_estimates_the_cost_by_max_tokens_and_then_by_what_was_measured(
    project: Project, batchgen: Typist, words: Words
) -> None:
    price = {"input_usd_per_mtok": 1, "output_usd_per_mtok": 10}
    project.config(max_tokens=1000, price=price)
    project.pool(words(4))
    dry = await batchgen("enqueue", "pool.jsonl", "--dry-run")
    assert "Estimated: 36 tokens in, 4,000 out (at most, by max_tokens): $0.0400" in dry.out
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    ((tokens,),) = project.query("select completion_tokens from totals")
    again = await batchgen("enqueue", "pool.jsonl", "--dry-run", "--recipe", "add", "--model", "m")
    cost_usd = (36 + tokens * 10) / 1e6
    assert f"36 tokens in, {tokens:,} out (as its items had so far): ${cost_usd:,.4f}" in again.out
    project.pool(words(5))
    dry = await batchgen("enqueue", "pool.jsonl", "--dry-run")
    assert dry.out.startswith(
        "5 items read, 1 new to default; nothing was written.\n"
        f"Estimated for 1 call: 9 tokens in, {round(tokens / 4):,} out (as its items had so far): "
        f"${cost_usd / 4:,.4f}\n"
    )


async def test_variables_that_no_template_uses_are_told_once(
    project: Project, batchgen: Typist
) -> None:
    project.pool({"word": f"w{n}", "tone": n, "id": n, "metadata": n} for n in range(30))
    done = await batchgen("enqueue", "pool.jsonl")
    assert done.err == (
        "warning: no template uses these variables: tone\ndefault: 30 items read, 30 new\n"
    )


async def test_editing_a_template_changes_nothing_already_enqueued(
    project: Project, batchgen: Typist, simulator: Simulator, words: Words
) -> None:
    project.pool(words(1))
    await batchgen("enqueue", "pool.jsonl")
    project.write("prompts/user_prompts/default.txt", "Shout {word}")
    project.config(model="another", temperature=1.5)
    assert (await project.batchgen("work")).code == 0
    (request,) = simulator.requests
    assert dict(request.body) == {
        "model": "simulated", "messages": [{"role": "user", "content": "Say w0"}], "stream": False,
    }  # fmt: skip
    assert (await batchgen("show", "1", "--json")).json["messages"] == (request.body["messages"])


async def test_another_recipe_is_added_or_replaces_the_old_one(
    project: Project, batchgen: Typist, simulator: Simulator, words: Words
) -> None:
    project.pool(words(2))
    await batchgen("enqueue", "pool.jsonl")
    await project.batchgen("work", "--max-items", "1")
    project.write("prompts/user_prompts/default.txt", "Shout {word}")
    refused = await batchgen("enqueue", "pool.jsonl")
    assert (refused.code, "the user template changed" in refused.err) == (2, True)

    replaced = await batchgen("enqueue", "pool.jsonl", "--recipe", "replace")
    assert replaced.err == ("default: 2 items read, 0 new, 1 asked with the new recipe\n")
    project.write("prompts/user_prompts/default.txt", "Sing {word}")
    added = await batchgen("enqueue", "pool.jsonl", "--recipe", "add", "--json")
    assert (added.json["new"], added.json["asked_anew"]) == (2, 0)
    assert (await project.batchgen("work", "-c", "1")).code == 0
    assert list(simulator.ledger) == [
        "Say w0", "Shout w1", "Sing w0", "Sing w1",
    ]  # fmt: skip
    assert (await batchgen("verify")).code == 0


async def test_an_interrupted_enqueueing_keeps_what_it_had_and_goes_on(
    project: Project, batchgen: Typist
) -> None:
    project.write(
        "made.py",
        "import os, signal\n"
        "def items():\n"
        "    for n in range(25_000):\n"
        "        if n == 22_000 and not os.path.exists('again'):\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "        yield {'word': n}\n",
    )
    stopped = await project.process("enqueue", "made.py:items")
    assert stopped.code == 130, stopped.err
    kept = re.fullmatch(r"default: enqueued and kept (\d+) items before that\.\n", stopped.err)
    assert kept is not None, stopped.err
    project.write("again", "")
    again = await batchgen("enqueue", "made.py:items", "--json")
    assert again.json["new"] == 25_000 - int(kept[1])


# --- retry ------------------------------------------------------------------------------------


async def test_retry_by_reason_by_id_and_only_to_see(
    project: Project, batchgen: Typist, simulator: Simulator
) -> None:
    project.config("parser: json\n")
    project.pool([{"word": "luck"}, {"word": "prose", "id": "p"}, {"word": "fate"}])
    for word in ("luck", "fate"):
        simulator.script(word, Behaviour.error(400), Behaviour.ok("1"))
    simulator.script("prose", Behaviour.ok("no JSON"), Behaviour.ok("2"))
    assert (await project.batchgen("run", "pool.jsonl")).code == 3

    dry = await batchgen("retry", "--dry-run")
    assert dry.out == "3 failed items would go back to pending.\n"
    dry = await batchgen("retry", "--dry-run", "--reason", "rejected", "--json")
    assert dry.json == {"retried": 2, "dry_run": True, "calls": 2, "cost_usd": None}
    assert (await project.batchgen("work")).code == 3
    assert simulator.calls == 3

    assert (await batchgen("retry", "--id", "p", "--json")).json["retried"] == 1
    assert (await batchgen("retry", "--reason", "parse", "--json")).json["retried"] == 0
    assert (await project.batchgen("work")).code == 3
    assert simulator.calls == 4
    assert (await batchgen("retry", "--reason", "rejected")).out == (
        "2 failed items went back to pending.\n"
    )
    assert (await project.batchgen("work")).code == 0
    assert [row[0] for row in project.query("select tries from work")] == [1, 1, 1]
    assert project.query("select count(*) from attempts") == [(6,)]


# --- experiments ------------------------------------------------------------------------------


async def test_experiments_are_listed_renamed_and_deleted(
    project: Project, batchgen: Typist, simulator: Simulator, words: Words
) -> None:
    project.pool(words(2))
    for name in ("first", "second"):
        assert (await project.batchgen("run", "pool.jsonl", "--experiment", name)).code == 0
    listed = (await batchgen("experiments")).out.splitlines()
    assert [line.split()[0] for line in listed] == ["first", "second"]
    assert all(line.endswith("  total 2, done 2, failed 0") for line in listed)

    renamed = await batchgen("experiments", "rename", "first", "third")
    assert renamed.out == "first is now third.\n"
    assert (await batchgen("export", "--experiment", "third")).code == 0
    assert len(project.export("third")) == 2

    asked = await batchgen("experiments", "delete", "second", stdin=b"y\n")
    assert "Delete second: 2 items, 2 answered? This cannot be undone." in asked.err
    assert asked.out == "Deleted second: 2 items, 2 answered.\n"
    assert (await batchgen("experiments", "delete", "third", "--yes")).code == 0
    assert (await batchgen("experiments", "--json")).json == []
    for table in (
        "items", "work", "attempts", "results", "item_keys", "counters", "totals",
    ):  # fmt: skip
        assert project.query(f"select count(*) from {table}") == [(0,)]
    assert (await batchgen("verify")).code == 0
    # What is gone is asked for again.
    await project.batchgen("run", "pool.jsonl", "--experiment", "second")
    assert simulator.calls == 6


async def test_a_delete_that_is_answered_no_deletes_nothing(
    project: Project, batchgen: Typist, words: Words
) -> None:
    project.pool(words(2))
    await batchgen("enqueue", "pool.jsonl")
    asked = await batchgen("experiments", "delete", "default", stdin=b"n\n")
    assert (asked.code, asked.out) == (1, "")
    assert project.query("select count(*) from work") == [(2,)]


# --- getting started --------------------------------------------------------------------------


async def test_init_writes_a_project_and_never_overwrites(
    project: Project, batchgen: Typist
) -> None:
    project.write("new/config.yaml", "mine: true\n")
    first = await batchgen("init", "new")
    names = ["data_pool.jsonl", "prompts/system_prompts/default.txt",
             "prompts/user_prompts/default.txt"]  # fmt: skip
    assert first.out.splitlines()[:4] == [
        "kept     new/config.yaml", *(f"written  new/{name}" for name in names),
    ]  # fmt: skip
    assert (project.path / "new/config.yaml").read_text() == "mine: true\n"
    before = {name: (project.path / "new" / name).read_bytes() for name in names}
    project.write("new/data_pool.jsonl", "{}\n")
    again = await batchgen("init", "new")
    assert again.out.count("kept  ") == 4
    assert (project.path / "new/data_pool.jsonl").read_text() == "{}\n"
    assert before["prompts/user_prompts/default.txt"] == (
        (project.path / "new/prompts/user_prompts/default.txt").read_bytes()
    )


async def test_what_init_writes_runs_as_it_is(
    project: Project, batchgen: Typist, simulator: Simulator
) -> None:
    assert (await batchgen("init", "new")).code == 0
    project.env |= {"BATCHGEN_MODEL_BASE_URL": project.base_url, "OPENAI_API_KEY": "k"}
    done = await project.batchgen("--config", "new/config.yaml", "run", "new/data_pool.jsonl")
    assert done.code == 0, done.err
    (file,) = (project.path / "new/output").glob("initial_test_*.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [len(line["parsed"]) for line in lines] == [1] * 5
    assert simulator.calls == 5


@pytest.mark.on_both_engines
@pytest.mark.slow
async def test_the_demo_survives_its_kill_and_a_second_one_calls_nothing(project: Project) -> None:
    # In a process, as what its worker says is seen too.
    project.env["BATCHGEN_DATABASE"] = str(project.path / "not-simulated.db")
    first = await project.process("demo", "-c", "2", "--samples", "2")
    assert first.code == 0, first.err
    assert "This is a simulation" in first.err
    assert "changed since it was enqueued" not in first.err
    assert "The worker was just killed (kill -9), with " in first.err
    assert "10 done, 0 failed, 0 left; " in first.err
    (output,) = (project.path / "batchgen-demo/output").glob("demo_*.jsonl")
    before = output.read_bytes()
    again = await project.batchgen("demo", "-c", "2", "--samples", "2")
    assert again.code == 0
    assert "10 done, 0 failed, 0 left; 0 calls in this run" in again.err
    assert output.read_bytes() == before
    assert not list(project.path.glob("*.db"))
    assert "not-simulated" not in first.err


async def test_the_hints_of_the_demo_work_when_they_are_copied(project: Project) -> None:
    project.env |= {"PATH": "/usr/bin:/bin"}
    demo = await project.batchgen("demo", "-c", "9", "--samples", "1")
    hints = demo.err.partition("Look around:\n")[2].splitlines()
    assert len(hints) == 3
    for hint in hints:
        shell = await asyncio.create_subprocess_shell(
            hint, cwd=project.path, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await shell.communicate()
        assert (shell.returncode, bool(out)) == (0, True)


async def test_simulate_serves_at_the_url_that_it_prints(
    project: Project, batchgen: Typist, words: Words
) -> None:
    served = await project.start(
        "simulate", "--port", "0", "--latency", "0", "--errors", "400=0.5", "--ledger", "l.jsonl"
    )
    assert served.stdout is not None
    async with asyncio.timeout(30):
        said = (await served.stdout.readline()).decode()
    url = re.fullmatch(r"serving on (http://127\.0\.0\.1:\d+/v1)\n", said)
    assert url is not None
    project.config(base_url=url[1])
    project.pool(words(20))
    assert (await project.batchgen("run", "pool.jsonl")).code == 3
    served.send_signal(signal.SIGINT)
    stopped = await ended(served)
    assert (stopped.code, stopped.err) == (0, "20 calls\n")
    outcomes = [
        json.loads(line)["outcome"] for line in (project.path / "l.jsonl").read_text().splitlines()
    ]
    status = (await batchgen("status", "--json")).json["total"]
    assert (status["done"], status["failed"]) == (outcomes.count("ok"), outcomes.count("400"))
    assert set(outcomes) == {"ok", "400"}


async def test_status_watch_ends_with_ctrl_c_and_without_a_traceback(
    project: Project, batchgen: Typist, words: Words
) -> None:
    project.pool(words(2))
    await batchgen("enqueue", "pool.jsonl")
    watching = await project.start("status", "--watch")
    assert watching.stdout is not None
    async with asyncio.timeout(30):
        await watching.stdout.readuntil(b"tokens")
    watching.send_signal(signal.SIGINT)
    stopped = await ended(watching)
    assert (stopped.code, stopped.err.strip()) == (130, "")


def test_the_examples_in_help_are_commands_that_exist() -> None:
    names = {path[0] for path in every_command()}
    for path in every_command():
        command: Any = cli
        for name in path:
            command = command.commands[name]
        for line in (command.epilog or "").splitlines()[2:]:
            words = line.split("batchgen ")[1].split()
            assert words[0] in names, line


def test_no_help_line_is_cut_off(capsys: pytest.CaptureFixture[str]) -> None:
    """The list of commands has one whole sentence each, at the usual width of 80."""
    cli.main(["--help"], prog_name="batchgen", standalone_mode=False, terminal_width=80)
    assert "..." not in capsys.readouterr().out.split("Commands:")[1]


async def test_an_id_that_is_a_number_wins_over_the_number_of_an_item(
    project: Project, simulator: Simulator
) -> None:
    project.pool([{"word": "first"}, {"word": "second", "id": 1}])
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    shown = {given: (await project.batchgen("show", given)).out for given in ("1", "2", "#1")}
    assert "Say second" in shown["1"]
    assert "Say second" in shown["2"]
    assert "Say first" in shown["#1"]
