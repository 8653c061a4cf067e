"""Reviewing on the page, as a browser without scripts does it."""

import json
import re
from collections.abc import AsyncIterator
from html import unescape
from typing import Any
from urllib.parse import quote

import pytest

from batchgen.simulate import Behaviour, Simulator
from tests.kits.chain_exports import PARTS, says, topics
from tests.kits.page import Answer, Viewer, viewing
from tests.kits.project import Project

REVIEW = "/e/default/review"
SAMPLE = f"{REVIEW}?n=5&seed=3"
BAD = quote('parsed.label == "bad"')
LABELS = ["good", "bad", "good", "odd", "bad"]


@pytest.fixture
async def labelled(project: Project, simulator: Simulator) -> Project:
    """Five done items, by parser json."""
    project.config("parser: json\n")
    for number, label in enumerate(LABELS, 1):
        simulator.script(f"Say w{number}", Behaviour.ok(json.dumps({"label": label})))
    project.pool({"id": f"r{number}", "word": f"w{number}"} for number in range(1, 6))
    await project.batchgen("enqueue", "pool.jsonl")
    assert (await project.batchgen("work", "-c", "1")).code == 0
    return project


@pytest.fixture
async def viewer(labelled: Project) -> AsyncIterator[Viewer]:
    async with viewing(labelled) as made:
        yield made
        assert made.said == []


async def follow(viewer: Viewer, place: str) -> tuple[str, Answer]:
    """Where it leads, and what is there."""
    answer = await viewer.get(place)
    while answer.status in (302, 303):
        place = answer.place
        answer = await viewer.get(place)
    assert answer.status == 200, answer.text
    return place, answer


def hidden(answer: Answer, name: str, last: bool = False) -> str:
    """The value of a field: of the first form that has it, or the last."""
    found = re.findall(rf'name="{name}" value="(\d*)"', answer.text)
    return str(found[-1 if last else 0])


def action(answer: Answer) -> str:
    [found] = re.findall(r'action="([^"]*)" id="review"', answer.text)
    return unescape(found)


def item_in(place: str) -> int:
    return int(re.findall(r"[?&]item=(\d+)", place)[0])


async def say(viewer: Viewer, shown: Answer, what: str, **fields: str) -> Answer:
    form = {"item": hidden(shown, "item", True), "result": hidden(shown, "result", True)}
    return await viewer.post(action(shown), {**form, "say": what, **fields})


async def reviews(project: Project) -> dict[str, tuple[Any, ...]]:
    found = json.loads((await project.batchgen("review", "--json")).out)["reviews"]
    return {one["id"]: (one["verdict"], one["note"], one["edited"]) for one in found}


async def test_a_sample_is_reviewed_row_by_row(viewer: Viewer, labelled: Project) -> None:
    place, shown = await follow(viewer, SAMPLE)
    assert "&upto=5&" in place
    seen = []
    for number in range(1, 6):
        assert f"{number} of 5" in shown.text
        seen.append(item_in(place))
        told = await say(viewer, shown, "rejected" if number == 2 else "accepted")
        assert (told.status, f"last={seen[-1]}" in told.place) == (303, True)
        place, shown = await follow(viewer, told.place)
    assert sorted(seen) == [1, 2, 3, 4, 5]
    assert "That was the last one." in shown.text
    assert "1 of 5 rejected: 3.6 to 62.4 % (95 %)" in shown.text
    assert await reviews(labelled) == {
        f"r{item}": ("rejected" if item == seen[1] else "accepted", None, None) for item in seen
    }
    again, _ = await follow(viewer, SAMPLE)  # the same rows in the same order
    assert item_in(again) == seen[0]


@pytest.mark.slow
@pytest.mark.on_both_engines
async def test_one_goes_on_where_nothing_is_decided_yet(viewer: Viewer) -> None:
    place, shown = await follow(viewer, SAMPLE)
    second, _ = await follow(viewer, (await say(viewer, shown, "accepted")).place)
    begun_anew, _ = await follow(viewer, SAMPLE)
    assert item_in(begun_anew) == item_in(second) != item_in(place)


async def test_the_last_verdict_is_taken_back(viewer: Viewer, labelled: Project) -> None:
    place, shown = await follow(viewer, SAMPLE)
    first = item_in(place)
    _, after = await follow(viewer, (await say(viewer, shown, "rejected")).place)
    assert f"r{first}: rejected." in after.text
    form = {"item": hidden(after, "item"), "result": hidden(after, "result"), "say": "undo"}
    assert form["item"] == str(first)
    told = await viewer.post(action(after), form)
    assert item_in(told.place) == first
    assert await reviews(labelled) == {}


async def test_a_note_and_an_edit_are_kept_with_the_verdict(
    viewer: Viewer, labelled: Project
) -> None:
    place, shown = await follow(viewer, f"{REVIEW}?where={BAD}")
    assert item_in(place) == 2
    saved = await say(viewer, shown, "", note=" so\r\nso ")
    assert item_in(saved.place) == 2
    _, shown = await follow(viewer, saved.place)
    assert "\n so\nso </textarea>" in shown.text
    told = await say(viewer, shown, "accepted", note="fine", edited='{"label": "good"}\r\n')
    place, shown = await follow(viewer, told.place)
    assert item_in(place) == 5  # the filter stays
    assert (await reviews(labelled))["r2"] == ("accepted", "fine", {"label": "good"})
    _, shown = await follow(viewer, f"{place.partition('item=')[0]}item=2")
    assert "As the model said it" in shown.text
    await say(viewer, shown, "accepted", note="fine", edited='{\r\n  "label": "bad"\r\n}')
    assert (await reviews(labelled))["r2"] == ("accepted", "fine", None)


async def test_what_was_typed_stays_when_it_is_refused(viewer: Viewer, labelled: Project) -> None:
    _, shown = await follow(viewer, SAMPLE)
    refused = await say(viewer, shown, "accepted", note="my note", edited='{"label": <b>')
    assert refused.status == 400
    assert "edit: is not JSON" in refused.text
    assert ">my note<" in refused.text.replace(">\nmy", ">my")
    assert "{&#34;label&#34;: &lt;b&gt;" in refused.text
    assert await reviews(labelled) == {}


async def test_an_answer_that_was_replaced_meanwhile_is_looked_at_again(
    viewer: Viewer, labelled: Project, simulator: Simulator
) -> None:
    place, shown = await follow(viewer, SAMPLE)
    item = item_in(place)
    simulator.script(f"Say w{item}", Behaviour.ok('{"label": "new"}'))
    await labelled.batchgen("retry", "--id", f"r{item}", "--done")
    await labelled.batchgen("work")
    refused = await say(viewer, shown, "accepted")
    assert refused.status == 400
    assert f"item {item} has another answer by now" in refused.text
    assert "new" in refused.text
    assert await reviews(labelled) == {}


@pytest.mark.on_both_engines
async def test_it_is_said_how_many_rows_there_are(
    viewer: Viewer, labelled: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    for item in ("r1", "r3"):
        await labelled.batchgen("review", item, "--reject")
    for query, items in ((f"where={BAD}", (2, 5)), ("state=rejected", (1, 3))):
        place, shown = await follow(viewer, f"{REVIEW}?{query}")
        for number, row in enumerate(items, 1):
            assert (item_in(place), f"{number} of 2" in shown.text) == (row, True)
            place, shown = await follow(viewer, f"{REVIEW}?{query}&after={row}")
        assert "2 rows" in shown.text
    _, shown = await follow(viewer, f"{REVIEW}?where={BAD}&item=1")  # it is none of them
    assert "2 rows" in shown.text
    monkeypatch.setattr("batchgen.jobs.review_queue.COUNTING_S", -1)
    for name in ("PAGE_ROWS", "_FIRST"):
        monkeypatch.setattr(f"batchgen.jobs.browse.{name}", 2)
    _, shown = await follow(viewer, f"{REVIEW}?where={BAD}&item=5")
    assert "more than 1 row " in " ".join(shown.text.split())


async def test_of_a_long_condition_the_beginning_is_shown(viewer: Viewer) -> None:
    long = " and ".join([f'parsed.label != "{n:04}"' for n in range(99)])
    _, shown = await follow(viewer, f"{REVIEW}?where={quote(long)}")
    echoed = re.findall(r"<code[^>]*>([^<]*0000[^<]*)</code>", shown.text)
    assert [len(unescape(one)) < 200 for one in echoed] == [True]


@pytest.mark.slow
@pytest.mark.on_both_engines
async def test_rows_that_were_reviewed_are_looked_at_again(
    viewer: Viewer, labelled: Project
) -> None:
    for item, verdict in (("r1", "--reject"), ("r3", "--reject"), ("r4", "--accept")):
        await labelled.batchgen("review", item, verdict)
    start = (await viewer.get(REVIEW)).text
    assert "1 accepted, 2 rejected, 0 edited" in start
    place, shown = await follow(viewer, f"{REVIEW}?state=rejected")
    assert item_in(place) == 1
    assert '<span class="tag rejected">rejected</span>' in shown.text
    place, shown = await follow(viewer, (await say(viewer, shown, "accepted")).place)
    assert item_in(place) == 3
    _, shown = await follow(viewer, (await say(viewer, shown, "rejected")).place)
    assert "That was the last one." in shown.text
    place, _ = await follow(viewer, f"{REVIEW}?state=rejected&before=9")
    assert item_in(place) == 3


@pytest.mark.quick("n=5&seed=1&after=x")
@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("n=0", "n: not from 1 to 2,000."),
        ("n=5&seed=-1", "is no number"),
        ("state=liked", "state: &#39;liked&#39; is not one of accepted, rejected, earlier."),
        ("where=parsed%20is%20null", "not known"),
        ("n=5&seed=1&item=99", "there is no item 99"),
        ("n=5&seed=1&after=x", "is no row"),
    ],
)
async def test_what_is_no_queue_is_told(viewer: Viewer, query: str, words: str) -> None:
    answer = await viewer.get(f"{REVIEW}?{query}")
    assert answer.status == 404
    assert words in answer.text


async def test_a_verdict_leads_to_the_next_row_at_once(labelled: Project) -> None:
    """By one redirect: each is a wait between two keys."""
    async with viewing(labelled) as viewer:
        _, shown = await follow(viewer, SAMPLE)
        told = await say(viewer, shown, "rejected")
        assert re.search(r"[?&]item=\d+", told.place)
        assert (await viewer.get(told.place)).status == 200


async def test_nothing_can_be_said_where_only_reading_is_allowed(labelled: Project) -> None:
    async with viewing(labelled, read_only=True) as viewer:
        _, shown = await follow(viewer, SAMPLE)
        assert '<button type="submit"' not in shown.text
        told = await viewer.post(SAMPLE, {"item": "1", "result": "1", "say": "accepted"})
        assert told.status == 403
    assert await reviews(labelled) == {}


async def test_hostile_answers_are_text_in_fields_too(
    project: Project, simulator: Simulator
) -> None:
    hostile = '</textarea><script>alert(1)</script>\u202e"'
    simulator.script("Say", Behaviour.ok(hostile))
    project.pool([{"id": hostile, "word": hostile}])
    await project.batchgen("run", "pool.jsonl")
    async with viewing(project) as viewer:
        _, shown = await follow(viewer, SAMPLE)
        assert "<script>" not in shown.text
        told = await say(viewer, shown, "accepted", note=hostile, edited=hostile)
        _, shown = await follow(viewer, told.place)
        assert "<script>" not in shown.text
    assert list((await reviews(project)).values()) == [("accepted", hostile, None)]


async def test_of_steps_the_rows_of_one_are_reviewed(
    project: Project, simulator: Simulator
) -> None:
    says(simulator, Draft_tea="Tea.", Mend_Tea="Hot tea.")
    project.config(
        "output_data: {experiment_name: demo, need_time_stamp: false}\n"
        'steps: [{name: draft, user: {text: "Draft {topic}"}},'
        ' {name: revise, user: {text: "Mend {draft}"}}]\n'
    )
    project.pool(topics("tea"))
    await project.batchgen("run", "pool.jsonl")
    async with viewing(project) as viewer:
        _, shown = await follow(viewer, "/e/demo/review?n=5&seed=1")
        assert "Hot tea." in shown.text
        assert "Mend Tea." in shown.text
        await say(viewer, shown, "accepted")
        start = await viewer.get("/e/demo%2Fdraft/review")
        assert 'href="/e/demo%2Fdraft/review" aria-current="page"' in start.text
        _, shown = await follow(viewer, "/e/demo%2Fdraft/review?n=5&seed=1")
        assert "Draft tea" in shown.text
        assert "batchgen review 1 --experiment demo --accept" in unescape(shown.text)
        assert viewer.said == []
    out = await project.batchgen("export", "-o", "-", "--reviewed", "accepted")
    assert json.loads(out.out)["parsed"] == "Hot tea."


@pytest.mark.slow
@pytest.mark.on_both_engines
async def test_conditions_know_what_was_said(viewer: Viewer, labelled: Project) -> None:
    for item in ("r1", "r3"):
        await labelled.batchgen("review", item, "--accept")
    query = f"{REVIEW}?where={quote('review == null')}"
    place, shown = await follow(viewer, query)
    assert item_in(place) == 2
    place, shown = await follow(viewer, (await say(viewer, shown, "rejected")).place)
    assert item_in(place) == 4
    place, _ = await follow(viewer, f"{query}&before=4")  # what was decided is in it no more
    assert "That was the first one." in (await viewer.get(place)).text
    nowhere = quote('review == "rejected" and id == "r3"')
    _, shown = await follow(viewer, f"{REVIEW}?where={nowhere}")
    assert "There is none." in shown.text
    rejected = quote('review == "rejected"')
    listed = await viewer.get(f"/e/default/items?where={rejected}")
    assert re.findall(r'<a href="/items/(\d+)', listed.text)[:1] == ["2"]


@pytest.mark.on_both_engines
async def test_a_condition_on_steps_leads_through_all_rows(
    project: Project, simulator: Simulator
) -> None:
    for topic in ("tea", "rum"):
        questions = [f"{topic}{n}" for n in range(3)]
        says(simulator, **{f"Ask_{topic}": json.dumps(questions)})
        says(simulator, **{f"Answer_{one}": f"{one} said" for one in questions})
    simulator.script("Judge", *[Behaviour.ok('{"score": 1}')] * 6)
    project.config(PARTS)
    project.pool(topics("tea", "rum"))
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    query = f"/e/demo/review?where={quote('review == null')}"
    async with viewing(project) as viewer:
        place, shown = await follow(viewer, query)
        seen = [item_in(place)]
        for verdict in ("rejected", "accepted", "rejected", "rejected", "accepted"):
            place, shown = await follow(viewer, (await say(viewer, shown, verdict)).place)
            seen.append(item_in(place))
        assert len(set(seen)) == 6
        for item in reversed(seen[:-1]):  # what was decided is in it no more
            await project.batchgen("review", str(item), "--undo")
        for item in reversed(seen[:-1]):
            place, shown = await follow(viewer, unescape(previous(shown)))
            assert item_in(place) == item
        place, shown = await follow(viewer, f"{query}&after={seen[-1]}")
        assert "That was the last one." in shown.text
        assert viewer.said == []


def previous(answer: Answer) -> str:
    [found] = re.findall(r'<a href="([^"]*)" rel="prev"', answer.text)
    return str(found)


@pytest.mark.on_both_engines
async def test_of_a_step_is_seen_what_the_item_was_given_and_what_other_steps_said(
    project: Project, simulator: Simulator
) -> None:
    for _ in range(2):  # samples
        says(simulator, Ask_tea='["Why?", "How?"]', Judge_Hot='{"score": 4}')
        says(simulator, **{"Answer_Why?": "Hot.", "Answer_How?": "Cold.", "Judge_Cold": "0"})
    project.config(PARTS)
    project.pool(topics("tea"))
    assert (await project.batchgen("run", "pool.jsonl", "--samples", "2", "-c", "1")).code == 0
    answers = "select i.id from items i join experiments e on e.id = i.experiment_id"
    [(row,), *_] = project.query(f"{answers} where e.step = 'answer' order by i.id")
    async with viewing(project) as viewer:
        listed = await viewer.get("/e/demo/items?step=answer&order=pool")
        assert f'title="{row}">tea[0]</a> <span class="quiet">#1</span>' in listed.text
        _, shown = await follow(viewer, f"/e/demo/review?n=9&seed=1&item={row}")
        given = shown.text.partition('class="given"')[2].partition('class="said"')[0]
        for text in (">tea[0] #1<", ">tea<", ">topic<", ">question<", ">Why?<", ">ask<", ">judge<"):
            assert text in given, text
        assert "score" in given
        assert "How?" in given  # in the list that the first step made
        assert "Cold." not in shown.text  # of the other element
        _, first = await follow(viewer, "/e/demo%2Fask/review?n=9&seed=1&item=1")
        assert re.search(r">answer\[1\]</a></dt>\s*<dd>\s*<pre [^>]*>Cold.</pre>", first.text)
        answer = await viewer.get((await say(viewer, shown, "accepted")).place)
        assert "tea[0] #1: accepted." in answer.text
        own = (await viewer.get(f"/items/{row}")).text
        assert "<h1>Item tea[0] #1</h1>" in own
        assert re.search(r"<dt>id</dt><dd[^>]*><a [^>]*>(<bdi>)?tea<", own)
        assert "&#34;topic&#34;: &#34;tea&#34;" in own  # the input of its item
        assert viewer.said == []
