"""What vendors do beyond OpenAI's own API, as a run meets it."""

# ruff: noqa: E501 - what servers say is quoted in full

import json
from typing import Any

import pytest

from batchgen.simulate import Behaviour, Simulator
from batchgen.store.trial import MOST_CALLS
from tests.kits.project import Project


def said(body: Any, status: int = 200) -> Behaviour:
    return Behaviour.response(status, json.dumps(body, ensure_ascii=False))


def answer(content: str, finish_reason: str) -> Behaviour:
    message = {"role": "assistant", "content": content}
    return said({"choices": [{"index": 0, "message": message, "finish_reason": finish_reason}]})


SLIP = said(
    {
        "error": {
            "message": "Failed to validate JSON.",
            "code": "json_validate_failed",
            "failed_generation": '{"label": "positive" "score": 1}',
        }
    },
    400,
)
GOOD = answer('{"label": "positive"}', "stop")


def states(project: Project) -> list[Any]:
    return project.query(
        "select w.state, coalesce(r.reason, ''), w.tries, w.parse_failures, count(*) from work w"
        " left join results r on r.seq = w.result_seq group by 1, 2, 3, 4 order by 1"
    )


async def test_a_slip_of_the_model_is_asked_again_as_a_failed_parse(
    project: Project, simulator: Simulator
) -> None:
    project.config("parser: json\nwork: {parse_attempts: 3}\n")
    simulator.script("Say a", SLIP, SLIP, GOOD)
    project.pool([{"word": "a"}])
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    assert states(project) == [("done", "", 3, 2, 1)]
    shown = (await project.batchgen("show", "1")).out
    assert "attempt 1: answered, but not parsed: 400 Failed to validate JSON., HTTP 400" in shown
    assert '    {"label": "positive" "score": 1}\n' in shown
    assert (await project.batchgen("verify")).code == 0


@pytest.mark.parametrize("parser", ["json", "raw"])
async def test_by_default_a_slip_of_the_model_fails_as_parse_and_its_text_is_kept(
    project: Project, simulator: Simulator, parser: str
) -> None:
    project.config(f"parser: {parser}\n")
    simulator.script("Say a", SLIP)
    project.pool([{"word": "a"}, {"word": "b {}"}])
    await project.batchgen("run", "pool.jsonl")
    (state, *_) = project.query(
        "select w.state, r.reason, r.error, a.response from work w join results r"
        " on r.seq = w.result_seq join attempts a on a.seq = r.attempt_seq where w.item_id = 1"
    )
    text = '{"label": "positive" "score": 1}'
    assert state == ("failed", "parse", "400 Failed to validate JSON.", text)
    # Another parser can use it, without a call.
    again = await project.batchgen("reparse", "--parser", "regex:(?P<label>positive)", "--failed")
    assert again.code in (0, 3), again.err
    assert project.query("select state from work where item_id = 1") == [("done",)]
    assert (await project.batchgen("verify")).code == 0


async def test_an_answer_that_the_server_broke_off_is_asked_for_again_and_kept(
    project: Project, simulator: Simulator
) -> None:
    project.config("work: {retry_wait_s: 0.01}\n")
    simulator.script("Say b", answer("half of an ans", "insufficient_system_resource"))
    project.pool([{"word": "a"}, {"word": "b"}])
    assert (await project.batchgen("run", "pool.jsonl", "-c", "1")).code == 0
    assert simulator.calls_of("Say b") == 2
    assert "half of an ans" in (await project.batchgen("show", "2")).out


async def test_an_unknown_finish_reason_is_said_once(
    project: Project, simulator: Simulator
) -> None:
    simulator.script("Say", *[answer("fine", "some\x1b[31mthing")] * 20)
    project.pool({"word": f"w{n}"} for n in range(20))
    run = await project.batchgen("run", "pool.jsonl")
    assert run.code == 0
    assert run.err.count("which batchgen does not know: they are taken for whole.") == 1
    assert "\x1b" not in run.err


async def test_a_filter_costs_one_call(project: Project, simulator: Simulator) -> None:
    simulator.script("Say a", said({"choices": [{"index": 0, "finish_reason": "content_filter"}]}))
    simulator.script("Say b", said({"promptFeedback": {"blockReason": "SAFETY"}}))
    project.pool([{"word": word} for word in ("a", "b", "c")])
    assert (await project.batchgen("run", "pool.jsonl")).code == 3
    assert states(project) == [("done", "", 1, 0, 1), ("failed", "refusal", 1, 0, 2)]
    assert simulator.calls == 3


NOBODY = {
    "MiniMax, no balance": ({"choices": None, "base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}, "quota or credit is used up"),
    "MiniMax, unknown code": ({"choices": None, "base_resp": {"status_code": 77, "status_msg": "no such thing"}}, "no such thing"),
    "LM Studio": ({"error": "Unexpected endpoint or method. (POST /chat)"}, "Unexpected endpoint"),
    "code and message": ({"code": 7, "message": "tenant is not known"}, "tenant is not known"),
    "code and msg": ({"code": 402, "msg": "pay first"}, "quota or credit is used up"),
    "detail": ({"detail": "nothing here"}, "nothing here"),
    "empty object": ({}, "no choices in it"),
    "list": ([1, 2], "not JSON"),
    "choices without a message": ({"choices": [{"index": 0, "finish_reason": "stop"}]}, "no choices in it"),
    "no text": ({"choices": [{"message": {"content": None}, "finish_reason": "stop"}]}, "empty"),
}  # fmt: skip


@pytest.mark.quick("code and message", "code and msg", "LM Studio")
@pytest.mark.parametrize("case", NOBODY)
async def test_what_all_get_in_a_200_halts(
    project: Project, simulator: Simulator, case: str
) -> None:
    body, words = NOBODY[case]
    simulator.script("Say", *[said(body)] * 100)
    project.pool({"word": f"w{n}"} for n in range(100))
    halted = await project.batchgen("run", "pool.jsonl", "-c", "50")
    assert halted.code == 4, halted.err
    assert words in halted.err
    assert simulator.calls <= MOST_CALLS
    assert states(project) == [("pending", "", 0, 0, 100)]


DAILY = Behaviour.error(
    429, message="Limit 100 on requests per day", headers={"Retry-After": "11520"}
)


@pytest.mark.parametrize("options", [("-c", "1"), ("-c", "50")])
async def test_a_quota_that_comes_back_after_hours_halts_at_once(
    project: Project, simulator: Simulator, options: tuple[str, ...]
) -> None:
    simulator.script("Say", *[Behaviour.ok()] * 10, *[DAILY] * 100)
    project.pool({"word": f"w{n}"} for n in range(100))
    halted = await project.batchgen("run", "pool.jsonl", *options)
    assert halted.code == 4
    assert "the server wants no calls for 192 min, longer than work.stall_s" in halted.err
    assert "Limit 100 on requests per day" in halted.err
    assert states(project) == [("done", "", 1, 0, 10), ("pending", "", 0, 0, 90)]


async def test_what_the_server_said_of_a_long_wait_is_told_though_an_answer_came_after_it(
    project: Project, simulator: Simulator
) -> None:
    slow = Behaviour.ok(delay_s=0.5)
    simulator.script("Say", Behaviour.ok(), slow, slow, *[DAILY] * 100)
    project.pool({"word": f"w{n}"} for n in range(100))
    halted = await project.batchgen("run", "pool.jsonl", "-c", "3")
    assert halted.code == 4
    assert "The server said: 429 Limit 100 on requests per day" in halted.err


async def test_one_item_that_is_to_wait_for_hours_is_not_waited_for(
    project: Project, simulator: Simulator
) -> None:
    project.config("work: {stall_s: 2}\n")
    simulator.script("Say w7", DAILY)
    project.pool({"word": f"w{n}"} for n in range(10))
    halted = await project.batchgen("run", "pool.jsonl", "-c", "4")
    assert halted.code == 4
    assert "all that is left waits for its next try, for 192 min" in halted.err
    assert "Nothing is lost: 1 item waits." in halted.err
