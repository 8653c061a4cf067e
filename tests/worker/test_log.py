"""The log of a run, as somebody reads it the morning after."""

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from batchgen import DataGenerationPipeline, __version__
from batchgen.items import Fail, Item, Reason
from batchgen.jobs.log import LogFile
from batchgen.simulate import Behaviour, Simulator
from tests.kits.project import KEY, Project, ended

Words = Callable[[int], Iterator[dict[str, Any]]]


def events(project: Project) -> list[dict[str, Any]]:
    """The events of the only log."""
    [file] = (project.path / "logs").iterdir()
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def of_kind(found: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in found if event["event"] == kind]


async def test_the_log_has_one_event_an_attempt_between_start_and_end(
    project: Project, simulator: Simulator, words: Words
) -> None:
    project.pool(words(3))
    simulator.script("Say w2", Behaviour.error(400))
    assert (await project.batchgen("run", "pool.jsonl", "-c", "2")).code == 3
    found = events(project)
    kinds = ["run_started", *["attempt"] * 3, "acquitted", "run_ended"]
    assert [event["event"] for event in found] == kinds
    assert all(event["timestamp"].endswith("Z") for event in found)
    started, ended_ = found[0], found[-1]
    assert (started["version"], started["slots"]) == (__version__, 2)
    assert (ended_["exit_code"], ended_["calls"]) == (3, 3)
    by_item = {event["item"]: event for event in of_kind(found, "attempt")}
    assert set(by_item[1]) == {
        "event", "timestamp", "item", "try_number", "outcome", "reason", "http_status",
        "request_id", "latency_ms", "prompt_tokens", "completion_tokens", "decision",
    }  # fmt: skip
    told = ("try_number", "outcome", "reason", "http_status", "decision")
    assert [by_item[1][name] for name in told] == [1, "answered", None, 200, "done"]
    assert [by_item[3][name] for name in told] == [1, "failed", "rejected", 400, "suspect"]
    assert by_item[1]["prompt_tokens"] == 2
    assert by_item[1]["request_id"].startswith("req_")


async def test_what_became_of_a_suspect_is_logged(
    project: Project, simulator: Simulator, words: Words
) -> None:
    simulator.script("Say w0", "400")
    project.pool(words(30))
    run = await project.batchgen("-v", "run", "pool.jsonl", "-c", "1")
    assert run.code == 3
    (attempt,) = [one for one in of_kind(events(project), "attempt") if one["item"] == 1]
    (acquitted,) = of_kind(events(project), "acquitted")
    assert attempt["decision"] == "suspect"
    assert (acquitted["item"], acquitted["decision"]) == (1, "failed: rejected")
    assert "item 1: failed: rejected: 400 " in run.err


async def test_each_try_of_an_item_is_logged(
    project: Project, simulator: Simulator, words: Words
) -> None:
    project.pool(words(2))
    simulator.script("Say w1", Behaviour.response(200, "<html>"))
    assert (await project.batchgen("run", "pool.jsonl", "-c", "1")).code == 0
    tries = [
        (event["try_number"], event["reason"], event["decision"])
        for event in of_kind(events(project), "attempt")
    ]
    # Whose fault it was is not known yet when the item is asked again.
    assert tries == [(1, None, "done"), (1, "bad_response", "retry"), (1, None, "done")]


async def test_an_answer_is_one_event_however_its_parsing_ends(
    project: Project, simulator: Simulator, words: Words
) -> None:
    project.write("broken.py", "def parse_response(text): raise ValueError(text)\n")
    project.config("parser: broken.py\n")
    project.pool(words(2))
    assert (await project.batchgen("run", "pool.jsonl")).code == 3
    attempts = of_kind(events(project), "attempt")
    assert [(event["item"], event["outcome"]) for event in attempts] == [
        (1, "answered"),
        (2, "answered"),
    ]


async def test_no_prompt_no_answer_and_no_key_is_in_the_log(
    project: Project, simulator: Simulator, words: Words
) -> None:
    project.write("broken.py", "def parse_response(text): raise ValueError(text)\n")
    project.config("parser: broken.py\n")
    project.pool(words(6))
    secret = f"the key {KEY} cannot Say w4"
    simulator.script("Say w4", Behaviour.error(400, message=secret))
    simulator.script("Say w5", Behaviour.error(401, message=secret))
    run = await project.batchgen("-v", "run", "pool.jsonl", "-c", "1")
    assert run.code == 4
    [log] = (project.path / "logs").iterdir()
    text = log.read_text()
    assert len(of_kind(events(project), "attempt")) == 6
    for secret in (KEY, "Say", "w0", "wrote", "river", "Authorization"):
        assert secret not in text
    assert KEY not in run.err + run.out


async def test_sigterm_leaves_a_whole_log(
    project: Project, simulator: Simulator, words: Words
) -> None:
    project.pool(words(9))
    await project.batchgen("enqueue", "pool.jsonl")
    simulator.hold()
    worker = await project.start("work", "-c", "3")
    await simulator.received(3)
    worker.send_signal(signal.SIGTERM)
    assert worker.stderr is not None
    while b"stopping" not in await worker.stderr.readline():
        pass
    simulator.release()
    assert (await ended(worker)).code == 143
    found = events(project)
    assert [event["event"] for event in found] == ["run_started", *["attempt"] * 3, "run_ended"]
    assert [event["decision"] for event in of_kind(found, "attempt")] == ["done"] * 3
    assert (found[-1]["exit_code"], found[-1]["calls"]) == (143, 3)


async def test_calls_that_a_second_signal_left_are_in_the_log(
    project: Project, simulator: Simulator, words: Words
) -> None:
    project.pool(words(3))
    await project.batchgen("enqueue", "pool.jsonl")
    simulator.hold()
    worker = await project.start("work", "-c", "2")
    await simulator.received(2)
    assert worker.stderr is not None
    for _ in range(2):
        worker.send_signal(signal.SIGTERM)
        while b"stopping" not in await worker.stderr.readline():
            pass
    assert (await ended(worker)).code == 143
    found = events(project)
    assert [event["event"] for event in found] == ["run_started", *["attempt"] * 2, "run_ended"]
    left = [(event["outcome"], event["decision"]) for event in of_kind(found, "attempt")]
    assert left == [("unknown", "release")] * 2


async def test_failed_attempts_are_shown_with_v_only(
    project: Project, simulator: Simulator, words: Words
) -> None:
    project.pool(words(2))
    simulator.script("Say w0", Behaviour.error(400, message="too odd"))
    plain = await project.batchgen("run", "pool.jsonl")
    assert "too odd" not in plain.err
    simulator.script("Say w3", Behaviour.error(400, message="too odd"))
    project.pool(words(4))
    verbose = await project.batchgen("-v", "run", "pool.jsonl", "-c", "1")
    assert "item 4, try 1: rejected: 400 too odd -> suspect\n" in verbose.err
    assert "item 4: failed: rejected: 400 too odd\n" in verbose.err
    assert verbose.err.count("try 1") == 1
    assert verbose.out == ""


async def test_an_answer_that_its_parser_cannot_use_is_shown_with_v_too(
    project: Project, simulator: Simulator, words: Words
) -> None:
    project.config("parser: json\n")
    project.pool(words(1))
    run = await project.batchgen("-v", "run", "pool.jsonl")
    assert re.search(r"item 1, try 1: parse: .*JSON.* -> failed: parse\n", run.err)
    [attempt] = of_kind(events(project), "attempt")
    assert (attempt["outcome"], attempt["decision"]) == ("answered", "failed: parse")


async def test_a_log_directory_that_cannot_be_is_one_clear_line_and_no_call(
    project: Project, simulator: Simulator, words: Words
) -> None:
    project.write("logs", "a file where the directory should be")
    project.pool(words(2))
    run = await project.batchgen("-q", "run", "pool.jsonl")
    assert run.code == 1
    assert run.err == (
        f"error: {project.path}/logs: cannot write the log there (File exists). "
        "Choose another directory: log_dir in the config.\n"
    )
    assert simulator.calls == 0


async def test_log_dir_is_where_the_log_goes(project: Project, words: Words) -> None:
    project.config("log_dir: deep/er\n")
    project.pool(words(1))
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    [log] = (project.path / "deep/er").iterdir()
    assert log.name.startswith("batchgen-20")
    assert log.suffix == ".jsonl"


async def test_a_run_from_python_is_logged_like_one_from_the_command_line(
    project: Project, words: Words, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.path)
    await DataGenerationPipeline().run(words(2), concurrency_limit=7)
    found = events(project)
    assert [event["event"] for event in found] == ["run_started", *["attempt"] * 2, "run_ended"]
    assert (found[0]["slots"], found[0]["pid"]) == (7, os.getpid())
    assert (found[-1]["exit_code"], found[-1]["calls"]) == (0, 2)


def test_runs_of_one_process_in_one_second_have_logs_of_their_own(tmp_path: Path) -> None:
    logs = [LogFile(tmp_path, print) for _ in range(12)]
    for number, log in enumerate(logs):
        log.event("run_started", number=number)
        log.close()
    assert len({log.path for log in logs}) == 12
    assert [json.loads(log.path.read_text())["number"] for log in logs] == [*range(12)]


def test_warnings_and_bugs_are_logged_and_shown(tmp_path: Path) -> None:
    shown: list[str] = []
    run_log = LogFile(tmp_path, shown.append)
    run_log.warn("still in flight")
    run_log.bug("item 7: oops", "Traceback ...")
    run_log.close()
    assert shown == [
        "still in flight",
        f"item 7: oops (internal error; the trace is in {run_log.path})",
    ]
    lines = [json.loads(line) for line in run_log.path.read_text().splitlines()]
    assert [(line["event"], line["message"]) for line in lines] == [
        ("warning", "still in flight"),
        ("bug", "item 7: oops"),
    ]
    assert lines[1]["trace"] == "Traceback ..."


def test_what_no_encoding_has_and_a_terminal_that_is_gone_end_no_run(tmp_path: Path) -> None:
    shown: list[str] = []

    def show(message: str) -> None:
        shown.append(message.encode().decode())
        raise BrokenPipeError

    run_log = LogFile(tmp_path, show, show)
    run_log.warn("half \ud83d")
    run_log.bug("item 7: half \ud83d", "Traceback: half \ud83d")
    run_log.parsed(Item(1, 1, 1, 1, None, "{}"), Fail(Reason.PARSE, "half \ud83d"))
    run_log.close()
    assert [message.split(" (")[0] for message in shown] == [
        "half \\ud83d", "item 7: half \\ud83d", "item 1: parse: half \\ud83d"
    ]  # fmt: skip
    lines = [json.loads(line) for line in run_log.path.read_text(encoding="utf-8").splitlines()]
    assert lines[1]["trace"] == "Traceback: half \ud83d"
