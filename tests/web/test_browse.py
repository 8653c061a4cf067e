"""Rows page by page: filtered, searched, and by conditions as the export has them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from batchgen.errors import UsageError
from batchgen.items import State
from batchgen.jobs import browse as browsing
from batchgen.jobs.browse import Shown, Wanted, browse, neighbour
from batchgen.simulate import Behaviour, Simulator
from batchgen.store import Order, ReadStore, ReviewChange, Verdict, open_store, read_store
from tests.kits.chain_exports import PARTS, exported, says, topics
from tests.kits.project import Project

STEPS = """\
output_data: {experiment_name: demo, need_time_stamp: false}
steps:
  - {name: draft, user: {text: "Draft {topic}"}}
  - {name: critique, user: {text: "Judge {draft}"}, parser: json}
  - {name: revise, when: critique.score < 8, user: {text: "Mend {draft}"}}
result: [revise, draft]
"""


@pytest.fixture
async def labelled(project: Project, simulator: Simulator) -> Project:
    """Items 0 to 59: label "odd" or "even", score as the number; 13 and 31 fail."""
    for n in range(60):
        value = json.dumps({"label": "odd" if n % 2 else "even", "score": n})
        text = "no JSON, sorry" if n in (13, 31) else value
        simulator.script(f"Say w{n:03}", Behaviour.ok(text))
    project.config("parser: json\n")
    project.pool({"word": f"w{n:03}", "id": f"id-{n}"} for n in range(60))
    assert (await project.batchgen("run", "pool.jsonl", "-c", "1")).code == 3
    return project


@pytest.fixture
async def chains(project: Project, simulator: Simulator) -> Project:
    """Tea is revised, rum is good, and the critique of mud fails."""
    for asked, said in {"Draft tea": "Tea.", "Judge Tea": '{"score": 3}', "Mend Tea": "Hot tea.",
                        "Draft rum": "Rum.", "Judge Rum": '{"score": 9}', "Draft mud": "Mud.",
                        "Judge Mud": "No."}.items():  # fmt: skip
        simulator.script(asked, Behaviour.ok(said))
    project.config(STEPS)
    project.pool({"topic": topic, "id": topic} for topic in ("tea", "rum", "mud"))
    assert (await project.batchgen("run", "pool.jsonl", "-c", "1")).code == 3
    return project


@contextmanager
def reading(project: Project) -> Iterator[ReadStore]:
    with read_store(project.database) as store:
        yield store


async def shown(
    project: Project, *, after: str | None = None, before: str | None = None,
    experiment: str = "default", **wanted: Any,
) -> Shown:  # fmt: skip
    with reading(project) as store:
        return await browse(store, Wanted(experiment, **wanted), after=after, before=before)


def names(found: Shown) -> list[str | None]:
    return [row.custom_id for row in found.rows]


def ids(*numbers: int) -> list[str]:
    return [f"id-{n}" for n in numbers]


async def test_the_newest_stand_first_and_pages_follow_to_and_fro(labelled: Project) -> None:
    first = await shown(labelled)
    assert names(first) == ids(*range(59, 9, -1))
    assert (first.previous, first.of, first.is_cut) == (None, 60, False)
    second = await shown(labelled, after=first.next)
    assert names(second) == ids(*range(9, -1, -1))
    assert second.next is None
    back = await shown(labelled, before=second.previous)
    assert names(back) == names(first)
    assert back.previous is None


FOUND: list[tuple[dict[str, Any], list[int]]] = [
    ({"state": State.FAILED}, [31, 13]),
    ({"state": State.FAILED, "order": Order.POOL}, [13, 31]),
    ({"reason": "parse"}, [31, 13]),
    ({"reason": "server"}, []),
    ({"state": State.PENDING}, []),
    ({"where": "parsed.score >= 58"}, [59, 58]),
    ({"where": "parsed.score >= 58", "order": Order.POOL}, [58, 59]),
    ({"where": 'parsed.label == "odd" and parsed.score < 4'}, [3, 1]),
    ({"where": "parsed == null"}, [31, 13]),
    ({"where": "parsed == null", "state": State.DONE}, []),
    ({"text": "SORRY"}, [31, 13]),
    ({"text": "w047"}, [47]),
    ({"text": "id-5", "where": "parsed.score > 56"}, [59, 58, 57]),
]


@pytest.mark.on_both_engines
async def test_rows_are_found_by_what_they_are(labelled: Project) -> None:
    found = [names(await shown(labelled, **wanted)) for wanted, _ in FOUND]
    assert found == [ids(*expected) for _, expected in FOUND]


async def test_a_condition_chooses_the_rows_that_the_export_has(labelled: Project) -> None:
    where = 'parsed.label == "even" and parsed.score > 40 and parsed.score < 50'
    assert (await labelled.batchgen("export", "--where", where, "-o", "out.jsonl")).code == 0
    exported = (labelled.path / "out.jsonl").read_text().splitlines()
    found = await shown(labelled, where=where, state=State.DONE, order=Order.POOL)
    assert names(found) == [json.loads(line)["id"] for line in exported]


async def test_a_search_ends_with_its_time_and_says_how_far_it_looked(
    labelled: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browsing, "_FIRST", 30)
    with reading(labelled) as store:
        wanted = Wanted("default", where="parsed.score == 1")
        found = await browse(store, wanted, limit=1, budget_s=0)
        assert (found.rows, found.is_cut, found.looked_at, found.of) == ((), True, 30, 60)
        looked_at, hits = found.looked_at, list[str | None]()
        while found.is_cut:
            found = await browse(store, wanted, after=found.next, limit=1, budget_s=0)
            looked_at += found.looked_at
            hits += names(found)
        assert (hits, looked_at) == (ids(1), 60)


async def test_what_no_row_has_is_told(labelled: Project) -> None:
    assert (await shown(labelled, where="parsed.lable == 1")).absent == ("parsed.lable",)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"where": "parsed."}, "where: column"),
    ({"where": "parsed.score > 1", "state": State.PENDING}, "about what came of a row"),
    ({"experiment": "none"}, "no experiment 'none'"),
    ({"step": "none"}, "has no step 'none'"),
    ({"text": "x" * 1001}, "1,000 characters"),
    ({"text": "\ud800"}, "characters"),
]


async def test_what_cannot_be_is_told(labelled: Project) -> None:
    for wanted, said in REFUSED:
        with pytest.raises(UsageError, match=said):
            await shown(labelled, **wanted)


async def test_neighbours_stay_within_what_is_wanted(labelled: Project) -> None:
    wanted = Wanted("default", where="parsed.score > 57 or parsed.score < 2")
    with reading(labelled) as store:
        page = await browse(store, wanted)
        assert names(page) == ids(59, 58, 1, 0)
        after = await neighbour(store, wanted, page.places[1], back=False)
        before = await neighbour(store, wanted, page.places[1], back=True)
        assert (after.row, before.row) == (page.rows[2].id, page.rows[0].id)
        end = await neighbour(store, wanted, page.places[3], back=False)
        assert (end.row, end.place) == (None, None)


# Steps


def step_names(found: Shown) -> list[tuple[str, str | None]]:
    return [(found.steps[row.experiment_id], row.answer) for row in found.rows]


async def test_rows_of_all_steps_or_of_one(chains: Project) -> None:
    pool = await shown(chains, experiment="demo", order=Order.POOL)
    assert [name for name, _ in step_names(pool)].count("draft") == 3
    assert len(pool.rows) == 7
    critiques = await shown(chains, experiment="demo", step="critique", order=Order.POOL)
    assert sorted(step_names(critiques)) == [
        ("critique", "No."), ("critique", '{"score": 3}'), ("critique", '{"score": 9}')
    ]  # fmt: skip
    assert critiques.of == 3
    same = await shown(chains, experiment="demo/critique", order=Order.POOL)
    assert step_names(same) == step_names(critiques)
    failed = await shown(chains, experiment="demo", state=State.FAILED)
    assert step_names(failed) == [("critique", "No.")]


@pytest.mark.on_both_engines
async def test_a_condition_on_chains_sees_what_their_lines_have(chains: Project) -> None:
    found = await shown(chains, experiment="demo", where="critique.score < 8")
    assert step_names(found) == [("revise", "Hot tea.")]
    found = await shown(chains, experiment="demo", where="critique.score > 8")
    assert step_names(found) == [("draft", "Rum.")]
    all_of_them = await shown(chains, experiment="demo", where="id != null")
    assert len(all_of_them.rows) == 3
    done = await shown(chains, experiment="demo", where="id != null", state=State.DONE)
    assert len(done.rows) == 2


async def test_a_condition_on_a_step_sees_its_rows(chains: Project) -> None:
    found = await shown(chains, experiment="demo", step="critique", where="parsed.score < 8")
    assert step_names(found) == [("critique", '{"score": 3}')]


# Steps with several rows an item

GOOD = "judge.score > 1"


@pytest.fixture
async def questions(project: Project, simulator: Simulator) -> Project:
    """Of each of 20 topics three questions, whose answers are judged with 1, 2 and 3. Between them
    stand rows of another experiment."""
    for n in range(20):
        asked = [f"t{n:02}{letter}" for letter in "abc"]
        says(simulator, **{f"Ask_t{n:02}": json.dumps(asked)})
        for score, one in enumerate(asked, 1):
            scored = json.dumps({"score": score})
            says(simulator, **{f"Answer_{one}": f"{one} said", f"Judge_{one}_said": scored})
    project.pool({"word": f"w{n}"} for n in range(5))
    assert (await project.batchgen("enqueue", "pool.jsonl", "--experiment", "other")).code == 0
    project.config(PARTS)
    project.pool(topics(*(f"t{n:02}" for n in range(20))))
    assert (await project.batchgen("enqueue", "pool.jsonl")).code == 0
    assert (await project.batchgen("work", "--experiment", "demo", "-c", "8")).code == 0
    return project


async def one_by_one(project: Project, wanted: Wanted, *, back: bool, **how: Any) -> list[int]:
    """All rows, from the beginning or from the end on, and on wherever there was no time."""
    found, place = list[int](), None
    with reading(project) as store:
        while True:
            one = await neighbour(store, wanted, place, back=back, **how)
            if one.place is None:
                return found
            place = one.place
            found += [] if one.row is None else [one.row]


async def test_each_line_of_an_item_is_a_row_to_and_fro(questions: Project) -> None:
    wanted = Wanted("demo", where=GOOD, state=State.DONE)
    forth = await one_by_one(questions, wanted, back=False)
    assert len(forth) == len(set(forth)) == 40
    assert await one_by_one(questions, wanted, back=True) == forth[::-1]
    told = {line["response"] for line in await exported(questions, "--where", GOOD)}
    with reading(questions) as store:
        assert {row.answer for row in await store.pages.rows(forth)} == told


async def test_a_search_through_chains_without_time_comes_through_too(questions: Project) -> None:
    for step, where, n in ((None, GOOD, 40), ("judge", "parsed.score == 3", 20)):
        wanted = Wanted("demo", step, State.DONE, where=where)
        forth = await one_by_one(questions, wanted, back=False, budget_s=0)
        assert len(set(forth)) == n
        assert await one_by_one(questions, wanted, back=True, budget_s=0) == forth[::-1]


async def test_pages_of_chains_have_so_many_rows_and_an_end(questions: Project) -> None:
    wanted = Wanted("demo", where=GOOD)
    with reading(questions) as store:
        first = await browse(store, wanted, limit=25, budget_s=60)
        assert (len(first.rows), first.previous, first.is_cut) == (25, None, False)
        second = await browse(store, wanted, after=first.next, limit=25, budget_s=60)
        assert (len(second.rows), second.next, second.looked_at) == (15, None, 7)
        back = await browse(store, wanted, before=second.previous, limit=25, budget_s=60)
        assert (names_of(back), back.previous) == (names_of(first), None)
        just = await browse(store, wanted, limit=40, budget_s=60)
        assert (len(just.rows), just.next) == (40, None)


def names_of(found: Shown) -> list[int]:
    return [row.id for row in found.rows]


async def test_a_row_that_is_in_it_no_more_keeps_its_place(questions: Project) -> None:
    wanted = Wanted("demo", "answer", State.DONE, where="review == null")
    forth = await one_by_one(questions, wanted, back=False)
    with reading(questions) as store:
        page = await browse(store, wanted, budget_s=60)
        place, row = page.places[7], page.rows[7]
    async with open_store(questions.database) as store:
        assert row.result_seq is not None
        await store.reviews.put(row.id, row.result_seq, ReviewChange(Verdict.REJECTED))
    with reading(questions) as store:
        after = await neighbour(store, wanted, place, back=False, budget_s=60)
        before = await neighbour(store, wanted, place, back=True, budget_s=60)
    assert [before.row, after.row] == [forth[6], forth[8]]


async def test_a_reason_chooses_among_lines_of_chains_too(chains: Project) -> None:
    for reason, n in (("parse", 1), ("server", 0)):
        found = await shown(chains, experiment="demo", where="id != null", reason=reason)
        assert len(found.rows) == n


@pytest.mark.parametrize("place", ["7", "7.x", "x.7", "7.8.9", "-1.2"])
async def test_what_is_no_place_among_chains_is_told(chains: Project, place: str) -> None:
    with pytest.raises(UsageError, match="no place in this list"):
        await shown(chains, experiment="demo", where="id != null", after=place)
