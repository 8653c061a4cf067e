"""Steps with servers of their own: who is asked what, and what it costs."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from batchgen.errors import ConfigError
from batchgen.jobs.configured_servers import configured_servers
from batchgen.simulate import Simulator
from batchgen.store import open_store
from batchgen.worker.stats import HaltKind
from tests.kits.chains import ChainJob

pytestmark = pytest.mark.usefixtures("server")  # on both engines

PRICE = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 1.0}
DEAR = {"input_usd_per_mtok": 1000.0, "output_usd_per_mtok": 1000.0}


@pytest.fixture
async def other() -> AsyncIterator[Simulator]:
    """The server of a step."""
    server = Simulator()
    async with server.running():
        yield server


def text(template: str) -> dict[str, str]:
    return {"text": template}


def step(name: str, template: str, **model: Any) -> dict[str, Any]:
    return {"name": name, "user": text(template), "model": model}


def job_of(tmp_path: Path, simulator: Simulator, *steps: dict[str, Any], **model: Any) -> ChainJob:
    return ChainJob(tmp_path, simulator.base_url, list(steps), model=model)


def words(n: int) -> list[dict[str, Any]]:
    return [{"word": f"w{number}"} for number in range(n)]


def at(server: Simulator, **model: Any) -> dict[str, Any]:
    return {"base_url": server.base_url, "api_key": "sk-of-the-step", **model}


async def test_a_step_is_asked_at_its_own_server(
    tmp_path: Path, simulator: Simulator, other: Simulator
) -> None:
    job = job_of(
        tmp_path, simulator, step("draft", "Draft {word}"),
        step("judge", "Judge {draft}", **at(other, model="big")), step("end", "End {word}"),
    )  # fmt: skip
    assert (await job.run(words(30))).exit_code == 0
    assert (simulator.calls, other.calls) == (60, 30)
    assert {one.body["model"] for one in other.requests} == {"big"}
    assert {one.headers["Authorization"] for one in other.requests} == {"Bearer sk-of-the-step"}
    assert all(prompt.startswith("Judge ") for prompt in other.ledger)
    assert not any(prompt.startswith("Judge ") for prompt in simulator.ledger)


async def test_a_server_without_rows_takes_no_slots_from_others(
    tmp_path: Path, other: Simulator
) -> None:
    simulator = Simulator(latency="0.05")
    async with simulator.running():
        job = job_of(
            tmp_path, simulator, step("draft", "Draft {word}"),
            {**step("judge", "Judge {draft}", **at(other)), "when": "draft == 1"},
        )  # fmt: skip
        await job.run(words(60), slots=20)
    assert (simulator.max_in_flight > 12, other.calls) == (True, 0)  # half would be ten


async def test_steps_with_the_same_server_share_it(
    tmp_path: Path, simulator: Simulator, other: Simulator
) -> None:
    job = job_of(
        tmp_path, simulator, step("draft", "Draft {word}"),
        step("judge", "Judge {draft}", **at(other, model="big")),
        step("end", "End {judge}", **at(other)),
    )  # fmt: skip
    await job.run(words(3))
    assert (simulator.calls, other.calls) == (3, 6)
    assert [server.steps for server in configured_servers(job.config())] == [(), ("judge", "end")]


async def test_a_wrong_key_of_a_step_halts_and_names_its_place(
    tmp_path: Path, simulator: Simulator
) -> None:
    refuses = Simulator(api_key="sk-another")
    async with refuses.running():
        job = job_of(
            tmp_path, simulator, step("draft", "Draft {word}"),
            step("judge", "Judge {draft}", **at(refuses)),
        )  # fmt: skip
        result = await job.run(words(40), slots=2)
    assert result.exit_code == 4
    assert result.stats.halted is not None
    assert result.stats.halted.kind is HaltKind.REFUSED
    assert "steps[1].model.api_key" in result.stats.halted.why
    assert simulator.calls < 40  # not after all that comes before


async def test_each_model_has_its_own_price(tmp_path: Path, simulator: Simulator) -> None:
    job = job_of(
        tmp_path, simulator, step("draft", "Draft {word}"),
        step("judge", "Judge {draft}", model="big", price=DEAR),
        step("end", "End {word}", model="unknown"),
        price=PRICE,
    )  # fmt: skip
    await job.run(words(1))
    costs = job.query(
        "select model, cost_usd * 1e6 / (prompt_tokens + completion_tokens) from attempts"
    )
    assert [(model, cost and round(cost)) for model, cost in costs] == [
        ("simulated", 1), ("big", 1000), ("unknown", None)
    ]  # fmt: skip


async def test_a_budget_needs_the_price_of_each_step(tmp_path: Path, simulator: Simulator) -> None:
    job = job_of(
        tmp_path, simulator, step("draft", "Draft {word}"),
        step("end", "End {word}", model="unknown"), price=PRICE, max_tokens=20,
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"^steps\[1\]\.model\.price: the price of 'unknown'"):
        await job.run(words(1), max_cost_usd=1.0)


async def test_a_budget_holds_over_all_steps(tmp_path: Path, simulator: Simulator) -> None:
    job = job_of(
        tmp_path, simulator, step("draft", "Draft {word}"),
        step("judge", "Judge {word}", model="big", price=DEAR), price=PRICE, max_tokens=20,
    )  # fmt: skip
    result = await job.run(words(30), max_cost_usd=0.4)
    assert result.exit_code == 4
    assert result.stats.halted is not None
    assert result.stats.halted.kind is HaltKind.BUDGET
    assert 0 < result.counts.cost_usd <= 0.4


async def test_only_so_many_chains_are_worked_on(tmp_path: Path, simulator: Simulator) -> None:
    job = job_of(tmp_path, simulator, step("draft", "Draft {word}"), step("judge", "Judge {word}"))
    result = await job.run(words(30), until=7)
    assert (result.exit_code, simulator.calls, result.counts.ended) == (0, 14, 7)
    assert job.ends("judge").count(("done", None, None)) == 7


async def test_rows_of_steps_are_no_chains_that_are_done(
    tmp_path: Path, simulator: Simulator
) -> None:
    for number in range(1, 6):
        simulator.script(f"Judge w{number}", "400")
    job = job_of(tmp_path, simulator, step("draft", "Draft {word}"), step("judge", "Judge {word}"))
    result = await job.run(words(8), until=5)
    assert (result.exit_code, result.counts.done, result.counts.ended) == (3, 11, 3)


async def test_chains_are_begun_while_those_that_were_may_be_refused_for_themselves(
    tmp_path: Path, simulator: Simulator
) -> None:
    """Whose fault it is can only be told by others, and these would never be asked."""
    for number in range(5):
        simulator.script(f"Judge w{number} ", *["400"] * 9)
    job = job_of(tmp_path, simulator, step("draft", "Draft {word}"), step("judge", "Judge {word} "))
    result = await job.run(words(30), until=5)
    assert (result.exit_code, result.counts.ended) == (0, 5)
    refused = job.ends("judge").count(("failed", "rejected", None))
    assert 1 <= refused <= 5
    assert job.ends("judge").count(("done", None, None)) == 5


async def test_few_chains_are_begun_where_a_step_is_refused(
    tmp_path: Path, simulator: Simulator
) -> None:
    simulator.script("Judge", *["400"] * 99)
    job = job_of(tmp_path, simulator, step("draft", "Draft {word}"), step("judge", "Judge {word}"))
    result = await job.run(words(60), until=5)
    assert (result.exit_code, result.counts.ended) == (4, 0)
    assert simulator.calls_of("Judge") <= 20
    assert simulator.calls_of("Draft") <= 20 + 5


async def test_of_chains_that_wait_at_a_later_step_only_so_many_go_on(
    tmp_path: Path, simulator: Simulator
) -> None:
    job = job_of(
        tmp_path, simulator, step("draft", "Draft {word}"), step("judge", "Judge {word}"),
        step("end", "End {word}"),
    )  # fmt: skip
    async with open_store(job.database, create=True) as store:
        await job.enqueue(store, words(20))
        await job.work(store, experiments=(1,))
        result = await job.work(store, until=3)
    assert (result.exit_code, result.counts.ended) == (0, 3)
    calls = [simulator.calls_of(name) for name in ("Draft", "Judge", "End")]
    assert calls == [20, 3, 3]


async def test_rows_that_no_server_is_for_are_told_and_not_waited_for(
    tmp_path: Path, simulator: Simulator, other: Simulator
) -> None:
    job = job_of(
        tmp_path, simulator, step("draft", "Draft {word}", **at(other)),
        step("judge", "Judge {word}", **at(other)),
    )  # fmt: skip
    async with open_store(job.database, create=True) as store:
        await job.enqueue(store, words(3))
        job.steps[1]["name"] = "score"  # in the config alone
        await job.work(store, experiments=(1,))
        with pytest.raises(ConfigError, match=r"^demo/judge: no server answers its 3 open rows: "):
            await job.work(store)
    assert (simulator.calls, other.calls) == (0, 3)
