"""Answers as streams: the same in the table as without, or a failure that keeps what came."""

import json
from typing import Any

import pytest

from batchgen.simulate import Behaviour, Simulator
from tests.kits.project import Project

WORDS = [{"word": f"w{number}"} for number in range(6)]
COUNTED = {"include_usage": True}


def answers(project: Project) -> list[Any]:
    rows = project.query(
        "select response, body, finish_reason, prompt_tokens, completion_tokens, model"
        " from attempts where outcome = 'answered' order by item_id"
    )
    return [(row[0], json.loads(row[1]), *row[2:]) for row in rows]


@pytest.mark.quick("chat")
@pytest.mark.parametrize("endpoint", ["chat", "responses", "completions"])
async def test_what_is_stored_is_the_same_as_without_a_stream(
    project: Project, simulator: Simulator, endpoint: str
) -> None:
    for stream in (False, True):
        experiment = f"output_data: {{experiment_name: stream-{stream}}}\n"
        project.config(experiment, stream=stream, endpoint=endpoint)
        project.pool(WORDS)
        assert (await project.batchgen("run", "pool.jsonl", "-c", "3")).code == 0
    stored = answers(project)
    assert len(stored) == 12
    assert stored[:6] == stored[6:]
    sent = [request.body for request in simulator.requests]
    assert [one["stream"] for one in sent] == [False] * 6 + [True] * 6
    assert "stream_options" not in sent[0]
    assert sent[6].get("stream_options") == (None if endpoint == "responses" else COUNTED)


async def test_embeddings_come_whole_where_all_else_is_streamed(
    project: Project, simulator: Simulator
) -> None:
    project.config(stream=True, endpoint="embeddings")
    project.pool(WORDS)
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    assert "stream" not in simulator.requests[0].body


async def test_a_stream_that_nobody_asked_for_is_read(
    project: Project, simulator: Simulator
) -> None:
    simulator.script("Say w", *["unasked_stream"] * 6)
    project.config()
    project.pool(WORDS)
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    assert simulator.calls == 6
    assert len(answers(project)) == 6


@pytest.mark.quick("cut-connection-chat", "stream_error-server-chat", "keep_alive-timeout-chat")
@pytest.mark.parametrize("endpoint", ["chat", "responses", "completions"])
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("cut", "connection"),
        ("bad_json", "connection"),
        ("stream_error", "server"),
        ("keep_alive", "timeout"),
    ],
)
async def test_a_stream_that_breaks_off_is_tried_again_and_shown(
    project: Project, simulator: Simulator, kind: str, reason: str, endpoint: str
) -> None:
    simulator.script("Say w0", kind)
    settings = "work: {timeout_s: 1, retry_wait_s: 0.01}\n"
    project.config(settings, stream=True, endpoint=endpoint)
    project.pool(WORDS)
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    assert project.query("select outcome, reason from attempts where item_id = 1") == [
        ("failed", reason),
        ("answered", None),
    ]
    shown = (await project.batchgen("show", "1")).out
    assert f"attempt 1: failed, {reason}: " in shown
    assert f'"{"content" if endpoint == "chat" else "text"}":"You wrote ' in shown


async def test_a_server_that_takes_no_stream_options_is_asked_without(
    project: Project, simulator: Simulator
) -> None:
    refused = Behaviour.error(400, message="Unknown parameter: 'stream_options'.")
    simulator.script("Say w", refused)
    project.config(stream=True)
    project.pool(WORDS)
    run = await project.batchgen("run", "pool.jsonl", "-c", "1")
    assert run.code == 0
    assert "the server rejects the stream_options of model.stream: 400 Unknown" in run.err
    assert "It is left out from now on." in run.err
    assert ["stream_options" in one.body for one in simulator.requests] == [True] + [False] * 6


HALTS = [
    (
        False,
        {"message": "parameter.enable_thinking must be set to false for non-streaming calls"},
        "the server answers only as a stream. Set model.stream: true.",
    ),
    (
        False,
        {"message": "use the other way", "param": "stream"},
        "the server answers only as a stream. Set model.stream: true.",
    ),
    (
        True,
        {"message": "Unknown parameter: 'stream'."},
        "the server does not take model.stream, which is sent with every item. Remove it from the "
        "config.",
    ),
]


@pytest.mark.parametrize(("stream", "error", "words"), HALTS)
async def test_what_a_server_says_of_streams_is_a_halt_that_names_the_setting(
    project: Project, simulator: Simulator, stream: bool, error: dict[str, str], words: str
) -> None:
    reply = Behaviour.response(400, json.dumps({"error": error}))
    simulator.script("Say", *[reply] * 40)
    project.config(stream=stream)
    project.pool({"word": f"w{number}"} for number in range(40))
    run = await project.batchgen("run", "pool.jsonl", "-c", "4")
    assert run.code == 4
    assert f"{words} The server said: 400 {error['message']}" in run.err
    assert simulator.calls <= 8
    assert project.query("select distinct state from work") == [("pending",)]


async def test_the_same_for_one_item_with_params_of_its_own_fails_that_item(
    project: Project, simulator: Simulator
) -> None:
    said = "This model only support stream mode"
    simulator.script("Say own", Behaviour.error(400, message=said))
    project.config()
    own = {"user_prompt_kwargs": {"word": "own"}, "params": {"model": "qwq"}}
    project.pool([own, *WORDS])
    run = await project.batchgen("run", "pool.jsonl", "-c", "1")
    assert run.code == 3
    assert project.query("select reason, error from results where reason is not null") == [
        ("rejected", f"400 {said} (see model.stream)")
    ]


async def test_a_server_that_does_not_know_stream_at_all_is_asked_without(
    project: Project, simulator: Simulator
) -> None:
    simulator.script("Say", Behaviour.error(400, message="Unknown parameter: 'stream'."))
    project.config()
    project.pool(WORDS)
    assert (await project.batchgen("run", "pool.jsonl", "-c", "1")).code == 0
    assert ["stream" in one.body for one in simulator.requests] == [True] + [False] * 6
