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
from batchgen.store import Order, ReadStore, read_store
from tests.kits.project import Project

pytestmark = pytest.mark.on_both_engines

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
