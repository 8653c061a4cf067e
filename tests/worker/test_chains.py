"""A worker on experiments with steps: what each row is asked, and what follows it."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from batchgen.items import Item
from batchgen.simulate import Simulator
from batchgen.simulate.behaviours import Behaviour
from batchgen.store import Chain, ClaimRequest, OtherRecipe, ServerWant, open_store
from batchgen.worker.chains import Chains
from tests.kits.chains import ChainJob

pytestmark = pytest.mark.usefixtures("server")  # on both engines

DONE = ("done", None)


def text(template: str) -> dict[str, str]:
    return {"text": template}


def says(*texts: str) -> list[Behaviour]:
    return [Behaviour.ok(one) for one in texts]


def job_of(tmp_path: Path, simulator: Simulator, *steps: dict[str, Any]) -> ChainJob:
    return ChainJob(tmp_path, simulator.base_url, list(steps))


def messages(simulator: Simulator, beginning: str) -> Sequence[Any]:
    """Those of the only request whose last message begins so."""
    (found,) = [
        one.body["messages"]
        for one in simulator.requests
        if one.body["messages"][-1]["content"].startswith(beginning)
    ]
    return found  # type: ignore[no-any-return]


DRAFT = {"name": "draft", "user": text("Draft {word}")}
JUDGE = {"name": "critique", "user": text("Judge {draft} of {word}"), "parser": "json"}


async def test_each_step_sees_the_item_and_the_values_of_those_before(
    tmp_path: Path, simulator: Simulator
) -> None:
    simulator.script("Draft tea", *says("Tea is wet."))
    simulator.script("Judge Tea", *says('{"score": 3, "faults": ["short"]}'))
    simulator.script("Mend Tea", *says("Tea is hot and wet."))
    revise = {
        "name": "revise", "when": "critique.score < 8",
        "user": text("Mend {draft} of {word}: {critique.faults}"),
    }  # fmt: skip
    job = job_of(tmp_path, simulator, DRAFT, JUDGE, revise)
    result = await job.run([{"word": "tea"}])
    assert result.exit_code == 0
    assert [*simulator.ledger] == [
        "Draft tea", "Judge Tea is wet. of tea", 'Mend Tea is wet. of tea: ["short"]'
    ]  # fmt: skip
    assert job.ends("revise") == [(*DONE, None)]


async def test_a_chain_ends_where_a_condition_does_not_hold(
    tmp_path: Path, simulator: Simulator
) -> None:
    simulator.script("Judge", *says('{"score": 9}'))
    revise = {"name": "revise", "when": "critique.score < 8", "user": text("Mend {draft}")}
    job = job_of(tmp_path, simulator, DRAFT, JUDGE, revise)
    assert (await job.run([{"word": "tea"}])).exit_code == 0
    assert (simulator.calls, job.ends("revise")) == (2, [])


async def test_a_field_that_the_value_lacks_fails_the_row_without_a_call(
    tmp_path: Path, simulator: Simulator
) -> None:
    (tmp_path / "mend.j2").write_text("Mend {{ draft }}:\n{{ critique.faults[0] }}")
    simulator.script("Judge", *says('{"score": 3}'))
    job = job_of(tmp_path, simulator, DRAFT, JUDGE, {"name": "revise", "user": "mend.j2"})
    assert (await job.run([{"word": "tea"}])).exit_code == 3
    assert (simulator.calls, job.ends("revise")) == (2, [("failed", "rejected", None)])
    (error,) = job.errors("revise")
    assert error.startswith("step revise: template user template:2: UndefinedError: ")


async def test_a_path_that_the_value_lacks_fails_the_row_too(
    tmp_path: Path, simulator: Simulator
) -> None:
    simulator.script("Judge", *says('{"score": 3}'))
    revise = {"name": "revise", "user": text("Mend {draft}: {critique.faults}")}
    job = job_of(tmp_path, simulator, DRAFT, JUDGE, revise)
    await job.run([{"word": "tea"}])
    (error,) = job.errors("revise")
    assert error.startswith("step revise: template user template needs {critique.faults}")


LIST = {"name": "questions", "user": text("Ask about {word}"), "parser": "json"}
ANSWER = {"name": "answer", "each": {"question": "questions"}, "user": text("Answer {question}")}


async def test_a_list_that_is_none_is_asked_for_again(tmp_path: Path, simulator: Simulator) -> None:
    simulator.script("Ask", *says('{"questions": []}', '["Why?", "How?"]'))
    job = job_of(tmp_path, simulator, LIST, ANSWER)
    await job.run([{"word": "tea"}], parse_attempts=2)
    assert [*simulator.ledger.items()] == [
        ("Ask about tea", 2), ("Answer Why?", 1), ("Answer How?", 1)
    ]  # fmt: skip


async def test_a_list_that_is_none_fails_its_row_as_one_that_cannot_be_parsed(
    tmp_path: Path, simulator: Simulator
) -> None:
    simulator.script("Ask", *says('{"questions": []}'))
    job = job_of(tmp_path, simulator, LIST, ANSWER)
    await job.run([{"word": "tea"}])
    assert job.ends("questions") == [("failed", "parse", None)]
    assert job.errors("questions") == [
        "step answer has a row for each of questions, which is an object, not a list"
    ]


async def test_a_gathering_step_sees_all_lists_in_order(
    tmp_path: Path, simulator: Simulator
) -> None:
    simulator.script("Ask", *says('["a", "b"]'))
    simulator.script("Answer a", *says("A"))
    simulator.script("Answer b", *says("B"))
    best = {"name": "best", "gather": "answers", "user": text("Best of {answers} to {question}")}
    job = job_of(tmp_path, simulator, LIST, ANSWER, best)
    assert (await job.run([{"word": "tea"}])).exit_code == 0
    assert 'Best of ["A", "B"] to ["a", "b"]' in simulator.ledger


async def test_a_conversation_goes_on_from_what_was_sent_and_answered(
    tmp_path: Path, simulator: Simulator
) -> None:
    simulator.script("Draft tea", *says("Tea is wet."))
    simulator.script("Is that all", *says("No."))
    first = {**DRAFT, "system": text("You know {word}.")}
    more = {"name": "more", "user": text("Is that all of {word}?"), "conversation": True}
    last = {"name": "last", "user": text("You said {more}"), "conversation": True}
    await job_of(tmp_path, simulator, first, more, last).run([{"word": "tea"}])
    assert messages(simulator, "You said No.") == [
        {"role": "system", "content": "You know tea."},
        {"role": "user", "content": "Draft tea"},
        {"role": "assistant", "content": "Tea is wet."},
        {"role": "user", "content": "Is that all of tea?"},
        {"role": "assistant", "content": "No."},
        {"role": "user", "content": "You said No."},
    ]


async def test_a_conversation_goes_on_from_an_items_own_messages(
    tmp_path: Path, simulator: Simulator
) -> None:
    given = [{"role": "system", "content": "Short."}, {"role": "user", "content": "Hello"}]
    simulator.script("Hello", *says("Hi"))
    more = {"name": "more", "user": text("{first}? Really {topic}?"), "conversation": True}
    job = job_of(tmp_path, simulator, {"name": "first"}, more)
    await job.run([{"messages": given, "topic": "tea", "params": {"temperature": 0.5}}])
    assert messages(simulator, "Hi? Really tea?") == [
        *given,
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": "Hi? Really tea?"},
    ]
    asked = {len(one.body["messages"]): one.body.get("temperature") for one in simulator.requests}
    assert asked == {2: 0.5, 4: None}  # an item's params are for the first step alone


async def test_a_parser_gets_the_values_with_the_item(tmp_path: Path, simulator: Simulator) -> None:
    (tmp_path / "own.py").write_text(
        "def parse(response, item):\n    return [item['word'], item['draft'], response]\n"
    )
    simulator.script("Draft", *says("Tea is wet."))
    simulator.script("Check", *says("Yes"))
    check = {"name": "check", "user": text("Check {draft}"), "parser": f"{tmp_path}/own.py:parse"}
    job = job_of(tmp_path, simulator, DRAFT, check)
    await job.run([{"word": "tea"}])
    assert job.ends("check") == [(*DONE, '["tea", "Tea is wet.", "Yes"]')]


FUNCTIONS = """
import asyncio, os

def length(item, values):
    return {"word": item["word"], "chars": len(values["draft"])}

async def later(item, values):
    await asyncio.sleep(0)
    return values["draft"].upper()

def plain(item):
    return item["word"]

def fails(item):
    raise LookupError("no such word")

def strange(item):
    return {1, 2}

def kills(item):
    os._exit(0)
"""


def function(tmp_path: Path, name: str) -> dict[str, str]:
    file = tmp_path / "own.py"
    file.write_text(FUNCTIONS)
    return {"name": name, "function": f"{file}:{name}"}


@pytest.mark.parametrize(
    ("name", "value"),
    [("length", '{"word":"tea","chars":11}'), ("later", '"TEA IS WET."'), ("plain", '"tea"')],
)
async def test_a_function_ends_its_rows_without_a_call(
    tmp_path: Path, simulator: Simulator, name: str, value: str
) -> None:
    simulator.script("Draft", *says("Tea is wet."))
    after = {"name": "after", "user": text(f"After {{{name}}}")}
    job = job_of(tmp_path, simulator, DRAFT, function(tmp_path, name), after)
    result = await job.run([{"word": "tea"}])
    assert (result.exit_code, result.stats.calls, simulator.calls) == (0, 2, 2)
    ((state, reason, parsed),) = job.ends(name)
    assert (state, reason, json.loads(parsed)) == (*DONE, json.loads(value))
    seen = json.loads(value)
    assert f"After {seen if isinstance(seen, str) else json.dumps(seen)}" in simulator.ledger


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("fails", "LookupError: no such word ("),
        ("strange", "the function returned a set JSON cannot hold: "),
    ],
)
async def test_what_a_function_raises_fails_its_row_for_good(
    tmp_path: Path, simulator: Simulator, name: str, error: str
) -> None:
    job = job_of(tmp_path, simulator, DRAFT, function(tmp_path, name))
    result = await job.run([{"word": "tea"}], parse_attempts=3)
    assert (result.exit_code, simulator.calls) == (3, 1)
    assert job.ends(name) == [("failed", "parse", None)]
    (said,) = job.errors(name)
    assert said.startswith(error)
    assert name == "strange" or said.endswith("own.py:15)")


async def test_many_rows_of_a_function_take_no_room_from_calls(tmp_path: Path) -> None:
    simulator = Simulator(latency="0.01")
    async with simulator.running():
        job = job_of(tmp_path, simulator, DRAFT, function(tmp_path, "plain"))
        await job.run([{"word": f"w{n}"} for n in range(60)], slots=3)
    assert (simulator.calls, simulator.max_in_flight) == (60, 3)
    assert [row[0] for row in job.ends("plain")] == ["done"] * 60


async def test_a_chain_may_begin_with_a_function(tmp_path: Path, simulator: Simulator) -> None:
    after = {"name": "after", "user": text("After {word}")}
    first = {**function(tmp_path, "plain"), "name": "first"}
    job = job_of(tmp_path, simulator, first, {**after, "user": text("After {first}")})
    await job.run([{"word": "tea"}])
    assert [*simulator.ledger] == ["After tea"]


async def test_rows_of_functions_count_as_items_that_a_worker_claims(
    tmp_path: Path, simulator: Simulator
) -> None:
    job = job_of(tmp_path, simulator, DRAFT, function(tmp_path, "plain"))
    await job.run([{"word": f"w{n}"} for n in range(9)], slots=2, max_items=5)
    assert len(job.query("select 1 from results")) == 5


async def test_steps_that_make_no_call_need_no_server(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "def first(item):\n    return item['word']\n\n\n"
        "def second(item, values):\n    return values['first'] * 2\n"
    )
    steps = [{"name": n, "function": f"{tmp_path}/own.py:{n}"} for n in ("first", "second")]
    job = ChainJob(tmp_path, "https://api.openai.com/v1", steps, model={"api_key": None})
    result = await job.run([{"word": "tea"}, {"word": "sand"}])
    assert (result.exit_code, result.stats.calls) == (0, 0)
    assert sorted(job.ends("second")) == [(*DONE, '"sandsand"'), (*DONE, '"teatea"')]


async def test_a_chain_is_read_again_only_for_a_row_claimed_by_other_rules(
    tmp_path: Path, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [{"name": name, "user": text("Say it.")} for name in ("draft", "mend")]
    job = job_of(tmp_path, simulator, *steps)
    async with open_store(job.database, create=True) as store, store.seat(4, 60, 3) as seat:
        await job.enqueue(store, [{"topic": "a"}, {"topic": "b"}, {"topic": "c"}])
        read, chains = store.chain_of, Chains(store)
        asked = list[int]()

        async def noted(experiment_id: int) -> Chain | None:
            asked.append(experiment_id)
            return await read(experiment_id)

        async def rows(items: Sequence[Item]) -> list[str | None]:
            """Told as to several slots at once: by when their next step is asked."""
            await asyncio.gather(*[chains.read(one) for one in items if not chains.is_known(one)])
            found = [chains.row(one, for_user_code=False) for one in items]
            return [row.chain.plan.steps[1].when for row in found if row is not None]

        monkeypatch.setattr(store, "chain_of", noted)
        old = (await seat.exchange([], ClaimRequest((ServerWant("", 2),), (2, 1)))).items
        assert await rows(old) == [None, None]
        assert await rows(old) == [None, None]
        assert asked == [1]
        job.steps[1]["when"] = "draft != 'x'"
        await job.enqueue(store, [{"topic": "a"}], mode=OtherRecipe.REPLACE)
        new = (await seat.exchange([], ClaimRequest((ServerWant("", 2),), (2, 1)))).items
        assert len(new) == 1
        assert await rows(new) == ["draft != 'x'"]
        assert await rows(new) == ["draft != 'x'"]
        assert asked == [1, 1]
