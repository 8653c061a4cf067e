"""Rows of an experiment as a table, and one of them with all that came of it."""

import html
import json
import re
import shlex
from collections.abc import AsyncIterator
from urllib.parse import parse_qs, urlsplit

import pytest

from batchgen.simulate import Behaviour, Simulator
from batchgen.store import ReviewChange, Verdict, open_store
from batchgen.web.shown import moment
from tests.kits.chain_exports import PARTS, says, topics
from tests.kits.database import change
from tests.kits.page import Answer, Viewer, viewing
from tests.kits.project import KEY, Project

LONG = "0123456789" * 20_000


@pytest.fixture(autouse=True)
def time_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page is whole, also on a machine that is busy."""
    for name in ("BUDGET_S", "QUICK_S"):
        monkeypatch.setattr(f"batchgen.web.pages.items.{name}", 60)


def said(n: int) -> Behaviour:
    if n == 7:
        return Behaviour.ok("no JSON")
    return Behaviour.ok(json.dumps({"label": "odd" if n % 2 else "even", "score": n}))


@pytest.fixture
async def labelled(project: Project, simulator: Simulator) -> Project:
    """Items 0 to 59, as `said`; 7 fails. Item 3 is answered at the second try."""
    for n in range(60):
        tries = [Behaviour.error(500, message="it broke"), said(n)] if n == 3 else [said(n)]
        simulator.script(f"Say w{n:03}", *tries)
    project.config("parser: json\nwork: {retry_wait_s: 0.01}\n")
    project.pool({"word": f"w{n:03}", "id": f"id-{n}"} for n in range(60))
    assert (await project.batchgen("run", "pool.jsonl", "-c", "1")).code == 3
    return project


@pytest.fixture
async def rows(labelled: Project) -> AsyncIterator[Viewer]:
    async with viewing(labelled) as made:
        yield made
        assert made.said == []


def ids(answer: Answer) -> list[str]:
    return re.findall(r'<th scope="row"[^>]*><a [^>]*>([^<]*)</a>', answer.text)


def link(answer: Answer, attributes: str) -> str:
    found = re.search(rf'<a href="([^"]*)"[^>]*{attributes}', answer.text)
    assert found is not None
    return html.unescape(found[1])


async def test_a_table_has_the_fields_of_the_values_as_columns(rows: Viewer) -> None:
    answer = await rows.get("/e/default/items")
    assert answer.status == 200
    assert len(ids(answer)) == 50
    assert ids(answer)[0] in ("id-59", "id-3")
    for text in (">label<", ">score<", ">even<", ">w058<", "batchgen export --experiment default"):
        assert text in answer.text
    second = await rows.get(link(answer, 'rel="next"'))
    assert len(ids(second)) == 10
    back = await rows.get(link(second, 'rel="prev"'))
    assert ids(back) == ids(answer)


CHOSEN: list[tuple[str, list[str], bool]] = [
    ("state=failed", ["id-7"], True),
    ("where=parsed.score+%3E+57&state=done", ["id-59", "id-58"], True),
    ("q=W058", ["id-58"], False),
    ("order=pool&where=parsed.score+%3C+2", ["id-0", "id-1"], True),
    ("where=parsed+==+null", ["id-7"], True),
    ("state=pending", [], False),
    ("reason=parse", ["id-7"], False),
    ("state=failed&reason=parse", ["id-7"], False),
]
REFUSED = [
    ("where=parsed.", "where: column"),
    ("where=__import__('os')", "nothing can be called here"),
    ("state=nowhere", "there is no &#39;nowhere&#39;"),
    ("after=x", "is no place in this list"),
    ("step=none", "has no step"),
    ("state=pending&where=parsed+==+1", "about what came of a row"),
]


@pytest.mark.on_both_engines
async def test_rows_are_chosen_by_the_address_and_the_command_has_the_same(
    rows: Viewer, labelled: Project
) -> None:
    for query, expected, has_command in CHOSEN:
        answer = await rows.get(f"/e/default/items?{query}")
        assert (answer.status, ids(answer)) == (200, expected), query
        assert (command(answer) is not None) == has_command, query
        if has_command:
            assert await exported(labelled, answer) == sorted(expected)


def command(answer: Answer) -> list[str] | None:
    """The one below the page, without its first word."""
    found = re.search(r"<footer><[^>]*><code>([^<]*)", answer.text)
    return None if found is None else shlex.split(html.unescape(found[1]))[1:]


async def exported(project: Project, answer: Answer) -> list[str]:
    """The ids of the rows that its command has."""
    out = await project.batchgen(*(command(answer) or ()), "-o", "-")
    assert out.code == 0, out.err
    return sorted(json.loads(line)["id"] for line in out.out.splitlines())


async def test_a_plain_list_has_a_command_while_it_has_what_an_export_has(
    labelled: Project,
) -> None:
    async with viewing(labelled) as viewer:
        for query in ("", "?order=pool"):
            assert len(await exported(labelled, await viewer.get(f"/e/default/items{query}"))) == 60
        labelled.pool([{"word": "more", "id": "more"}])
        assert (await labelled.batchgen("enqueue", "pool.jsonl")).code == 0
        assert command(await viewer.get("/e/default/items?order=pool")) is None
        assert len(await exported(labelled, await viewer.get("/e/default/items"))) == 60


async def test_a_list_of_several_steps_has_no_command_and_one_of_a_step_has(
    project: Project, simulator: Simulator
) -> None:
    says(simulator, Draft_tea="Tea.", Judge_Tea="no JSON", Draft_rum="Rum.", Judge_Rum="3")
    project.config(
        "output_data: {experiment_name: demo, need_time_stamp: false}\n"
        "steps:\n"
        '  - {name: draft, user: {text: "Draft {topic}"}}\n'
        '  - {name: judge, user: {text: "Judge {draft}"}, parser: json}\n'
    )
    project.pool(topics("tea", "rum"))
    assert (await project.batchgen("run", "pool.jsonl")).code == 3
    async with viewing(project) as viewer:
        for query in ("", "?order=pool", "?state=done", "?state=failed"):
            assert command(await viewer.get(f"/e/demo/items{query}")) is None
        for place, expected in (
            ("demo/items?step=draft", ["rum", "tea"]), ("demo/items?step=judge", ["rum", "tea"]),
            ("demo%2Fjudge/items?state=failed", ["tea"]),
            ("demo/items?step=judge&state=done", ["rum"]),
            ("demo/items?where=judge+==+3", ["rum"]),
        ):  # fmt: skip
            assert await exported(project, await viewer.get(f"/e/{place}")) == expected, place


async def test_what_cannot_be_is_told_beside_the_form(rows: Viewer) -> None:
    for query, text in REFUSED:
        answer = await rows.get(f"/e/default/items?{query}")
        assert answer.status == 400, query
        assert text in answer.text
        assert "<form" in answer.text
        assert command(answer) is None


async def test_an_experiment_that_is_not_there_is_no_page(rows: Viewer) -> None:
    assert (await rows.get("/e/none/items")).status == 404
    for place in ("/items/999", "/items/99999999999999999999", "/items/1/attempts/999/raw",
                  "/items/2/attempts/1/raw", "/items/999/diff"):  # fmt: skip
        assert (await rows.get(place)).status == 404


async def test_a_row_leads_to_its_neighbours_within_the_filter(rows: Viewer) -> None:
    listed = await rows.get("/e/default/items?where=parsed.score+%3E+56&order=pool")
    assert ids(listed) == ["id-57", "id-58", "id-59"]
    first = await rows.get(row_link(listed, 0))
    assert "Item id-57" in first.text
    second = await rows.get(link(first, 'rel="next"'))
    assert second.status == 302
    assert urlsplit(second.place).path == "/items/59"
    assert parse_qs(urlsplit(second.place).query)["where"] == ["parsed.score > 56"]
    third = await rows.get(link(await rows.get(second.place), 'rel="next"'))
    assert urlsplit(third.place).path == "/items/60"
    end = await rows.get(link(await rows.get(third.place), 'rel="next"'))
    assert (end.status, urlsplit(end.place).path) == (303, "/items/60")  # where one came from
    last = await rows.get(end.place)
    assert "the last one in this list" in last.text
    assert link(last, 'rel="prev"') == link(await rows.get(third.place), 'rel="prev"')
    back = await rows.get(link(first, 'rel="prev"'))
    assert urlsplit(back.place).path == "/items/58"
    assert "the first one in this list" in (await rows.get(back.place)).text


def row_link(answer: Answer, n: int) -> str:
    return html.unescape(re.findall(r'<th scope="row"[^>]*><a href="([^"]*)"', answer.text)[n])


async def test_rows_of_a_condition_are_reviewed_from_their_list(rows: Viewer) -> None:
    listed = await rows.get("/e/default/items?where=parsed.score+%3E+57")
    place = link(listed, ">review them")
    assert urlsplit(place).path == "/e/default/review"
    first = await rows.get((await rows.get(place)).place)
    assert "w058" in first.text
    for query in ("", "?q=w058", "?where=parsed+==+null&state=failed", "?where=parsed+==+9"):
        assert ">review them" not in (await rows.get(f"/e/default/items{query}")).text


async def test_without_a_list_a_row_stands_in_the_pool(rows: Viewer) -> None:
    answer = await rows.get("/items/5")
    after = await rows.get(link(answer, 'rel="next"'))
    before = await rows.get(link(answer, 'rel="prev"'))
    assert [urlsplit(one.place).path for one in (before, after)] == ["/items/4", "/items/6"]


async def test_one_row_has_all_that_was_sent_and_came_back(rows: Viewer) -> None:
    answer = await rows.get("/items/4")
    shown = html.unescape(answer.text)
    for text in ("id-3", "Say w003", "it broke", "HTTP 500", "HTTP 200", '"label": "odd"',
                 "batchgen show 4", "simulated"):  # fmt: skip
        assert text in shown
    assert KEY not in answer.text


async def test_an_answer_is_there_as_a_file_that_does_nothing(rows: Viewer) -> None:
    page = await rows.get("/items/1")
    place = link(page, ">as a file")
    answer = await rows.get(place)
    assert answer.text == json.dumps({"label": "even", "score": 0})
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.headers["Content-Disposition"].startswith("attachment; filename=")
    assert answer.headers["Content-Security-Policy"].endswith("; sandbox")
    given = await rows.get("/items/1/raw/input")
    assert json.loads(given.text) == {"word": "w000", "id": "id-0"}
    assert (await rows.get("/items/8/raw/value")).status == 404


async def test_a_long_answer_is_shown_as_far_as_it_is_read(
    project: Project, simulator: Simulator
) -> None:
    simulator.script("Say", Behaviour.ok(LONG))
    project.pool([{"word": "w"}])
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    async with viewing(project) as viewer:
        page = await viewer.get("/items/1")
        assert len(page.body) < 200_000
        assert "134.5 kB more." in page.text
        whole = await viewer.get("/items/1/attempts/1/raw")
        assert whole.text == LONG
        listed = await viewer.get("/e/default/items")
        assert len(listed.body) < 20_000


async def test_a_search_says_how_far_it_looked(
    labelled: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchgen.web.pages.items.BUDGET_S", 0)
    async with viewing(labelled) as viewer:
        answer = await viewer.get("/e/default/items?where=parsed.score+==+0")
        assert ids(answer) == []
        assert "Searched 51 of 60 rows." in answer.text
        further = await viewer.get(link(answer, "data-go-on"))
        assert ids(further) == ["id-0"]
        assert "Searched 60 rows, to the end." in further.text


@pytest.mark.slow
@pytest.mark.on_both_engines
async def test_a_search_that_fills_a_page_is_not_at_its_end(rows: Viewer) -> None:
    full = await rows.get("/e/default/items?q=w0&order=pool")
    assert len(ids(full)) == 50
    assert "to the end" not in full.text
    last = await rows.get(link(full, 'rel="next"'))
    assert len(ids(last)) == 10
    assert "Searched 60 rows, to the end." in last.text


async def test_pages_speak_chinese(rows: Viewer) -> None:
    for place, text in [("/e/default/items", "输入或回答中的文字"), ("/items/4", "尝试记录"),
                        ("/items/4/diff", "没有可比较的内容")]:  # fmt: skip
        assert text in (await rows.get(place, {"Accept-Language": "zh-CN"})).text


# Comparing


@pytest.fixture
async def samples(project: Project, simulator: Simulator) -> Project:
    """Three samples of an item, two with objects."""
    texts = [
        '{"label": "a", "why": "红色的猫"}',
        '{"label": "a", "why": "蓝色的猫"}',
        "no JSON at all",
    ]
    simulator.script("Say", *map(Behaviour.ok, texts))
    project.pool([{"word": "w"}])
    run = ("run", "pool.jsonl", "--samples", "3", "-c", "1")
    assert (await project.batchgen(*run)).code == 0
    return project


async def test_samples_are_tabs_and_are_compared(samples: Project) -> None:
    async with viewing(samples) as viewer:
        page = await viewer.get("/items/1")
        assert page.text.count("sample ") == 3
        answer = await viewer.get("/items/1/diff?a=s1&b=s2")
        assert "<del>红</del>" in answer.text
        assert "<ins>蓝</ins>" in answer.text
        assert ">why<" in answer.text
        assert "1 place is the same." in answer.text
        words = await viewer.get("/items/1/diff?a=s2&b=s3")
        assert "By key" not in words.text
        assert "no JSON at all" in words.text


@pytest.mark.quick("a=a&b=a1", "a=s1&b=")
@pytest.mark.parametrize("names", ["a=a1&b=a999", "a=x1&b=a1", "a=s1&b=", "a=a&b=a1", "a=r99&b=a1"])
async def test_what_cannot_be_compared_is_told(samples: Project, names: str) -> None:
    async with viewing(samples) as viewer:
        answer = await viewer.get(f"/items/1/diff?{names}")
        assert answer.status in (200, 404)
        assert viewer.said == []


async def test_an_edit_is_compared_with_what_it_was_made_of(samples: Project) -> None:
    async with open_store(samples.database) as store:
        row, *_ = await store.pages.rows([1])
        assert row.result_seq is not None
        change = ReviewChange(Verdict.ACCEPTED, edited='"a red cat"')
        assert await store.reviews.put(1, row.result_seq, change) is not None
    async with viewing(samples) as viewer:
        page = await viewer.get("/items/1")
        assert ">accepted<" in page.text
        answer = await viewer.get(link(page, ">as edited"))
        assert "<ins>a red cat</ins>" in answer.text


async def test_values_of_two_parsers_are_compared(labelled: Project) -> None:
    labelled.config("parser: raw\n")
    assert (await labelled.batchgen("reparse", "--id", "id-3")).code == 0
    async with viewing(labelled) as viewer:
        assert "What it ended with before" not in (await viewer.get("/items/3")).text
        page = await viewer.get("/items/4")
        assert page.text.count('<td class="mono">json</td>') == 1
        answer = await viewer.get(link(page, ">Compare"))
        assert answer.status == 200
        assert "<h1>Item id-3, compared</h1>" in answer.text
        for words in ("before, by json", "what it has now"):
            assert f">{words}</option>" in answer.text
        assert viewer.said == []


async def test_what_is_of_another_row_is_compared_under_its_name(labelled: Project) -> None:
    number = "select seq from results where item_id = 10"
    [(seq,)] = labelled.query(number)
    async with viewing(labelled) as viewer:
        answer = await viewer.get(f"/items/9/diff?a=r{seq}&b=s9")
        assert "<h1>Items id-9 and id-8, compared</h1>" in answer.text
        for words in ("id-9: value by json", "id-8: what it has now"):
            assert f">{words}</th>" in answer.text
            assert f" selected>{words}</option>" in answer.text
        answer = await viewer.get("/items/9/diff?a=s10&b=s10")
        assert "<h1>Item id-9, compared</h1>" in answer.text
        assert viewer.said == []


async def test_an_answer_that_was_parsed_again_came_when_it_came(labelled: Project) -> None:
    for table in ("attempts", "results"):
        change(labelled.database, f"update {table} set finished_at = finished_at - 3600000")
    came = "select max(finished_at) from attempts where item_id = 4 and outcome = 'answered'"
    [(came_at,)] = labelled.query(came)
    labelled.config("parser: raw\n")
    async with viewing(labelled) as viewer:
        assert "<dt>finished</dt>" in (await viewer.get("/items/4")).text
        assert (await labelled.batchgen("reparse", "--id", "id-3")).code == 0
        facts = (await viewer.get("/items/4")).text
        assert f"<dt>answered</dt><dd>{moment(came_at)}" in facts
        assert "<dt>parsed</dt>" in facts
        assert "<dt>finished</dt>" not in facts


# Steps


async def test_a_row_of_a_step_shows_its_chain(project: Project, simulator: Simulator) -> None:
    for asked, answer in {"Draft tea": "Tea.", "Judge Tea": '{"score": 3}'}.items():
        simulator.script(asked, Behaviour.ok(answer))
    project.config(
        "output_data: {experiment_name: demo}\n"
        "steps:\n"
        '  - {name: draft, user: {text: "Draft {topic}"}}\n'
        '  - {name: critique, user: {text: "Judge {draft}"}, parser: json}\n'
    )
    project.pool([{"topic": "tea", "id": "tea"}])
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    async with viewing(project) as viewer:
        listed = await viewer.get("/e/demo/items?order=pool")
        assert ids(listed) == ["tea", "tea"]
        assert listed.text.count(">tea</td>") == 2  # what the item was given
        assert "score: 3" in listed.text  # of several steps no field is a column
        assert ">score</th>" not in listed.text
        row = await viewer.get("/items/2")
        assert "Judge Tea." in row.text
        assert 'href="/items/1"' in row.text
        one = await viewer.get("/e/demo/items?step=critique")
        assert ids(one) == ["tea"]
        assert one.text.count(">tea</td>") == 1
        assert ">score</th>" in one.text
        assert "--step critique" in one.text


@pytest.mark.on_both_engines
async def test_rows_of_steps_go_by_the_id_of_their_item_and_their_places_in_lists(
    project: Project, simulator: Simulator
) -> None:
    says(simulator, Ask_tea='["Why?", "When?"]')
    says(simulator, Answer_Why="So.", Answer_When="Now.", Judge_So="1", Judge_Now="2")
    project.config(PARTS)
    project.pool([{"id": "tea", "topic": "tea"}, {"topic": "rum"}])
    says(simulator, Ask_rum="[]")
    assert (await project.batchgen("run", "pool.jsonl", "-c", "1")).code == 0
    async with viewing(project) as viewer:
        for step, names, given in (
            ("ask", ["2", "tea"], ["rum", "tea"]),
            ("answer", ["tea[0]", "tea[1]"], ["When?", "Why?"]),
            ("judge", ["tea[0]", "tea[1]"], ["tea", "tea"]),
        ):
            listed = await viewer.get(f"/e/demo/items?step={step}")
            assert sorted(ids(listed)) == names
            cells = re.findall(r'<td class="text[^>]*>([^<]*)</td>', listed.text)
            assert sorted(cells[::2]) == given
        assert viewer.said == []


async def test_columns_are_as_many_as_there_is_room_for(
    project: Project, simulator: Simulator
) -> None:
    value: dict[str, object] = {f"text{n}": "a text that is not short" for n in range(4)}
    value |= {f"n{n}": n for n in range(4)}
    simulator.script("Say", *[Behaviour.ok(json.dumps(value)), Behaviour.ok("no JSON")])
    project.config("parser: json\n")
    project.pool([{"word": "w1"}, {"word": "w2"}])
    assert (await project.batchgen("run", "pool.jsonl", "-c", "1")).code == 3
    async with viewing(project) as viewer:
        listed = (await viewer.get("/e/default/items")).text
    heads = re.findall(r'<th scope="col" class="(text|field)( spare)?">(\w+)', listed)
    assert heads == [
        ("text", "", "input"), ("text", "", "text0"), ("text", "", "text1"),
        ("text", " spare", "text2"), ("field", " spare", "n0"), ("field", " spare", "n1"),
        ("field", " spare", "n2"),
    ]  # fmt: skip
    assert re.findall(r'<td class="text (\w+)" dir="auto" colspan="(\d)"', listed) == [
        ("spare", "6"), ("instead", "2")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "shown"),
    [("text.upper()", "TWO WORDS"), ("text.split()", "[&#34;two&#34;, &#34;words&#34;]"),
     ("text * 100", "two words" * 20), ("{}", "{}"), ("None", "null"), ("len(text)", "9")],
)  # fmt: skip
async def test_what_was_parsed_is_shown_also_if_it_has_no_fields(
    project: Project, simulator: Simulator, value: str, shown: str
) -> None:
    simulator.script("Say", Behaviour.ok("two words"))
    project.pool([{"word": "w"}])
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    project.write("p.py", f"def parse(text):\n    return {value}\n")
    project.config("parser: p.py:parse\n")
    assert (await project.batchgen("reparse", "--all")).code == 0
    async with viewing(project) as viewer:
        listed = (await viewer.get("/e/default/items")).text
        [cell] = re.findall(r'<td class="text " dir="auto">(.*?)</td>', listed)
        assert cell.startswith(shown)


async def test_a_search_of_chains_says_what_it_counts(
    project: Project, simulator: Simulator
) -> None:
    says(simulator, Ask_tea='["Why?", "When?"]', Judge_tea='{"score": 3}')
    simulator.script("Answer", *[Behaviour.ok("tea")] * 2)
    simulator.script("Judge", *[Behaviour.ok('{"score": 3}')] * 2)
    project.config(PARTS)
    project.pool(topics("tea"))
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    async with viewing(project) as viewer:
        listed = await viewer.get("/e/demo/items?where=judge.score+==+3")
        assert "Searched 1 item with all its rows, to the end." in listed.text
        assert re.search(r"<select [^>]*disabled><option>as in the pool<", listed.text)
        listed = await viewer.get("/e/demo/items?q=tea")
        assert "<option>as in the pool" not in listed.text
        assert "Searched 5 rows, to the end." in listed.text


async def test_before_anything_has_ended_the_list_says_so(project: Project) -> None:
    project.pool([{"word": "w"}])
    assert (await project.batchgen("enqueue", "pool.jsonl")).code == 0
    async with viewing(project) as viewer:
        text = (await viewer.get("/e/default/items")).text
        assert "None has ended yet." in text
        assert "/e/default/items?order=pool" in text
        assert "None has ended" not in (await viewer.get("/e/default/items?order=pool")).text
        assert "No worker is running." in (await viewer.get("/e/default")).text
        assert "No row is done yet." in (await viewer.get("/e/default/review?n=5&seed=1")).text
