"""The results of one experiment as the pool of another."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from batchgen.simulate import Behaviour, Simulator
from tests.kits.project import Project

Words = Callable[[int], Iterator[dict[str, Any]]]


@pytest.fixture
async def answered(project: Project, simulator: Simulator) -> Project:
    """Two labelled items, and one whose answer could not be parsed, in experiment "first"."""
    simulator.script("Say tea", Behaviour.ok('{"label": "good", "n": 1}'))
    simulator.script("Say mud", Behaviour.ok('{"label": "bad", "n": 2}'))
    simulator.script("Say nothing", Behaviour.ok("no JSON"))
    project.config("parser: json\noutput_data: {experiment_name: first}\n")
    project.pool(
        [
            {"id": "t", "word": "tea", "metadata": {"source": "web"}},
            {"word": "mud"},
            {"word": "nothing"},
        ]
    )
    assert (await project.batchgen("run", "pool.jsonl")).code == 3
    project.config("output_data: {experiment_name: second}\n")
    project.write("prompts/user_prompts/default.txt", "Judge {parsed.label}: {input.word}")
    return project


async def test_each_done_row_is_an_item(answered: Project, simulator: Simulator) -> None:
    done = await answered.batchgen("run", "results:first")
    assert done.code == 0, done.err
    assert "no template uses" not in done.err
    lines = answered.export("second")
    assert [(line["id"], line["input"]) for line in lines] == [
        ("t", {
            "id": "t", "parsed": {"label": "good", "n": 1},
            "response": '{"label": "good", "n": 1}',
            "input": {"id": "t", "word": "tea", "metadata": {"source": "web"}},
            "metadata": {"source": "web"},
        }),
        ("2", {
            "id": "2", "parsed": {"label": "bad", "n": 2},
            "response": '{"label": "bad", "n": 2}', "input": {"word": "mud"}, "metadata": None,
        }),
    ]  # fmt: skip
    assert [line["metadata"] for line in lines] == [{"source": "web"}, None]
    assert simulator.ledger["Judge good: tea"] == 1
    again = await answered.batchgen("enqueue", "results:first")
    assert again.err == "second: 2 items read, 0 new\n"


async def test_a_condition_chooses(answered: Project) -> None:
    where = ("--where", 'parsed.n > 1 or metadata.source == "tv"')
    done = await answered.batchgen("enqueue", "results:first", *where)
    assert done.err == "second: 1 item read, 1 new\n"
    dry = await answered.batchgen("enqueue", "results:first", *where, "--dry-run", "--json")
    assert dry.json["first_messages"] == [{"role": "user", "content": "Judge bad: mud"}]
    refused = await answered.batchgen("enqueue", "pool.jsonl", *where)
    assert (refused.code, refused.err) == (
        2, "error: pool.jsonl: only the items of results:EXPERIMENT can be chosen by a condition. "
        "To choose what is exported: batchgen export --where EXPR\n",
    )  # fmt: skip


async def test_every_sample_is_an_item_of_its_own(project: Project) -> None:
    project.pool([{"id": "a", "word": "x"}, {"word": "y"}])
    await project.batchgen("run", "pool.jsonl", "--samples", "3", "--experiment", "first")
    project.write("prompts/user_prompts/default.txt", "Judge {response}")
    done = await project.batchgen("enqueue", "results:first", "--experiment", "second")
    assert done.err == "second: 6 items read, 6 new\n"
    rows = project.query("select custom_id from items where experiment_id = 2 order by id")
    assert [name for (name,) in rows] == ["a", "a#2", "a#3", "4", "5", "6"]


async def test_every_variant_is_an_item_of_its_own(project: Project) -> None:
    project.pool([{"id": "a", "word": "x"}])
    project.config(temperature=0)
    await project.batchgen("run", "pool.jsonl", "--experiment", "first")
    project.config(temperature=1)
    added = ("--experiment", "first", "--recipe", "add", "--samples", "2")
    assert (await project.batchgen("run", "pool.jsonl", *added)).code == 0
    project.write("prompts/user_prompts/default.txt", "Judge {response}")
    done = await project.batchgen("enqueue", "results:first", "--experiment", "second")
    assert done.err == "second: 3 items read, 3 new\n"
    rows = project.query("select custom_id from items where experiment_id = 2 order by id")
    assert [name for (name,) in rows] == ["a", "a@2", "a@2#2"]


@pytest.mark.quick("results:second")
@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (
            "results:nothing",
            "{db}: no experiment 'nothing'; there is: first.",
        ),
        ("results:first/draft", "experiment 'first' has no step 'draft'."),
        (
            "results:second",
            "results:second: the results of an experiment cannot be items of the same experiment; "
            "choose another experiment for the new ones.",
        ),
    ],
)
async def test_results_that_are_not_there_are_refused(
    answered: Project, source: str, problem: str
) -> None:
    refused = await answered.batchgen("enqueue", source)
    assert (refused.code, refused.err) == (
        2, f"error: {problem.replace('{db}', str(answered.database))}\n",
    )  # fmt: skip


async def test_without_a_database_nothing_is_made(project: Project) -> None:
    refused = await project.batchgen("enqueue", "results:first")
    assert refused.code == 2
    assert sorted(path.name for path in project.path.iterdir()) == ["config.yaml", "prompts"]


@pytest.mark.on_both_engines
@pytest.mark.slow
async def test_many_results_are_read_in_pages(project: Project, words: Words) -> None:
    project.pool(words(1200))
    await project.batchgen("run", "pool.jsonl", "-c", "100", "--experiment", "first")
    project.write("prompts/user_prompts/default.txt", "Judge {response}")
    done = await project.batchgen("enqueue", "results:first", "--experiment", "second")
    assert done.err == "second: 1200 items read, 1200 new\n"
    rows = project.query("select input from items where experiment_id = 2 order by id")
    assert [json.loads(text)["input"]["word"] for (text,) in rows] == [f"w{n}" for n in range(1200)]


async def test_results_that_have_changed_since_are_told(answered: Project) -> None:
    answered.config("parser: p.py:f\noutput_data: {experiment_name: first}\n")
    answered.write("p.py", "def f(text):\n    return {'label': 'old'}\n")
    assert (await answered.batchgen("work")).code == 0
    answered.config("output_data: {experiment_name: second}\n")
    assert (await answered.batchgen("enqueue", "results:first")).code == 0
    answered.write("p.py", "def f(text):\n    return {'label': 'new'}\n")
    told = await answered.batchgen("enqueue", "results:first")
    assert told.err.splitlines() == [
        "warning: first: 3 items have the value of another parser than p.py:f; parsed again, "
        "without a call, by batchgen work or batchgen reparse --all",
        "second: 3 items read, 0 new",
    ]
    assert (await answered.batchgen("work", "--experiment", "first")).code == 0
    for dry in ([], ["--dry-run"]):
        refused = await answered.batchgen("enqueue", "results:first", *dry)
        assert (refused.code, refused.err) == (
            2,
            "error: results:first item 1: id 't' belongs to item 4 already, which was made of an "
            "earlier result; enqueue the present ones into another experiment. See: batchgen show "
            "4\n",
        )


async def test_chains_and_rows_of_a_step_are_items(project: Project) -> None:
    project.write("code.py", "def two(text):\n    return ['left', 'right']\n")
    project.config(
        "output_data: {experiment_name: first}\n"
        "steps:\n"
        "  - {name: halves, user: {text: 'Halve {word}'}, parser: 'code.py:two'}\n"
        "  - {name: answer, each: {half: halves}, user: {text: 'Say {half} of {word}'}}\n"
        "  - {name: polish, user: {text: 'Polish {half}'}}\n"
    )
    project.pool([{"id": "t", "word": "tea", "metadata": {"a": 1}}])
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    project.config("output_data: {experiment_name: second}\nprompts: {user_prompt: '{parsed}'}\n")
    where = ("--where", "half == 'right'")
    for source, condition, ids in (
        ("results:first", (), ["t[0]", "t[1]"]),
        ("results:first/answer", (), ["t[0]", "t[1]"]),
        ("results:first/answer", where, ["t[1]"]),
        ("results:first/halves", (), ["t"]),
    ):
        done = await project.batchgen("enqueue", source, *condition)
        assert done.code == 0, done.err
        rows = project.query(
            "select i.custom_id, i.input from items i join experiments e on e.id = i.experiment_id"
            " where e.name = 'second' order by i.id"
        )
        assert [custom_id for custom_id, _ in rows] == ids
        item = json.loads(rows[0][1])
        assert item["input"] == {"id": "t", "word": "tea", "metadata": {"a": 1}}
        assert item["metadata"] == {"a": 1}
        assert (await project.batchgen("experiments", "delete", "second", "--yes")).code == 0
    refused = await project.batchgen("enqueue", "results:first/halves", "--where", "half == 1")
    assert (refused.code, "half" in refused.err) == (2, True)
