"""What failed, with what helps; and asking again from the page."""

import html
import json
import re
import shlex
from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest

from batchgen.simulate import Behaviour, Simulator
from batchgen.web.pages import failures
from tests.kits.page import Answer, Viewer, viewing
from tests.kits.project import Project

HOSTILE = "</th><script>window.pwned = 1</script> \u202e 'quoted' \"twice\" ${HOME}"


@pytest.fixture
async def failed(project: Project, simulator: Simulator) -> Project:
    """1 to 3 fail of the server, 4 to 6 are cut off, 7 is refused with a hostile message, 8 in
    another way, 9 is done; each call costs."""
    project.config(
        "parser: json\nwork: {max_attempts: 1}\n", max_tokens=50,
        price={"input_usd_per_mtok": 1000, "output_usd_per_mtok": 1000},
    )  # fmt: skip
    words = [f"{kind} {n}" for kind in ("server", "long") for n in range(3)]
    words += ["odd", "other", "fine"]
    for n in range(3):
        simulator.script(f"Say server {n}", Behaviour.error(500, message=f"busy, id req_{n}x"))
        simulator.script(f"Say long {n}", Behaviour("length"))
    simulator.script("Say odd", Behaviour.error(400, message=HOSTILE))
    simulator.script("Say other", Behaviour.error(400, message="strange word"))
    simulator.script("Say fine", Behaviour.ok('{"a": 1}'))
    project.pool({"word": word, "id": word} for word in words)
    assert (await project.batchgen("run", "pool.jsonl", "-c", "1")).code == 3
    return project


@pytest.fixture
async def page(failed: Project) -> AsyncIterator[Viewer]:
    async with viewing(failed) as made:
        yield made


def links(answer: Answer, words: str) -> list[str]:
    found = re.findall(rf'<a [^>]*href="([^"]*)"[^>]*>{words}</a>', answer.text)
    return [html.unescape(one) for one in found]


def facts(answer: Answer) -> str:
    """The page as text."""
    main = re.sub(r"</?(?:code|span)>", "", answer.text.partition("<main")[2])
    text = html.unescape(re.sub(r"<[^>]*>", " ", main))
    return re.sub(r"\s+", " ", text)


async def test_groups_have_what_helps_an_example_and_a_way_to_ask_again(
    page: Viewer, failed: Project
) -> None:
    answer = await page.get("/e/default/failures")
    assert answer.status == 200
    shown = facts(answer)
    for text in ("server 3 37.5 %", "truncated 3 37.5 %", "rejected 2 25.0 %",
                 "500 busy, id req_0x", "batchgen failures --experiment default"):  # fmt: skip
        assert text in shown, text
    said = await failed.batchgen("failures", "--json", "--experiment", "default")
    listed = json.loads(said.out)
    for group in listed:
        assert " ".join(group["hint"].split()) in shown
    examples = links(answer, "an example")
    assert len(examples) == len(listed) == 4
    assert {one.partition("?")[0] for one in examples} == {
        f"/items/{group['example']}" for group in listed
    }
    for one in examples:
        assert (await page.get(one)).status == 200
    assert len(links(answer, "Ask again")) == 4


async def test_a_group_leads_to_its_own_rows(page: Viewer) -> None:
    answer = await page.get("/e/default/failures")
    groups = re.findall(r'<td class="n">(\d+)</td>\s*<td><a href="([^"]*)">rejected<', answer.text)
    assert [n for n, _ in groups] == ["1", "1"]
    for _, place in groups:
        rows = (await page.get(html.unescape(place))).text
        assert len(re.findall(r'<th scope="row"', rows)) == 1
    (tile,) = re.findall(r'<a href="([^"]*)">2</a>', answer.text)
    assert len(re.findall(r'<th scope="row"', (await page.get(html.unescape(tile))).text)) == 2


async def test_a_message_is_text_and_survives_the_way_to_the_retry(page: Viewer) -> None:
    answer = await page.get("/e/default/failures")
    assert "<script>window" not in answer.text
    assert "\u202e" not in answer.text
    asked = [await page.get(one) for one in links(answer, "Ask again")]
    assert [one.status for one in asked] == [200] * 4
    odd = next(facts(one) for one in asked if "window.pwned" in facts(one))
    assert "rows 1 cost" in odd
    command = shlex.split(odd.partition("$ ")[2] or odd.partition("batchgen ")[2])
    assert "--message" in command


@pytest.mark.on_both_engines
async def test_what_it_costs_is_said_before_and_asking_puts_rows_back(
    page: Viewer, failed: Project, simulator: Simulator
) -> None:
    before = len(simulator.requests)
    place = "/e/default/retry?reason=server"
    look = await page.get(place)
    shown = facts(look)
    command = "retry --reason server --experiment default"
    dry = (await failed.batchgen(*shlex.split(command), "--dry-run", "--json")).out
    cost = json.loads(dry)
    assert cost["retried"] == 3
    assert "rows 3 cost about $" in shown
    assert f"${cost['cost_usd']:,.4f}" in shown or f"${cost['cost_usd']:,.2f}" in shown
    assert f"batchgen {command}" in shown
    assert "No worker is running" in shown
    done = await page.post(place, {})
    assert (done.status, done.place.partition("?")[0]) == (303, "/e/default/failures")
    told = facts(await page.get(done.place))
    assert "3 rows wait again; a worker asks them when one runs." in told
    assert len(simulator.requests) == before
    assert failed.query("select state, count(*) from work group by state order by state") == [
        ("done", 1), ("failed", 5), ("pending", 3)
    ]  # fmt: skip
    assert page.said == [
        "retry, from the page: 3 rows wait again; a worker asks them when one runs."
    ]
    again = await page.post(place, {})
    assert "0 rows wait again" in (await page.get(again.place)).text


async def test_what_would_fail_again_is_said_to(page: Viewer) -> None:
    words = "Asked as before, they mostly fail again."
    for query, is_said in (
        ("reason=rejected", True), ("reason=truncated", True), ("reason=server", False),
        ("reason=truncated&max_tokens=100", False), ("", False),
    ):  # fmt: skip
        shown = facts(await page.get(f"/e/default/retry?{query}"))
        assert (words in shown) == is_said, query


async def test_answers_that_were_cut_off_are_asked_with_more_room(
    page: Viewer, failed: Project
) -> None:
    answer = await page.get("/e/default/failures")
    (place,) = [one for one in links(answer, "Ask again") if "truncated" in one]
    assert "max_tokens=100" in place
    shown = facts(await page.get(place))
    assert "with max_tokens=100" in shown
    assert "cost not known" in shown
    assert "retry --reason truncated --experiment default --set max_tokens=100" in shown
    await page.post(place, {})
    assert (await failed.batchgen("show", "4", "--json")).out.count('"max_tokens": 100') == 1


async def test_rows_with_parameters_of_their_own_are_told(
    project: Project, simulator: Simulator
) -> None:
    simulator.script("Say a", Behaviour("length"))
    simulator.script("Say b", Behaviour("length"))
    project.config("parser: json\nwork: {max_attempts: 1}\n")
    project.pool([{"word": "a"}, {"word": "b", "params": {"max_tokens": 7}}])
    await project.batchgen("run", "pool.jsonl")
    async with viewing(project) as viewer:
        place = "/e/default/retry?reason=truncated&max_tokens=9"
        shown = facts(await viewer.get(place))
        assert "rows 1 1 row with parameters of its own" in shown
        done = await viewer.post(place, {})
        told = facts(await viewer.get(done.place))
        assert "1 row waits again; a worker asks it when one runs. 1 row with parameters" in told


REFUSED = [
    "reason=nonsense", "reason=server&max_tokens=-1", "max_tokens=lots", "step=none",
    f"message={'x' * 1001}",
]  # fmt: skip


@pytest.mark.quick("reason=server&max_tokens=-1", "query4")
@pytest.mark.parametrize("query", REFUSED)
async def test_what_cannot_be_is_told_and_nothing_is_done(
    page: Viewer, failed: Project, query: str
) -> None:
    assert (await page.get(f"/e/default/retry?{query}")).status == 404
    assert (await page.post(f"/e/default/retry?{query}", {})).status == 400
    assert failed.query("select count(*) from work where state = 'pending'") == [(0,)]


async def test_no_setting_but_the_room_for_an_answer_comes_from_the_page(
    page: Viewer, failed: Project
) -> None:
    """What is asked, and where, is not for a link to say."""
    place = "/e/default/retry?reason=server&model=evil&base_url=http://evil.example&temperature=2"
    shown = facts(await page.get(place))
    assert "with as before" in shown
    await page.post(place, {"model": "evil", "set": "model=evil"})
    recipes = failed.query("select body from recipes")
    assert len(recipes) == 1
    assert "evil" not in recipes[0][0]


async def test_with_read_only_no_page_offers_what_changes_something(failed: Project) -> None:
    """Page by page, as far as links lead. What helps is said in words, as commands that only look
    say it."""
    orders = "retry|work|run|pause|resume|set|stop|enqueue|reparse"
    writes = re.compile(rf"batchgen ({orders}|review .*--(accept|reject|edit|note|undo))")
    async with viewing(failed, read_only=True) as viewer:
        seen = set[str]()
        to_see = ["/e/default", "/e/default/review?n=9"]
        to_see += [f"/e/default/retry?{which}" for which in ("reason=server", "stale=yes")]
        while to_see and len(seen) < 150:
            place = to_see.pop(0)
            kind = re.sub(r"\d+|=[^&]*", "", place)
            if place in seen or sum(re.sub(r"\d+|=[^&]*", "", one) == kind for one in seen) > 3:
                continue
            seen.add(place)
            answer = await viewer.get(place)
            if answer.status in (302, 303):
                to_see.append(answer.place)
                continue
            assert 'method="post"' not in answer.text, place
            assert "/retry" not in answer.text or "/retry" in place, place
            codes = re.findall(r'<div class="command".*?<code>(.*?)</code>', answer.text)
            assert not [one for one in codes if writes.search(html.unescape(one))], place
            to_see += [
                html.unescape(one) for one in re.findall(r'<a [^>]*href="(/[^"]*)"', answer.text)
            ]
        for way in ("items", "review", "failures", "fields"):
            assert f"/e/default/{way}" in seen
        assert any("review?n=" in one or "item=" in one for one in seen)
        assert (await viewer.post("/e/default/retry?reason=server", {})).status == 403
    assert failed.query("select count(*) from work where state = 'pending'") == [(0,)]


async def test_what_a_changed_parser_may_read_is_not_asked_from_the_page(failed: Project) -> None:
    """The command reads it first, without a call; the page runs no parser."""
    failed.config("parser: raw\nwork: {max_attempts: 1}\n", max_tokens=50)
    async with viewing(failed) as viewer:
        answer = await viewer.get("/e/default/retry")
        assert "The parser has changed" in answer.text
        assert 'method="post"' not in answer.text
        assert (await viewer.post("/e/default/retry", {})).status == 400
        assert (await viewer.post("/e/default/retry?reason=server", {})).status == 303


async def test_of_very_many_the_last_are_grouped_unless_all_are_asked_for(
    failed: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "MOST_GROUPED", 3)
    async with viewing(failed) as viewer:
        answer = await viewer.get("/e/default/failures")
        shown = facts(answer)
        assert "The last 3 of 8 failed rows, in the order of the pool, are grouped here." in shown
        assert "server 3 37.5 %" in shown  # the totals are of all
        assert "500 busy" not in shown
        assert "strange word" in shown
        (everything,) = links(answer, "Group all of them")
        assert "500 busy" in facts(await viewer.get(everything))


async def test_all_are_grouped_as_far_as_time_goes_and_it_is_said_how_far(
    failed: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "ALL_S", -1)
    monkeypatch.setattr("batchgen.store.transactions.look._FAILED_AT_ONCE", 5)
    async with viewing(failed) as viewer:
        answer = await viewer.get("/e/default/failures?all=yes")
        shown = facts(answer)
        assert "The last 5 of 8 failed rows, in the order of the pool, are grouped here." in shown
        assert "There was no time for more; the command below groups all." in shown
        assert links(answer, "Group all of them") == []


async def test_a_search_for_a_message_says_how_far_it_looked(
    failed: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "BUDGET_S", -1)
    monkeypatch.setattr("batchgen.jobs.retry._LOOKED_AT_ONCE", 2)
    async with viewing(failed) as viewer:
        shown = facts(await viewer.get(f"/e/default/retry?message={quote('BUSY, id')}"))
        assert "rows 2 At least: 2 of 8 failed rows were looked at." in shown
        done = await viewer.post(f"/e/default/retry?message={quote('BUSY, id')}", {})
        assert "3 rows wait again" in (await viewer.get(done.place)).text


async def test_calls_that_were_asked_again_are_there_though_nothing_failed(
    project: Project, simulator: Simulator
) -> None:
    project.config("work: {retry_wait_s: 0.01}\n")
    project.pool({"word": f"w{n}"} for n in range(4))
    simulator.script("Say w1", Behaviour.error(503, message="engine is busy"))
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    async with viewing(project) as viewer:
        shown = facts(await viewer.get("/e/default/failures"))
        assert "Calls that failed and were asked again" in shown
        assert "server (503)" in shown or "server 503" in shown
        assert "engine is busy" in shown
        assert (await viewer.get("/e/none/failures")).status == 404
        assert (await viewer.get("/e/none/retry")).status == 404


STEPS = """\
output_data: {experiment_name: demo}
work: {max_attempts: 1}
steps:
  - {name: draft, user: {text: "Write about {topic}"}, parser: json}
  - {name: critique, user: {text: "Mend {topic}, of {draft}"}, parser: json}
"""


@pytest.fixture
async def steps(project: Project, simulator: Simulator) -> Project:
    """Item 1 fails at its first step, item 2 at its second, item 3 nowhere."""
    project.config(STEPS)
    for n in (2, 3):
        simulator.script(f"Write about t{n}", Behaviour.ok(f'{{"a": {n}}}'))
        simulator.script(f"Mend t{n}", Behaviour.ok("{}" if n == 3 else "no JSON"))
    simulator.script("Write about t1", Behaviour.error(500, message="it broke"))
    project.pool({"id": f"t{n}", "topic": f"t{n}"} for n in range(1, 4))
    assert (await project.batchgen("run", "pool.jsonl", "-c", "1")).code == 3
    return project


async def test_each_step_has_its_failures_and_is_asked_again_alone(steps: Project) -> None:
    async with viewing(steps) as viewer:
        answer = await viewer.get("/e/demo/failures")
        shown = facts(answer)
        assert shown.index("Step draft") < shown.index("it broke") < shown.index("Step critique")
        of_draft, of_critique = links(answer, "Ask again")
        assert "step=critique" in of_critique
        look = facts(await viewer.get(of_draft))
        assert "The steps after them may make calls too." in look
        assert "batchgen retry --reason server --experiment demo --step draft" in look
        await viewer.post(of_critique, {})
        found = await viewer.get("/e/demo%2Fcritique/failures")
        assert "Nothing failed." in found.text
        assert "it broke" in (await viewer.get("/e/demo/failures")).text
        for place in links(answer, "an example"):
            assert (await viewer.get(place)).status == 200


async def test_stale_rows_are_asked_again(steps: Project, simulator: Simulator) -> None:
    again = await steps.batchgen("retry", "--id", "t3", "--done", "--step", "draft")
    assert again.code == 0, again.err
    simulator.script("Write about t3", Behaviour.ok('{"a": 9}'))
    async with viewing(steps) as viewer:
        answer = await viewer.get("/e/demo/failures")
        assert "1 row is stale" in answer.text
        (place,) = links(answer, "Ask them again")
        look = facts(await viewer.get(place))
        assert "which stale rows at most 1; what would see the same" in look
        assert "batchgen retry --stale --experiment demo" in look
        waiting = await viewer.post(place, {})
        assert "1 stale row is not asked" in facts(await viewer.get(waiting.place))
        await steps.batchgen("work")
        done = await viewer.post(place, {})
        assert "1 stale row went back to pending" in facts(await viewer.get(done.place))


async def test_nothing_failed(viewer: Viewer) -> None:
    answer = await viewer.get("/e/default/failures")
    assert "Nothing failed." in answer.text
    assert "No row is to be asked again." in (await viewer.get("/e/default/retry")).text


async def test_they_speak_chinese(page: Viewer) -> None:
    chinese = {"Accept-Language": "zh-CN"}
    assert "按消息分组" in (await page.get("/e/default/failures", chinese)).text
    assert "重新请求" in (await page.get("/e/default/retry?reason=server", chinese)).text


async def test_what_asking_again_costs_is_said_to_be_an_estimate(
    project: Project, simulator: Simulator
) -> None:
    """By a public price, at a server that may have another one."""
    simulator.script("Say bad", Behaviour.ok("no JSON"))
    project.config("parser: json\n", model="gpt-4.1-mini")
    project.pool([{"word": "bad"}])
    assert (await project.batchgen("run", "pool.jsonl")).code == 3
    async with viewing(project) as viewer:
        shown = facts(await viewer.get("/e/default/retry?reason=parse"))
        assert "costs are estimates: the price of gpt-4.1-mini at" in shown
        chinese = facts(await viewer.get("/e/default/retry?reason=parse&lang=zh"))
        assert "费用为估算值：gpt-4.1-mini" in chinese
        assert "batchgen work" in chinese


async def test_the_chinese_page_says_what_failed_and_what_helps(page: Viewer) -> None:
    shown = facts(await page.get("/e/default/failures?lang=zh"))
    for text in ("截断 3", "服务器错误 3", "500 busy, id req_0x", "放宽长度限制：batchgen retry"):
        assert text in shown, text
    assert "Give it more room" not in shown
    assert "没有实验 'nope'；现有：default。" in facts(await page.get("/e/nope?lang=zh"))
