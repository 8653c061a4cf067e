"""Calls at a service tier: what they cost, what is said of them, and the budget."""

import json
from typing import Any

import pytest

from batchgen.config import ModelConfig, Price
from batchgen.items import Usage
from batchgen.llm.prices import Prices
from batchgen.simulate import Behaviour, Simulator
from tests.kits.project import Project

MODEL = "gpt-5-mini"
TOKENS = 1000  # of a prompt, and of an answer
TIERS: dict[str | None, float] = {None: 1.0, "flex": 0.5, "priority": 1.8}  # times the standard


def usd(tier: str | None, prompt_tokens: int = TOKENS) -> float:
    """What a call costs there."""
    price = Prices(ModelConfig()).of(MODEL)
    assert price == Price(0.25, 2.0, 0.025)
    return price.cost_usd(Usage(prompt_tokens, TOKENS)) * TIERS[tier]


def served(tier: str | None, prompt_tokens: int = TOKENS) -> Behaviour:
    """An answer that says at which tier it was served; None: it says none."""
    message = {"role": "assistant", "content": "Hello"}
    answer: dict[str, Any] = {
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": TOKENS},
    }
    return Behaviour.response(200, json.dumps(answer | ({"service_tier": tier} if tier else {})))


def costs(project: Project) -> dict[str, float | None]:
    """Of each item, by its word."""
    return {line["input"]["word"]: line["cost_usd"] for line in project.export()}


@pytest.mark.parametrize("stream", [False, True])
async def test_the_tier_that_an_answer_names_decides_what_its_call_costs(
    project: Project, simulator: Simulator, stream: bool
) -> None:
    project.config(model=MODEL, service_tier="flex", max_tokens=TOKENS, stream=stream)
    project.pool(
        [
            *({"word": word} for word in ("flex", "default", "nothing", "also default")),
            {"word": "hurry", "params": {"service_tier": "priority"}},
        ]
    )
    simulator.script("Say flex", served("flex"))
    simulator.script("Say default", served("default"))
    simulator.script("Say nothing", served(None))
    simulator.script("Say also default", served("default"))
    simulator.script("Say hurry", served("priority"))
    run = await project.batchgen("run", "pool.jsonl")
    assert run.code == 0, run.err
    assert costs(project) == {
        "flex": pytest.approx(usd("flex")),
        "default": pytest.approx(usd(None)),
        "nothing": pytest.approx(usd("flex")),
        "also default": pytest.approx(usd(None)),
        "hurry": pytest.approx(usd("priority")),
    }
    told = [line for line in run.err.splitlines() if "service_tier" in line]
    assert told == [
        "warning: calls of gpt-5-mini that asked for service_tier flex were served at the standard "
        "service_tier, and cost what that costs."
    ]


async def test_a_retry_at_another_tier_costs_what_that_costs(
    project: Project, simulator: Simulator
) -> None:
    project.config("work: {max_attempts: 1}\n", model=MODEL, max_tokens=TOKENS)
    project.pool([{"word": "a"}])
    simulator.script("Say a", "500", served(None))
    assert (await project.batchgen("run", "pool.jsonl")).code == 3
    retry = await project.batchgen("retry", "--set", "service_tier=flex")
    assert retry.code == 0, retry.err
    assert (await project.batchgen("work")).code == 0
    assert simulator.requests[-1].body["service_tier"] == "flex"
    assert (await project.batchgen("export")).code == 0
    assert costs(project) == {"a": pytest.approx(usd("flex"))}


async def test_a_step_at_a_tier_of_its_own(project: Project, simulator: Simulator) -> None:
    steps = """\
steps:
  - {name: draft, user: {text: "Draft {word}"}}
  - {name: final, user: {text: "Improve {draft}"}, model: {service_tier: flex}}
"""
    project.config(steps, model=MODEL, max_tokens=TOKENS)
    project.pool([{"word": "a"}])
    simulator.script("Draft", served("default"))
    simulator.script("Improve", served("flex"))
    dry = await project.batchgen("enqueue", "pool.jsonl", "--dry-run", "--json")
    draft, final = (one["cost_usd"] for one in dry.json["steps"])
    assert final < draft
    run = await project.batchgen("run", "pool.jsonl")
    assert run.code == 0, run.err
    (line,) = project.export()
    assert line["cost_usd"] == pytest.approx(usd(None) + usd("flex"))


async def test_a_tier_without_a_known_price_is_refused_with_a_budget_and_told_without(
    project: Project, simulator: Simulator
) -> None:
    project.config(model="gpt-4.1", service_tier="flex", max_tokens=TOKENS)
    project.pool([{"word": "a"}, {"word": "b"}])
    dry = await project.batchgen("enqueue", "pool.jsonl", "--dry-run")
    assert "no cost, as the price is not known; see model.price" in dry.out
    assert (await project.batchgen("enqueue", "pool.jsonl")).code == 0
    refused = await project.batchgen("work", "--max-cost", "5")
    assert (refused.code, simulator.calls) == (2, 0)
    assert "model.price: the price of 'gpt-4.1' with service_tier 'flex' at" in refused.err
    work = await project.batchgen("work")
    assert work.code == 0, work.err
    assert (
        work.err.count("calls of gpt-4.1 are served at service_tier flex, whose price is not known")
        == 1
    )
    assert (await project.batchgen("export")).code == 0
    assert costs(project) == {"a": None, "b": None}
    project.config(
        model="gpt-4.1", service_tier="flex", max_tokens=TOKENS,
        price={"input_usd_per_mtok": 1, "output_usd_per_mtok": 4},
    )  # fmt: skip
    project.pool([{"word": "c"}])
    simulator.script("Say c", served("flex"))
    run = await project.batchgen("run", "pool.jsonl", "--max-cost", "5")
    assert (run.code, "service_tier" in run.err) == (0, False), run.err
    assert costs(project)["c"] == pytest.approx(5 * TOKENS / 1e6)


async def test_an_answer_at_a_tier_without_a_known_price_counts_with_what_was_reserved(
    project: Project, simulator: Simulator
) -> None:
    project.config(model=MODEL, max_tokens=TOKENS)
    project.pool([{"word": "a"}])
    simulator.script("Say a", served("scale"))
    run = await project.batchgen("run", "pool.jsonl", "--max-cost", "1")
    assert run.code == 0, run.err
    assert "are served at service_tier scale, whose price is not known" in run.err
    (cost_usd,) = costs(project).values()
    assert cost_usd is not None
    assert cost_usd > TOKENS * 2 / 1e6  # that of the longest answer, and of its prompt


async def test_a_budget_holds_where_a_server_serves_at_a_dearer_tier_than_was_asked_for(
    project: Project, simulator: Simulator
) -> None:
    """As a project of OpenAI's may have it by its settings."""
    project.config(model=MODEL, max_tokens=TOKENS)
    project.pool({"word": f"w{number}"} for number in range(10))
    simulator.script("Say", *[served("priority", 9)] * 10)
    one = usd("priority", 9)
    budget = 3.8 * one  # for a fourth call at the price that was asked for
    run = await project.batchgen("run", "pool.jsonl", "-c", "1", "--max-cost", f"{budget:.6f}")
    assert run.code == 4, run.err
    assert simulator.calls == 3
    ((spent,),) = project.query("select sum(cost_usd) from totals")
    assert spent == pytest.approx(3 * one)
    assert "were served at service_tier priority" in run.err


# Provider batches


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"model": MODEL}, "In batches (work --batch), if the server takes them: $0.0020"),
        ({"model": "gpt-5.3-codex"}, None),
        (
            {"price": {"input_usd_per_mtok": 0, "output_usd_per_mtok": 3}},
            "In batches (work --batch), if the server takes them: $0.0030",
        ),
        (
            {
                "price": {
                    "input_usd_per_mtok": 0, "output_usd_per_mtok": 3,
                    "batch": {"input_usd_per_mtok": 0, "output_usd_per_mtok": 2.5},
                }
            },
            "In batches (work --batch), if the server takes them: $0.0050",
        ),
        ({"price": {"input_usd_per_mtok": 0, "output_usd_per_mtok": 0}}, None),
    ],
)  # fmt: skip
async def test_a_dry_run_says_what_the_same_costs_in_batches(
    project: Project, simulator: Simulator, model: dict[str, Any], said: str | None
) -> None:
    project.config(max_tokens=TOKENS, **model)
    project.pool([{"word": "a"}, {"word": "b"}])
    dry = await project.batchgen("enqueue", "pool.jsonl", "--dry-run")
    assert dry.code == 0, dry.err
    assert ("In batches" in dry.out) == (said is not None)
    assert (said or "") in dry.out
    found = (await project.batchgen("enqueue", "pool.jsonl", "--dry-run", "--json")).json
    assert found["cost_usd"] is not None
    assert (found["batch_cost_usd"] is None) == (model.get("model") == "gpt-5.3-codex")


async def test_a_dry_run_of_steps_says_what_each_costs_in_batches_by_what_its_calls_took(
    project: Project, simulator: Simulator
) -> None:
    steps = """\
steps:
  - {name: draft, user: {text: "Draft {word}"}}
  - {name: keep, function: "keep.py:keep"}
  - {name: final, user: {text: "Improve {keep}"}}
"""
    project.write("keep.py", "def keep(item, values):\n    return values['draft']\n")
    project.config(steps, model=MODEL, max_tokens=TOKENS)
    project.pool([{"word": "a"}])
    for word in ("Draft", "Improve"):
        simulator.script(word, served("default"))
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    project.pool([{"word": "b"}])
    dry = (await project.batchgen("enqueue", "pool.jsonl", "--dry-run", "--json")).json
    half = pytest.approx(usd(None) / 2)
    assert [one["batch_cost_usd"] for one in dry["steps"]] == [half, 0, half]
    assert dry["batch_cost_usd"] == pytest.approx(usd(None))
