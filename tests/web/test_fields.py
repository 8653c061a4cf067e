"""What the values look like, field by field; each value leads to the rows that have it."""

import html
import json
import re
from typing import Any

import pytest

from batchgen.simulate import Behaviour, Simulator
from batchgen.web.pages import fields
from tests.kits.page import Answer, Viewer, viewing
from tests.kits.project import Project

HOSTILE = 'it\'s "so" \\n </script><script>window.pwned = 1</script> \u202e {{7*7}} & 好'
KEY = 'a "key" </th> \u202e'


def said(n: int) -> dict[str, Any]:
    value: dict[str, Any] = {
        "label": "odd" if n % 2 else "even", "score": n, KEY: HOSTILE if n < 2 else "plain",
        "by": {"name": "Ann" if n % 3 else None},
    }  # fmt: skip
    return {**value, "note": "seen"} if n < 3 else value


@pytest.fixture
async def labelled(project: Project, simulator: Simulator) -> Project:
    """Items 0 to 29, as `said`; 7 fails."""
    for n in range(30):
        text = "no JSON" if n == 7 else json.dumps(said(n), ensure_ascii=False)
        simulator.script(f"Say w{n:03}", Behaviour.ok(text))
    project.config("parser: json\n")
    project.pool({"word": f"w{n:03}", "id": f"id-{n}"} for n in range(30))
    assert (await project.batchgen("run", "pool.jsonl")).code == 3
    return project


def facts(text: str) -> str:
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", text)))


def row_of(answer: Answer, name: str) -> str:
    rows: list[str] = re.findall(r"<tr>.*?</tr>", answer.text, re.DOTALL)
    (row,) = [one for one in rows if html.escape(name, quote=False) in one.partition("</th>")[0]]
    return row


def links(text: str) -> dict[str, str]:
    found = re.findall(r'<a href="([^"]*)"[^>]*>([^<]*)</a>', text)
    return {html.unescape(words): html.unescape(url) for url, words in found}


async def ids(viewer: Viewer, place: str) -> list[str]:
    answer = await viewer.get(place)
    assert answer.status == 200, facts(answer.text)
    return sorted(re.findall(r'<th scope="row"[^>]*><a [^>]*>([^<]*)</a>', answer.text))


async def test_each_field_has_its_values_which_lead_to_their_rows(labelled: Project) -> None:
    async with viewing(labelled) as viewer:
        answer = await viewer.get("/e/default/fields")
        assert answer.status == 200
        assert "All 29 done rows." in answer.text
        label = row_of(answer, "label")
        assert "text 0 % 2 3 · 4 · 4 characters" in facts(label)
        assert "51.7 % even" in facts(label)
        assert len(await ids(viewer, links(label)["odd"])) == 14
        score = facts(row_of(answer, "score"))
        assert "number 0 % 29 0 · 15 · 29 numbers" in score
        note = row_of(answer, "note")
        assert "89.7 %" in facts(note)
        assert await ids(viewer, links(note)["seen"]) == ["id-0", "id-1", "id-2"]
        assert len(await ids(viewer, links(note)["89.7 %"])) == 26
        assert len(await ids(viewer, links(row_of(answer, "by.name"))["34.5 %"])) == 10
        assert viewer.said == []


async def test_hostile_keys_and_values_are_text_and_are_found_again(labelled: Project) -> None:
    async with viewing(labelled) as viewer:
        answer = await viewer.get("/e/default/fields")
        assert "<script>window" not in answer.text
        assert "\u202e" not in answer.text
        (place,) = [url for words, url in links(answer.text).items() if "pwned" in words]
        assert await ids(viewer, place) == ["id-0", "id-1"]
        assert viewer.said == []


async def test_it_is_a_sample_of_so_many_that_a_seed_draws_again(labelled: Project) -> None:
    async with viewing(labelled) as viewer:
        answer = await viewer.get("/e/default/fields?n=10&seed=3")
        assert "A sample: 10 of 29 done rows" in answer.text
        scores = facts(row_of(answer, "score"))
        assert scores == facts(row_of(await viewer.get("/e/default/fields?n=10&seed=3"), "score"))
        others = [await viewer.get(f"/e/default/fields?n=10&seed={seed}") for seed in range(4, 7)]
        assert any(facts(row_of(one, "score")) != scores for one in others)
        other = links(answer.text)["Draw others"]
        assert other == "/e/default/fields?n=10&seed=4"


async def test_where_there_is_no_time_it_says_how_far_it_came(
    labelled: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fields, "BUDGET_S", -1)
    monkeypatch.setattr("batchgen.jobs.profile._READ_AT_ONCE", 4)
    async with viewing(labelled) as viewer:
        shown = facts((await viewer.get("/e/default/fields")).text)
        assert "A sample: 4 of 29 done rows" in shown
        assert "There was time for 4 of the 29 that were drawn." in shown


async def test_an_answer_itself_is_a_field(viewer: Viewer) -> None:
    answer = await viewer.get("/e/default/fields")
    assert "All 3 done rows." in answer.text
    own = row_of(answer, "parsed")
    assert "text" in facts(own)
    for place in links(own).values():
        assert await ids(viewer, place)


@pytest.mark.quick("n=1001", "step=none")
@pytest.mark.parametrize("query", ["n=0", "n=1001", "n=x", "seed=-1", "step=none"])
async def test_what_cannot_be_is_told(viewer: Viewer, query: str) -> None:
    assert (await viewer.get(f"/e/default/fields?{query}")).status == 404
    assert (await viewer.get("/e/none/fields")).status == 404


async def test_nothing_is_done(project: Project) -> None:
    project.pool([{"word": "w"}])
    await project.batchgen("enqueue", "pool.jsonl")
    async with viewing(project) as viewer:
        assert "No row is done yet. To answer" in (await viewer.get("/e/default/fields")).text


STEPS = """\
output_data: {experiment_name: demo}
steps:
  - {name: draft, user: {text: "Write about {topic}"}, parser: json}
  - {name: critique, user: {text: "Mend {topic}"}, parser: json}
"""


async def test_each_step_has_fields_of_its_own(project: Project, simulator: Simulator) -> None:
    project.config(STEPS)
    for n in range(4):
        simulator.script(f"Write about t{n}", Behaviour.ok(f'{{"draft": "d{n % 2}"}}'))
        simulator.script(f"Mend t{n}", Behaviour.ok('{"faults": ["a", "b"]}'))
    project.pool({"id": f"t{n}", "topic": f"t{n}"} for n in range(4))
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    async with viewing(project) as viewer:
        last = await viewer.get("/e/demo/fields")
        faults = row_of(last, "faults")
        assert "2 · 2 · 2 elements" in facts(faults)
        assert len(await ids(viewer, links(faults)['["a", "b"]'])) == 4
        first = await viewer.get("/e/demo/fields?step=draft")
        assert len(await ids(viewer, links(row_of(first, "draft"))["d1"])) == 2
        assert (await viewer.get("/e/demo%2Fdraft/fields")).status == 200
        assert viewer.said == []


async def test_it_speaks_chinese(viewer: Viewer) -> None:
    answer = await viewer.get("/e/default/fields", {"Accept-Language": "zh-CN"})
    assert "最常见的值" in answer.text
