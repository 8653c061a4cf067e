"""A parameter that the server rejects, on real HTTP: named, left out, or a halt."""

import asyncio
import json
from typing import Any

import pytest

from batchgen.simulate import Behaviour, Simulator
from tests.kits.project import Project, ended

ITEMS = 60
HANDFUL = 8


def rejection(
    message: str, param: str | None = None, code: str | None = None, status: int = 400
) -> Behaviour:
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return Behaviour.response(status, json.dumps({"error": error}))


UNKNOWN = rejection("Unknown parameter: 'logit_bias'.", "logit_bias", "unknown_parameter")
SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}


def words(n: int = ITEMS, **more: Any) -> list[dict[str, Any]]:
    return [{"word": f"w{number:02}", **more} for number in range(n)]


def ends(project: Project) -> list[Any]:
    return project.query(
        "select w.state, coalesce(r.reason, ''), w.tries, count(*) from work w"
        " left join results r on r.seq = w.result_seq group by 1, 2, 3 order by 1"
    )


def message_of(project: Project, item: int) -> str:
    ((message,),) = project.query(f"select error from results where item_id = {item}")
    return str(message)


async def test_one_that_every_item_sends_halts_after_a_handful_of_calls(
    project: Project, simulator: Simulator
) -> None:
    simulator.script("Say", *[UNKNOWN] * ITEMS)
    project.config(logit_bias={"5": 1})
    project.pool(words())
    halted = await project.batchgen("run", "pool.jsonl", "-c", "30")
    assert halted.code == 4
    assert (
        "halted: the server does not take model.logit_bias, which is sent with every item. Remove "
        "it from the config, then enqueue the pool again, replacing the old recipe. "
        "The server said: 400 Unknown parameter: 'logit_bias'.\n"
    ) in halted.err
    assert 1 <= simulator.calls <= HANDFUL
    assert ends(project) == [("pending", "", 0, ITEMS)]
    async with Simulator().running() as url:
        project.base_url = url
        project.config()
        mended = await project.batchgen("run", "pool.jsonl", "--recipe", "replace")
    assert mended.code == 0, mended.err
    assert ends(project) == [("done", "", 1, ITEMS)]


async def test_one_of_extra_body_is_told_by_its_place(
    project: Project, simulator: Simulator
) -> None:
    body = {"detail": [{"loc": ["body", "top_k"], "msg": "Extra inputs are not permitted"}]}
    simulator.script("Say", *[Behaviour.response(422, json.dumps(body))] * ITEMS)
    project.config(extra_body={"top_k": 5})
    project.pool(words())
    halted = await project.batchgen("run", "pool.jsonl")
    assert halted.code == 4
    assert "the server does not take model.extra_body.top_k, which" in halted.err


async def test_one_of_the_item_itself_fails_that_item_only(
    project: Project, simulator: Simulator
) -> None:
    simulator.script("Say w00", UNKNOWN)
    project.pool([{"word": "w00", "params": {"logit_bias": {}}}, *words(3)[1:]])
    run = await project.batchgen("run", "pool.jsonl")
    assert run.code == 3
    assert ends(project) == [("done", "", 1, 2), ("failed", "rejected", 1, 1)]
    assert message_of(project, 1) == (
        "the server rejects params.logit_bias of the item: 400 Unknown parameter: 'logit_bias'."
    )


async def test_one_in_the_body_of_a_batch_line_is_named_as_such(
    project: Project, simulator: Simulator
) -> None:
    simulator.script("Hi", UNKNOWN)
    body = {"messages": [{"role": "user", "content": "Hi"}], "logit_bias": {}}
    project.pool([{"custom_id": "a", "method": "POST", "body": body}])
    assert (await project.batchgen("run", "pool.jsonl")).code == 3
    assert message_of(project, 1).startswith("the server rejects body.logit_bias of the item: 400")


async def test_a_value_that_is_wrong_for_one_item_stays_its_own(
    project: Project, simulator: Simulator
) -> None:
    said = "max_tokens is too large: 900. This model supports at most 8."
    simulator.script("Say w00", rejection(said, "max_tokens", "invalid_value"))
    project.config(max_tokens=900)
    project.pool(words(3))
    assert (await project.batchgen("run", "pool.jsonl")).code == 3
    assert ends(project) == [("done", "", 1, 2), ("failed", "rejected", 1, 1)]
    assert message_of(project, 1) == f"the server rejects model.max_tokens: 400 {said}"


async def test_after_an_answer_with_it_one_rejection_stops_nobody(
    project: Project, simulator: Simulator
) -> None:
    simulator.script("Say w05", UNKNOWN)
    project.config(logit_bias={"5": 1})
    project.pool(words(9))
    assert (await project.batchgen("run", "pool.jsonl", "-c", "1")).code == 3
    assert ends(project) == [("done", "", 1, 8), ("failed", "rejected", 1, 1)]


async def test_one_that_batchgen_adds_is_not_left_out_once_it_has_worked(
    project: Project, simulator: Simulator
) -> None:
    simulator.script("Say w02", rejection("Invalid schema for response_format", "response_format"))
    project.write("page.json", json.dumps(SCHEMA))
    project.config("parser: json_schema:page.json\nstructured_output: true\n")
    project.pool(words(6))
    run = await project.batchgen("run", "pool.jsonl", "-c", "1")
    assert "It is left out" not in run.err
    assert ends(project) == [("done", "", 1, 5), ("failed", "rejected", 1, 1)]
    assert all("response_format" in request.body for request in simulator.requests)


async def test_an_item_that_is_too_long_says_nothing_about_the_schema(
    project: Project, simulator: Simulator
) -> None:
    said = "Your messages resulted in 132166 tokens (317 in the response_format schemas)."
    simulator.script("Say w00", rejection(said, "messages", "context_length_exceeded"))
    project.write("page.json", json.dumps(SCHEMA))
    project.config("parser: json_schema:page.json\nstructured_output: true\n")
    project.pool(words(4))
    run = await project.batchgen("run", "pool.jsonl", "-c", "1")
    assert "It is left out" not in run.err
    assert all("response_format" in request.body for request in simulator.requests)


async def test_an_item_with_a_model_of_its_own_stops_nobody(
    project: Project, simulator: Simulator
) -> None:
    simulator.script("Say w00", UNKNOWN)
    project.config(logit_bias={"5": 1})
    project.pool([{"word": "w00", "params": {"model": "small"}}, *words(3)[1:]])
    assert (await project.batchgen("run", "pool.jsonl", "-c", "1")).code == 3
    assert ends(project) == [("done", "", 1, 2), ("failed", "rejected", 1, 1)]


async def test_one_that_retry_set_for_some_fails_these_and_null_takes_it_away(
    project: Project, simulator: Simulator
) -> None:
    simulator.script("Say w00", "400", UNKNOWN)
    project.pool(words(1))
    await project.batchgen("run", "pool.jsonl")
    await project.batchgen("retry", "--set", 'logit_bias={"5": 1}')
    again = await project.batchgen("work")
    assert (again.code, ends(project)) == (3, [("failed", "rejected", 1, 1)])
    await project.batchgen("retry", "--set", "logit_bias=null")
    assert (await project.batchgen("work")).code == 0


@pytest.mark.parametrize(
    "said",
    [
        rejection("This response_format type is unavailable now"),
        rejection(
            "Invalid schema for response_format 'answer': In context=(), ...", "response_format"
        ),
    ],
)
async def test_a_response_format_made_of_the_schema_is_left_out_where_it_is_rejected(
    project: Project, simulator: Simulator, said: Behaviour
) -> None:
    simulator.script("Say", *[said] * 3, *[Behaviour.ok('{"n": 1}')] * 8, Behaviour.ok("{}"))
    project.write("page.json", json.dumps(SCHEMA))
    project.config("parser: json_schema:page.json\nstructured_output: true\n")
    project.pool(words(9))
    simulator.hold()  # until all three slots have sent what is rejected
    running = asyncio.create_task(project.batchgen("run", "pool.jsonl", "-c", "3"))
    await simulator.received(3)
    simulator.release()
    run = await running
    assert run.code == 3  # answers are checked as before
    assert ends(project) == [("done", "", 1, 8), ("failed", "parse", 1, 1)]
    assert simulator.calls == 9 + 3
    assert run.err.count("warning: the server rejects the response_format of structured_out") == 1
    assert "It is left out from now on.\n" in run.err


@pytest.mark.on_both_engines
@pytest.mark.slow
async def test_several_processes_warn_of_it_once(project: Project, simulator: Simulator) -> None:
    said = rejection("This response_format type is unavailable now")
    project.write("page.json", json.dumps(SCHEMA))
    project.config("parser: json_schema:page.json\nstructured_output: true\n")
    project.pool(words(20))
    await project.batchgen("enqueue", "pool.jsonl")
    simulator.hold()
    work = await project.start("work", "--processes", "2", "-c", "4")
    simulator.script("Say", *[said] * 4, *[Behaviour.ok('{"n": 1}')] * 20)
    await simulator.received(4)
    simulator.release()
    run = await ended(work)
    assert run.code == 0, run.err
    assert simulator.calls == 20 + 4
    assert run.err.count("warning: the server rejects the response_format of structured_out") == 1


async def test_a_response_format_of_the_config_is_the_users(
    project: Project, simulator: Simulator
) -> None:
    simulator.script("Say", *[rejection("This response_format type is unavailable now")] * 9)
    project.config(response_format={"type": "json_object"})
    project.pool(words(3))
    run = await project.batchgen("run", "pool.jsonl")
    assert run.code == 4
    assert "the server does not take model.response_format, which" in run.err
