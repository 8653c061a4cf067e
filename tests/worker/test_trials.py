"""Until the first answer: whatever is wrong with the server or the recipe costs few calls, no item,
and is told; whatever is wrong with some items costs these."""

import json
from typing import Any

import pytest

from batchgen.simulate import Behaviour, Simulator
from batchgen.store.trial import MOST_CALLS
from tests.kits.project import Project, ended

ITEMS = 200
PAGE = "<html><head><title>404 Not Found</title></head><body>nginx</body></html>"
EMPTY = Behaviour.response(
    200, '{"choices": [{"message": {"role": "assistant", "content": ""}, "finish_reason": "stop"}]}'
)
THOUGHTS = {"role": "assistant", "content": "", "reasoning_content": "The answer is 4."}


def said(status: int, body: Any) -> Behaviour:
    return Behaviour.response(status, json.dumps(body, ensure_ascii=False))


def words(n: int = ITEMS, start: int = 0, **more: Any) -> list[dict[str, Any]]:
    return [{"word": f"w{number:03}", **more} for number in range(start, start + n)]


def states(project: Project) -> list[Any]:
    return project.query(
        "select w.state, coalesce(r.reason, ''), w.tries, count(*) from work w"
        " left join results r on r.seq = w.result_seq group by 1, 2, 3 order by 1"
    )


NOBODY = {
    "vLLM without /v1": (said(404, {"detail": "Not Found"}), "404 Not Found"),
    "405": (said(405, {"detail": "Method Not Allowed"}), "405 Method Not Allowed"),
    "nginx": (Behaviour.response(404, PAGE, content_type="text/html"), "nginx"),
    "a page": (Behaviour.response(200, PAGE, content_type="text/html"), "nginx"),
    "words that nobody knows": (
        said(400, {"error": {"message": "the request is not for this kind of thing"}}),
        "the request is not for this kind of thing",
    ),
    "in Chinese": (said(400, {"error": {"message": "参数错误", "code": "1210"}}), "参数错误"),
    "no balance": (
        said(200, {"choices": None, "base_resp": {"status_msg": "insufficient balance"}}),
        "insufficient balance",
    ),
    "only thoughts": (
        said(200, {"choices": [{"message": THOUGHTS, "finish_reason": "stop"}]}),
        "the answer is empty",
    ),
}

OF_THE_RECIPE = {
    "vLLM without /v1",
    "nginx",
    "words that nobody knows",
    "in Chinese",
    "only thoughts",
}


@pytest.mark.quick("405", "a page")
@pytest.mark.parametrize(
    ("case", "options"),
    [*((case, ("-c", "100")) for case in NOBODY), ("nginx", ("-c", "200", "--processes", "4"))],
)
async def test_what_fails_for_everybody_halts_and_costs_no_item_anything(
    project: Project, simulator: Simulator, case: str, options: tuple[str, ...]
) -> None:
    behaviour, words_of_the_server = NOBODY[case]
    simulator.script("Say", *[behaviour] * ITEMS)
    project.pool(words())
    halted = await project.process("run", "pool.jsonl", *options)
    assert halted.code == 4, halted.err
    assert "nothing has been answered in this run, and " in halted.err
    assert f"model.base_url ({simulator.base_url})" in halted.err
    assert words_of_the_server in halted.err
    assert ("--recipe replace" in halted.err) == (case in OF_THE_RECIPE)
    assert 3 <= simulator.calls <= MOST_CALLS
    assert states(project) == [("pending", "", 0, ITEMS)]
    assert project.query("select count(*) from work where available_at is not null") == [(0,)]


async def test_a_max_tokens_that_is_too_small_for_all_halts_before_the_pool_is_paid_for(
    project: Project, simulator: Simulator
) -> None:
    simulator.script("Say", *["length"] * 2 * ITEMS)
    project.config("parser: json\n")
    project.pool(words())
    halted = await project.batchgen("run", "pool.jsonl", "-c", "50")
    assert halted.code == 4, halted.err
    assert "halted: nothing has been answered to its end in this run: " in halted.err
    assert "Raise model.max_tokens. A change of the model" in halted.err
    assert simulator.calls <= MOST_CALLS
    assert states(project) == [("pending", "", 0, ITEMS)]
    allowed = await project.batchgen("work", "-c", "50", "--max-failures", "201")
    assert "failed because of: truncated 200" in allowed.err
    assert (await project.batchgen("verify")).code == 0


@pytest.mark.parametrize("good", [0, 40])
async def test_answers_that_are_cut_off_by_themselves_stop_nobody(
    project: Project, simulator: Simulator, good: int
) -> None:
    for number in range(9):
        simulator.script(f"Say w{number:03}", "length")
    simulator.script("Say", *[Behaviour.ok("[1]")] * good)
    project.config("parser: json\n")
    project.pool(words(9 + good))
    run = await project.batchgen("run", "pool.jsonl", "-c", "4")
    assert run.code == 3, run.err
    assert states(project)[-1] == ("failed", "truncated", 1, 9)
    assert (await project.batchgen("verify")).code == 0


async def test_a_server_that_breaks_off_every_answer_halts_before_long(
    project: Project, simulator: Simulator
) -> None:
    simulator.script("Say", *["cut"] * ITEMS)
    project.config("work: {retry_wait_s: 0.02}\n")
    project.pool(words())
    halted = await project.batchgen("run", "pool.jsonl", "-c", "50")
    assert halted.code == 4, halted.err
    assert "nothing has been answered in this run, and " in halted.err
    assert "The answers break off. Check model.base_url" in halted.err
    assert simulator.calls <= MOST_CALLS
    assert states(project) == [("pending", "", 0, ITEMS)]


async def test_a_server_that_breaks_off_what_is_under_way_as_it_goes_down_costs_nothing(
    project: Project, simulator: Simulator
) -> None:
    simulator.script("Say", *["cut"] * 6)
    project.config("work: {retry_wait_s: 0.02}\n")
    project.pool(words(6))
    run = await project.batchgen("run", "pool.jsonl", "-c", "6")
    assert run.code == 0, run.err
    assert states(project) == [("done", "", 1, 6)]


async def test_a_server_that_refuses_slowly_costs_no_more(
    project: Project, simulator: Simulator
) -> None:
    behaviour = Behaviour.error(404, message="no such route", delay_s=1.7)
    simulator.script("Say", *[behaviour] * ITEMS)
    project.pool(words())
    halted = await project.batchgen("run", "pool.jsonl", "-c", "200")
    assert (halted.code, simulator.calls <= MOST_CALLS) == (4, True), simulator.calls


async def test_once_it_is_mended_the_same_command_does_all(project: Project) -> None:
    async with Simulator().running() as url:
        project.base_url = f"{url}/nowhere"
        project.config()
        project.pool(words(30))
        halted = await project.batchgen("run", "pool.jsonl")
        project.base_url = url
        project.config()
        mended = await project.batchgen("run", "pool.jsonl")
    assert (halted.code, mended.code) == (4, 0), mended.err
    assert states(project) == [("done", "", 1, 30)]


async def test_items_at_the_front_that_are_bad_by_themselves_stop_nobody(
    project: Project, simulator: Simulator
) -> None:
    for number in range(30):
        simulator.script(f"Say w{number:03}", "400")
    project.pool(words(60))
    run = await project.batchgen("run", "pool.jsonl", "-c", "20")
    assert run.code == 3, run.err
    assert states(project) == [("done", "", 1, 30), ("failed", "rejected", 1, 30)]
    assert set(simulator.ledger.values()) == {1}


async def test_items_whose_own_params_are_refused_stop_nobody(
    project: Project, simulator: Simulator
) -> None:
    simulator.script("Say bad", *["400"] * 30)
    bad = [{"word": f"bad{n}", "params": {"top_p": 7}} for n in range(15)]
    project.pool([*bad, *words(10), *[{**one, "word": f"{one['word']}x"} for one in bad]])
    run = await project.batchgen("run", "pool.jsonl", "-c", "20")
    assert run.code == 3, run.err
    assert states(project) == [("done", "", 1, 10), ("failed", "rejected", 1, 30)]
    assert set(simulator.ledger.values()) == {1}


async def test_items_whose_own_model_is_not_known_stop_nobody(
    project: Project, simulator: Simulator
) -> None:
    unknown = Behaviour.error(404, message="The model `x` does not exist.")
    simulator.script("Say w0", *[unknown] * 20)
    project.pool(words(12, params={"model": "x"}))
    alone = await project.batchgen("run", "pool.jsonl", "-c", "4")
    assert alone.code == 3, alone.err
    project.pool([*words(12, params={"model": "x"}), *words(3, start=500)])
    more = await project.batchgen("run", "pool.jsonl", "-c", "4")
    assert more.code == 3, more.err
    assert states(project) == [("done", "", 1, 3), ("failed", "rejected", 1, 12)]


async def test_items_whose_own_model_the_key_may_not_have_stop_nobody(
    project: Project, simulator: Simulator
) -> None:
    refused = Behaviour.error(401, message="Key not allowed to access model. Models: [m]")
    simulator.script("Say w0", *[refused] * 20)
    simulator.script("Say w5", *[Behaviour.ok(delay_s=0.1)] * 3)
    project.config("work: {max_attempts: 1}\n")
    project.pool([*words(3, params={"model": "x"}), *words(3, start=500)])
    run = await project.batchgen("run", "pool.jsonl", "-c", "4")
    assert run.code == 3, run.err
    assert states(project) == [("done", "", 1, 3), ("failed", "rejected", 1, 3)]


async def test_items_whose_own_model_the_key_may_not_have_fail_when_only_they_are_left(
    project: Project, simulator: Simulator
) -> None:
    refused = Behaviour.error(401, message="Key not allowed to access model. Models: [m]")
    simulator.script("Say w5", *[refused] * 60)
    project.pool([*words(10), *words(30, start=500, params={"model": "x"})])
    run = await project.batchgen("run", "pool.jsonl", "-c", "4")
    assert run.code == 3, run.err
    assert states(project) == [("done", "", 1, 10), ("failed", "rejected", 1, 30)]
    assert simulator.calls == 40


async def test_a_wrong_key_halts_also_where_all_items_have_models_of_their_own(
    project: Project, simulator: Simulator
) -> None:
    simulator.script("Say", *["401"] * ITEMS)
    project.pool(words(params={"model": "x"}))
    halted = await project.batchgen("run", "pool.jsonl", "-c", "50")
    assert (halted.code, simulator.calls <= MOST_CALLS) == (4, True), halted.err
    assert "Check model.api_key" in halted.err
    assert states(project) == [("pending", "", 0, ITEMS)]


async def test_a_wrong_url_halts_also_where_all_items_have_params_of_their_own(
    project: Project, simulator: Simulator
) -> None:
    simulator.script("Say", *["404"] * ITEMS)
    project.pool(words(params={"model": "m", "temperature": 0}))
    halted = await project.batchgen("run", "pool.jsonl", "-c", "50")
    assert (halted.code, simulator.calls <= MOST_CALLS) == (4, True), halted.err
    assert states(project) == [("pending", "", 0, ITEMS)]


@pytest.mark.quick("404-1", "400-2", "400-3")
@pytest.mark.parametrize(
    ("status", "items", "code"),
    [("400", 5, 4), ("400", 3, 4), ("400", 2, 3), ("400", 1, 3), ("404", 2, 4), ("404", 1, 4)],
)
async def test_of_a_small_pool_three_that_fail_alike_are_enough_or_one_at_a_wrong_url(
    project: Project, simulator: Simulator, status: str, items: int, code: int
) -> None:
    simulator.script("Say", *[status] * 9)
    project.pool(words(items))
    run = await project.batchgen("run", "pool.jsonl")
    assert (run.code, simulator.calls) == (code, items)
    failed = ("failed", "rejected", 1, items)
    assert states(project) == [("pending", "", 0, items) if code == 4 else failed]


@pytest.mark.quick("empty")
@pytest.mark.parametrize("behaviour", ["400", "empty"])
async def test_bad_items_that_are_asked_again_halt_nobody(
    project: Project, simulator: Simulator, behaviour: str
) -> None:
    bad = EMPTY if behaviour == "empty" else behaviour
    for number in range(30):
        simulator.script(f"Say w{number:03}", *[bad] * 3)
    project.config("work: {max_attempts: 1}\n")
    project.pool(words(60))
    first = await project.batchgen("run", "pool.jsonl", "-c", "20")
    assert first.code == 3, first.err
    await project.batchgen("retry")
    again = await project.batchgen("work", "-c", "20")
    assert again.code == 3, again.err
    assert simulator.calls == 90
    assert [state[::3] for state in states(project)] == [("done", 30), ("failed", 30)]


async def test_few_bad_items_that_are_added_halt_nobody(
    project: Project, simulator: Simulator
) -> None:
    simulator.script("Say w9", *["400"] * 9)
    project.pool(words(20))
    await project.batchgen("run", "pool.jsonl")
    project.pool([*words(20), *words(5, start=900)])
    more = await project.batchgen("run", "pool.jsonl")
    assert more.code == 3, more.err
    assert states(project) == [("done", "", 1, 20), ("failed", "rejected", 1, 5)]


async def test_a_server_that_changed_between_two_runs_costs_no_item(
    project: Project, simulator: Simulator
) -> None:
    project.pool(words(20))
    await project.batchgen("run", "pool.jsonl")
    project.pool(words(80))
    simulator.script("Say", *["404"] * 60)
    for _ in range(2):
        halted = await project.batchgen("run", "pool.jsonl", "-c", "20")
        assert halted.code == 4, halted.err
    assert states(project) == [("done", "", 1, 20), ("pending", "", 0, 60)]


async def test_of_several_experiments_the_one_is_named_of_which_nothing_is_answered(
    project: Project, simulator: Simulator
) -> None:
    project.pool(words(5))
    await project.batchgen("enqueue", "pool.jsonl", "--experiment", "good")
    project.pool(words(30, start=500))
    simulator.script("Say w5", *["400"] * 30)
    project.config(temperature=0.5)
    await project.batchgen("enqueue", "pool.jsonl", "--experiment", "bad")
    halted = await project.batchgen("work", "--all", "-c", "5")
    assert halted.code == 4, halted.err
    assert "halted: nothing of bad has been answered in this run, and " in halted.err
    assert states(project) == [("done", "", 1, 5), ("pending", "", 0, 30)]


async def test_the_first_items_alone_tell_too(project: Project, simulator: Simulator) -> None:
    simulator.script("Say", *["404"] * 9)
    project.pool(words())
    await project.batchgen("enqueue", "pool.jsonl")
    run = await project.batchgen("work", "--max-items", "4")
    assert (run.code, simulator.calls) == (4, 4), run.err
    assert states(project) == [("pending", "", 0, ITEMS)]


async def test_a_worker_with_a_wrong_url_beside_one_with_the_right_one_halts(
    project: Project, simulator: Simulator
) -> None:
    project.pool(words(40))
    await project.batchgen("enqueue", "pool.jsonl")
    good = await project.start("work", "-c", "2")
    await simulator.received(3)
    simulator.hold()
    async with Simulator().running() as elsewhere:
        project.base_url = f"{elsewhere}/nowhere"
        project.config()
        halted = await project.batchgen("work", "-c", "20")
    simulator.release()
    assert halted.code == 4, halted.err
    assert project.query("select count(*) from work where state = 'failed'") == [(0,)]
    assert (await ended(good)).code == 0
    assert states(project) == [("done", "", 1, 40)]


async def test_what_is_wrong_with_the_first_answer_only_is_asked_again(
    project: Project, simulator: Simulator
) -> None:
    simulator.script("Say w000", "bad_json")
    project.config("work: {retry_wait_s: 0.05}\n")
    project.pool(words(10))
    run = await project.batchgen("run", "pool.jsonl", "-c", "4")
    assert run.code == 0, run.err
    assert project.query("select tries from work where item_id = 1") == [(2,)]
    assert simulator.calls == 11
