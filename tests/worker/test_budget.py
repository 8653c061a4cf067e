"""What costs are shown, and a budget that no number of workers overshoots nor a restart forgets."""

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from batchgen.simulate import Behaviour, Simulator
from batchgen.store import Budget, Grant, Reservation
from batchgen.store.transactions.budget import reserve
from tests.kits.database import is_untouched
from tests.kits.project import Project
from tests.kits.table import open_table
from tests.kits.typist import Ended

OWN = {"input_usd_per_mtok": 0, "output_usd_per_mtok": 10_000}  # a cent for a token of the answer
MAX_TOKENS = 100  # more than any answer of the simulated model has
MOST = 1.0  # what a call can cost
ITEMS = 40


@pytest.fixture
async def priced(project: Project) -> Project:
    project.config(price=OWN, max_tokens=MAX_TOKENS)
    project.pool({"word": f"w{number}"} for number in range(ITEMS))
    assert (await project.batchgen("enqueue", "pool.jsonl")).code == 0
    return project


def spent(project: Project) -> tuple[float, int]:
    """Dollars and tokens, by what the server said of each call."""
    ((cost_usd, tokens),) = project.query(
        "select sum(cost_usd), sum(prompt_tokens + completion_tokens) from totals"
    )
    ((by_call,),) = project.query("select sum(cost_usd) from attempts")
    assert cost_usd == pytest.approx(by_call)
    return cost_usd, tokens


async def cost_of_one(project: Project) -> float:
    assert (await project.batchgen("work", "--max-items", "1")).code == 0
    return spent(project)[0]


# What is shown


async def test_an_estimate_is_said_wherever_a_cost_is(
    project: Project, simulator: Simulator
) -> None:
    project.config(model="gpt-4o", max_tokens=MAX_TOKENS)
    project.pool([{"word": "a"}])
    dry = await project.batchgen("enqueue", "pool.jsonl", "--dry-run")
    run = await project.batchgen("run", "pool.jsonl", "--max-cost", "1")
    status = await project.batchgen("status")
    for text in (dry.out, run.err, status.out):
        assert text.count("costs are estimates: the price of gpt-4o") == 1
    assert project.export()[0]["cost_usd"] > 0


async def test_every_call_is_counted_with_its_cost(priced: Project, simulator: Simulator) -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 7}
    simulator.script("Say w3", Behaviour.response(200, json.dumps({"usage": usage})))
    work = await priced.batchgen("work")
    assert work.code == 0, work.err
    cost_usd, _ = spent(priced)
    status = await priced.batchgen("status", "--json")
    assert status.json["total"]["cost_usd"] == pytest.approx(cost_usd)
    assert f"${cost_usd:,.4f}" in (await priced.batchgen("status")).out
    assert (await priced.batchgen("export")).code == 0
    lines = priced.export()
    assert sum(line["cost_usd"] for line in lines) == pytest.approx(cost_usd)
    assert lines[3]["attempts"] == 2  # one without choices has its price too
    tokens = 7 + lines[3]["usage"]["completion_tokens"]
    assert lines[3]["cost_usd"] == pytest.approx(tokens / 100)
    assert "$" in (await priced.batchgen("show", "4")).out


# A budget


def assert_halted(work: Ended, budget: float) -> None:
    assert work.code == 4, work.err
    assert f"of ${budget:,.4f} are spent, and the next call may cost ${MOST:,.4f}." in work.err
    assert "Raise --max-cost to go on." in work.err


@pytest.mark.quick("options0")
@pytest.mark.parametrize("options", [(), ("--processes", "2")])
async def test_a_budget_is_never_exceeded_and_a_higher_one_goes_on(
    priced: Project, simulator: Simulator, options: tuple[str, ...]
) -> None:
    one = await cost_of_one(priced)
    budget = round(10.5 * one + MOST, 4)
    work = await priced.process("work", "-c", "8", "--max-cost", str(budget), *options)
    assert_halted(work, budget)
    cost_usd, _ = spent(priced)
    assert budget - MOST - one < cost_usd <= budget
    assert priced.query("select count(*) from work where state = 'running'") == [(0,)]
    assert priced.query("select count(*) from reservations") == [(0,)]
    again = await priced.process("work", "--max-cost", str(budget), *options)
    assert_halted(again, budget)
    assert spent(priced)[0] == cost_usd
    rest = await priced.process("work", "-c", "8", "--max-cost", "100", *options)
    assert rest.code == 0, rest.err
    assert (simulator.calls, set(simulator.ledger.values())) == (ITEMS, {1})


async def test_a_budget_of_tokens(priced: Project, simulator: Simulator) -> None:
    await cost_of_one(priced)
    _, one = spent(priced)
    work = await priced.batchgen("work", "-c", "8", "--max-tokens-total", str(30 * one))
    assert work.code == 4, work.err
    assert "Raise --max-tokens-total to go on." in work.err
    assert spent(priced)[1] <= 30 * one
    assert simulator.calls > 1


@pytest.mark.quick("chat")
@pytest.mark.parametrize("endpoint", ["chat", "responses", "completions"])
async def test_an_answer_that_an_error_broke_off_counts_with_the_most_it_can_have_cost(
    project: Project, simulator: Simulator, endpoint: str
) -> None:
    project.config(price=OWN, max_tokens=MAX_TOKENS, stream=True, endpoint=endpoint)
    project.pool([{"word": "w1"}])
    simulator.script("Say w1", "stream_error")
    broken = await project.batchgen("run", "pool.jsonl", "--max-cost", "3", "-v")
    assert broken.code == 0, broken.err
    assert simulator.calls == 2
    assert MOST < spent(project)[0] < 2 * MOST


async def test_a_budget_that_cannot_be_kept_is_refused_before_anything_is_enqueued(
    project: Project,
) -> None:
    project.config(price=OWN)
    project.pool([{"word": "w1"}])
    refused = await project.batchgen("run", "pool.jsonl", "--max-cost", "3")
    assert (refused.code, "max_tokens" in refused.err) == (2, True), refused.err
    assert is_untouched(project.database)


async def test_two_workers_share_a_budget(priced: Project) -> None:
    one = await cost_of_one(priced)
    budget = round(12 * one + MOST, 4)
    command = ("work", "-c", "6", "--max-cost", str(budget))
    ended = await asyncio.gather(priced.process(*command), priced.process(*command))
    assert {work.code for work in ended} == {4}
    assert spent(priced)[0] <= budget


async def test_a_call_that_nobody_saw_the_end_of_counts_with_the_most_it_can_have_cost(
    priced: Project, simulator: Simulator
) -> None:
    simulator.hold()
    process = await priced.start("work", "-c", "4", "--max-cost", "50")
    await simulator.received(4)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    simulator.release()
    work = await priced.batchgen("work", "--max-items", "1")
    assert work.code == 0, work.err
    unknown = priced.query("select cost_usd from attempts where outcome = 'unknown'")
    assert unknown == [(pytest.approx(MOST),)] * 4
    assert spent(priced)[0] > 4 * MOST
    assert priced.query("select unknown_tokens > 4 * 100 from totals") == [(1,)]
    assert priced.query("select count(*) from reservations") == [(0,)]


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"max_tokens": 10}, "model.price: the price of 'simulated'"),
        ({"price": OWN}, "model.max_tokens: is not set"),
    ],
)
async def test_what_is_not_known_is_refused_before_any_call(
    project: Project, simulator: Simulator, model: dict[str, Any], said: str
) -> None:
    project.config(**model)
    project.pool([{"word": "a"}])
    assert (await project.batchgen("enqueue", "pool.jsonl")).code == 0
    work = await project.batchgen("work", "--max-cost", "5")
    assert (work.code, simulator.calls) == (2, 0)
    assert said in work.err
    assert "Traceback" not in work.err


@pytest.mark.parametrize(
    ("price", "said"),
    [
        ({"input_usd_per_mtok": 1}, "output_usd_per_mtok is missing"),
        ({**OWN, "input": 1}, "input is unknown; there are input_usd_per_mtok"),
        ({**OWN, "input_usd_per_mtok": -1}, "input_usd_per_mtok must be a number >= 0, not -1"),
        (5, "must be a mapping or null"),
        ({**OWN, "batch": 5}, "batch must be a mapping or null, not 5"),
        ({**OWN, "batch": {}}, "batch.input_usd_per_mtok is missing"),
        ({**OWN, "batch": {**OWN, "batch": OWN}}, "batch.batch is unknown; there are input_usd"),
        ({**OWN, "batch": OWN | {"output_usd_per_mtok": "1"}}, "batch.output_usd_per_mtok must be"),
        ({**OWN, "bacth": OWN}, "cached_input_usd_per_mtok, batch"),
    ],
)
async def test_a_wrong_price_is_told_by_its_key(project: Project, price: Any, said: str) -> None:
    project.config(price=price)
    status = await project.batchgen("status")
    assert status.code == 2
    assert "model.price" in status.err
    assert said in status.err


@pytest.mark.quick("None")
@pytest.mark.parametrize("usage", [None, {"prompt_tokens": 5}])
async def test_an_answer_without_its_tokens_counts_with_the_most_it_can_have_cost(
    priced: Project, simulator: Simulator, usage: Any
) -> None:
    message = {"role": "assistant", "content": "Hello"}
    answer = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    body = json.dumps(answer | ({"usage": usage} if usage else {}))
    simulator.script("Say", *[Behaviour.response(200, body)] * ITEMS)
    work = await priced.batchgen("work", "-c", "4", "--max-cost", "3.5")
    assert_halted(work, 3.5)
    assert simulator.calls == 3
    assert priced.query("select sum(cost_usd) from attempts") == [(pytest.approx(3 * MOST),)]


async def test_a_call_that_was_cut_off_counts_and_one_that_was_refused_does_not(
    priced: Project, simulator: Simulator
) -> None:
    simulator.script("Say w0", "cut", "400")
    work = await priced.batchgen("work", "--max-items", "1", "--max-cost", "50")
    assert work.code in (0, 3), work.err
    calls = priced.query("select reason, cost_usd from attempts order by seq limit 1")
    assert calls == [("connection", pytest.approx(MOST))]


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"max_tokens": None}, "model.max_tokens: is not set, so nobody knows the most"),
    ],
)
async def test_an_item_that_asks_for_what_has_no_limit_fails_alone(
    priced: Project, simulator: Simulator, params: dict[str, Any], said: str
) -> None:
    priced.pool([{"word": "boundless", "params": params}])
    assert (await priced.batchgen("enqueue", "pool.jsonl", "--priority", "1")).code == 0
    work = await priced.batchgen("work", "--max-cost", "100")
    assert (work.code, simulator.calls) == (3, ITEMS), work.err
    ((reason, error),) = priced.query("select reason, error from results where reason is not null")
    assert reason == "rejected"
    assert error.startswith(f"the item's own params cannot be kept to a budget. {said}")


async def test_an_item_whose_own_model_has_no_known_price_fails_alone(project: Project) -> None:
    project.config(base_url="https://api.openai.com/v1", model="gpt-4o", max_tokens=9)
    project.pool([{"word": "w0", "params": {"model": "nobody-s"}}])
    assert (await project.batchgen("enqueue", "pool.jsonl")).code == 0
    assert (await project.batchgen("work", "--max-cost", "100")).code == 3
    ((error,),) = project.query("select error from results")
    assert "model.price: the price of 'nobody-s' at https://api.openai.com/v1 is not" in error


@pytest.mark.parametrize("limit", ["nan", "inf", "0"])
async def test_a_budget_is_a_finite_number(
    priced: Project, simulator: Simulator, limit: str
) -> None:
    work = await priced.batchgen("work", "--max-cost", limit)
    assert (work.code, simulator.calls) == (2, 0)


async def test_a_worker_that_lost_the_item_reserves_nothing(tmp_path: Path) -> None:
    with open_table(tmp_path / "batchgen.db") as table:
        table.enqueue("a")
        late = table.join()
        (item,) = table.claim(late, 1)
        table.take_over(late)
        heir = table.join()
        (theirs,) = table.claim(heir, 1)
        budget = Budget(max_cost_usd=10.0)
        (granted,) = table.run(reserve, heir, [Reservation(theirs, 10, 1.0)], budget)
        (refused,) = table.run(reserve, late, [Reservation(item, 10, 1.0)], budget)
        assert (granted, refused) == (Grant.YES, Grant.WAIT)
        assert table.query("select worker_id, epoch from reservations") == [(heir, theirs.epoch)]
