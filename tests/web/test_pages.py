"""What the pages say: the numbers of `status`, and what orders did."""

import re

import aiohttp
import pytest

from batchgen.display.status import GONE
from batchgen.simulate import Behaviour, Simulator
from tests.kits.crashes import until
from tests.kits.page import Viewer, viewing
from tests.kits.project import KEY, Project, ended

PAUSED = "select count(*) from workers where report like '%\"paused\":true%'"
ANSWER = "To answer what is pending: batchgen work"
NEXT = (ANSWER, "A worker is running.", "What helps?", "No worker is running.")
SLOTS = "select max(slots) from workers"


def words(text: str) -> str:
    """What is seen of a page, roughly."""
    return " ".join(re.sub(r"<[^>]*>", " ", text).split())


async def test_the_only_experiment_is_led_to(viewer: Viewer) -> None:
    answer = await viewer.get("/")
    assert (answer.status, answer.place) == (302, "/e/default")
    page = words((await viewer.get("/e/default")).text)
    assert "done 3" in page
    assert "100 %" in page
    assert "batchgen status --experiment default" in page


async def test_what_has_ended_goes_at_no_rate(viewer: Viewer, answered: Project) -> None:
    assert "items a second –" in words((await viewer.get("/e/default")).text)
    answered.pool([{"word": "more"}])
    assert (await answered.batchgen("enqueue", "pool.jsonl")).code == 0
    assert re.search(r"items a second \d", words((await viewer.get("/e/default")).text))


async def test_only_what_can_be_done_next_is_proposed(
    project: Project, simulator: Simulator
) -> None:
    """Something waits; a worker is at it; all has failed."""
    project.config("parser: raw\nwork: {max_attempts: 1}\n")
    project.pool([{"word": "w"}])
    assert (await project.batchgen("enqueue", "pool.jsonl")).code == 0
    async with viewing(project) as viewer:

        async def proposed() -> list[list[str]]:
            """On pages that have nothing to show."""
            places = ("/e/default/fields", "/e/default/review", "/workers")
            pages = [words((await viewer.get(place)).text) for place in places]
            assert ["No row is done yet." in page for page in pages] == [True, True, False]
            return [[one for one in NEXT if one in page] for page in pages]

        assert await proposed() == [[ANSWER], [ANSWER], [ANSWER, "No worker is running."]]
        simulator.hold()
        simulator.script("Say", Behaviour.error(400, message="no"))
        process = await project.start("work", "-c", "1")
        await simulator.received(1)
        assert await proposed() == [["A worker is running."]] * 2 + [[]]
        simulator.release()
        assert (await ended(process)).code == 3
        assert await proposed() == [["What helps?"]] * 2 + [["No worker is running."]]


async def test_several_are_listed_by_whatever_name(answered: Project) -> None:
    answered.pool([{"word": "x"}], name="other.jsonl")
    enqueued = await answered.batchgen("enqueue", "other.jsonl", "--experiment", "demo <b>&?#%")
    assert enqueued.code == 0, enqueued.err
    async with viewing(answered) as viewer:
        page = (await viewer.get("/")).text
        assert "demo &lt;b&gt;&amp;?#%" in page
        [link] = re.findall(r'href="(/e/demo[^"]*)"', page)
        answer = await viewer.get(link)
        assert answer.status == 200
        assert "pending 1" in words(answer.text)


async def test_steps_are_a_chain(project: Project) -> None:
    steps = (
        "steps:\n  - {name: draft, user: {text: 'Write {word}'}}\n"
        "  - {name: judge, user: {text: 'Judge {draft}'}}\n"
    )
    project.config(steps)
    project.pool([{"word": "a"}, {"word": "b"}])
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    async with viewing(project) as viewer:
        page = (await viewer.get("/e/default")).text
        assert page.index('href="/e/default%2Fdraft"') < page.index('href="/e/default%2Fjudge"')


async def test_what_is_not_there_is_a_page_with_its_status(viewer: Viewer) -> None:
    for place in ("/none", "/e/none", "/assets/none", "/recipes/99", "/recipes/compare?a=1&b=x"):
        answer = await viewer.get(place)
        assert answer.status == 404
        assert "<h1>There is no such page</h1>" in answer.text
    assert "no experiment" in (await viewer.get("/e/none")).text
    answer = await viewer.ask("POST", "/e/default", headers={"Sec-Fetch-Site": "same-origin"})
    assert answer.status == 405


async def test_a_fault_is_told_in_the_terminal_and_not_on_the_page(
    answered: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with viewing(answered) as viewer:
        monkeypatch.setattr(
            "batchgen.web.pages.overview.left_s", lambda *_: 1 // 0, raising=True
        )  # which a finished experiment does not ask for
        assert (await viewer.get("/e/default")).status == 200
        answered.pool([{"word": "new"}])
        assert (await answered.batchgen("enqueue", "pool.jsonl")).code == 0
        answer = await viewer.get("/e/default")
        assert answer.status == 500
        assert "ZeroDivision" not in answer.text
        assert "overview.py" not in answer.text
        [said] = viewer.said
        assert "GET /e/default: ZeroDivisionError" in said


async def test_it_speaks_the_language_that_is_wished_for(viewer: Viewer) -> None:
    assert '<html lang="en"' in (await viewer.get("/e/default")).text
    chinese = await viewer.get("/e/default", {"Accept-Language": "zh-CN,zh;q=0.9"})
    assert '<html lang="zh"' in chinese.text
    assert "已完成" in chinese.text
    chosen = await viewer.get("/e/default?lang=zh")
    assert '<html lang="zh"' in chosen.text
    assert '<html lang="zh"' in (await viewer.get("/e/default")).text, "it is remembered"
    assert '<html lang="en"' in (await viewer.get("/e/default?lang=en")).text


async def test_a_page_that_is_live_is_sent_again_only_when_something_changed(
    viewer: Viewer, answered: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchgen.web.server.own_ms", lambda: 0)  # it is drawn anew at times, too
    page = await viewer.get("/e/default")
    [version] = re.findall(r'data-version="([^"]+)"', page.text)
    while (same := await viewer.get("/e/default", {"Batchgen-Seen": version})).status == 200:
        assert answered.server is not None, (
            "nothing has written"
        )  # a server's other databases count
        [version] = re.findall(r'data-version="([^"]+)"', same.text)
    assert (same.status, same.body) == (204, b"")
    answered.pool([{"word": "new"}])
    assert (await answered.batchgen("enqueue", "pool.jsonl")).code == 0
    fresh = await viewer.get("/e/default", {"Batchgen-Seen": version})
    assert fresh.status == 200
    assert "pending 1" in words(fresh.text)


async def test_what_stops_a_worker_is_asked_once_more(
    project: Project, simulator: Simulator
) -> None:
    project.pool({"word": f"w{number}"} for number in range(9))
    assert (await project.batchgen("enqueue", "pool.jsonl")).code == 0
    simulator.hold()
    process = await project.start("work", "-c", "4")
    await simulator.received(4)
    async with viewing(project) as viewer:
        page = (await viewer.get("/workers")).text
        assert 'action="/workers/stop"' not in page
        places = re.findall(r'<a [^>]*href="(/workers/stop[^"]*)"', page)
        assert places == ["/workers/stop?worker=1", "/workers/stop"]
        for place in places:
            asked = await viewer.get(place)
            assert (asked.status, simulator.in_flight) == (200, 4)
            assert "4 calls in flight will be finished and kept" in words(asked.text)
            assert "4 calls in flight will be abandoned" in words(asked.text)
            assert asked.text.count('<form method="post" action="/workers/stop">') == 2
            assert ('name="worker" value="1"' in asked.text) == ("=" in place)
        simulator.release()
        assert (await viewer.post("/workers/stop", {"now": "yes", "worker": "1"})).status == 303
        assert (await ended(process)).code == 143
        gone = await viewer.get(places[0])
        assert "No worker is running." in words(gone.text)
        assert (await viewer.get("/workers/stop?worker=x")).status == 404


async def test_workers_are_paused_set_resumed_and_stopped(
    project: Project, simulator: Simulator
) -> None:
    project.pool({"word": f"w{number}"} for number in range(60))
    assert (await project.batchgen("enqueue", "pool.jsonl")).code == 0
    simulator.hold()
    process = await project.start("work", "-c", "4")
    await simulator.received(4)
    async with viewing(project) as viewer:
        page = words((await viewer.get("/workers")).text)
        assert "4 / 4" in page
        paused = await viewer.post("/workers/pause", {})
        assert paused.status == 303
        told = words((await viewer.get(paused.place)).text)
        assert "1 worker told to pause. 4 calls in flight will be finished and kept." in told
        assert "batchgen pause" in told
        await until(project.database, PAUSED)
        assert "paused" in words((await viewer.get("/workers")).text)
        set_ = await viewer.post(
            "/workers/set", {"worker": "1", "slots": "9", "rpm": "", "tpm": ""}
        )
        told = words((await viewer.get(set_.place)).text)
        assert "1 worker told to take these settings. Slots by worker: 1: 4 → 9." in told
        assert "batchgen set --worker 1 -c 9" in told
        await until(project.database, SLOTS, 9)
        assert (await viewer.post("/workers/resume", {"worker": "1"})).status == 303
        assert (await viewer.post("/workers/stop", {})).status == 303
        told = words((await viewer.get("/workers")).text)
        assert "told to stop: what is in flight is finished first" in told
        stopped = await viewer.post("/workers/stop", {"now": "yes"})
        told = words((await viewer.get(stopped.place)).text)
        assert "1 worker told to stop." in told
        assert "batchgen stop --now" in told
        simulator.release()
        assert (await ended(process)).code == 143
        gone = await viewer.post("/workers/pause", {})
        assert gone.status == 409
        assert "no worker is running" in gone.text
        assert len(viewer.said) == 5


@pytest.mark.quick("form1", "form4")
@pytest.mark.parametrize(
    "form",
    [{}, {"slots": "0"}, {"slots": "x"}, {"rpm": "-1"}, {"tpm": "1.5"}, {"slots": "9" * 30},
     {"worker": "one", "slots": "1"}, {"rpm": "٣"}],
)  # fmt: skip
async def test_settings_that_are_none_are_refused(viewer: Viewer, form: dict[str, str]) -> None:
    answer = await viewer.post("/workers/set", form)
    assert answer.status == 400
    assert "/workers" in answer.text


async def test_with_read_only_nothing_can_be_changed(answered: Project) -> None:
    async with viewing(answered, read_only=True) as viewer:
        page = (await viewer.get("/workers")).text
        assert "<form" not in page
        assert "read-only" in page
        for order in ("pause", "resume", "set", "stop"):
            answer = await viewer.post(f"/workers/{order}", {"slots": "3"})
            assert answer.status == 403
            assert "--read-only" in answer.text


async def test_the_link_to_read_lets_nobody_change_anything(answered: Project) -> None:
    async with (
        viewing(answered, read_only=True) as reader,
        viewing(answered) as viewer,
        aiohttp.ClientSession() as stranger,
    ):
        for token, status in ((reader.token, 401), (viewer.token, 303)):
            link = f"{viewer.origin}/?token={token}"
            async with stranger.get(link, allow_redirects=False) as response:
                assert response.status == status


async def test_a_notice_is_no_text_of_the_address(viewer: Viewer) -> None:
    answer = await viewer.get("/workers?notice=All+workers+are+gone")
    assert answer.status == 200
    assert "All workers are gone" not in words(answer.text)


async def test_recipes_are_shown_and_compared(answered: Project) -> None:
    answered.config("parser: raw\n", temperature=0.5, extra_body={"headers": {"X-Key": "hush"}})
    answered.write("prompts/user_prompts/default.txt", "Say <b>{word}</b>\nnow\n")
    ran = await answered.batchgen("run", "pool.jsonl", "--recipe", "again")
    assert ran.code == 0, ran.err
    async with viewing(answered) as viewer:
        assert 'href="/recipes/2"' in (await viewer.get("/recipes")).text
        one = (await viewer.get("/recipes/2")).text
        assert "Say &lt;b&gt;{word}&lt;/b&gt;\nnow" in one
        assert "temperature: 0.5" in one
        assert "hush" not in one
        both = (await viewer.get("/recipes/compare?a=1&b=2")).text
        assert "<del>Say {word}</del>" in both
        assert "<ins>Say &lt;b&gt;{word}&lt;/b&gt;</ins>" in both
        assert "The same in both." in both  # the system prompt
        assert viewer.said == []


async def test_a_secret_that_got_into_an_answer_all_the_same_is_not_shown(
    answered: Project,
) -> None:
    answered.write("prompts/user_prompts/default.txt", f"Say {KEY} to {{word}}\n")
    ran = await answered.batchgen("run", "pool.jsonl", "--recipe", "again")
    assert ran.code == 0, ran.err
    async with viewing(answered) as viewer:
        page = (await viewer.get("/recipes/2")).text
        assert KEY not in page
        assert "Say [API key] to {word}" in page


@pytest.mark.slow
@pytest.mark.on_both_engines
async def test_a_worker_that_was_killed_is_said_to_be_gone(
    project: Project, simulator: Simulator
) -> None:
    project.pool([{"word": "w"}])
    assert (await project.batchgen("enqueue", "pool.jsonl")).code == 0
    simulator.hold()
    process = await project.start("work", "-c", "1")
    await simulator.received(1)
    async with viewing(project) as viewer:
        assert GONE not in words((await viewer.get("/workers")).text)
        process.kill()
        await process.wait()
        page = (await viewer.get("/workers")).text
        assert GONE in words(page)
        assert 'action="/workers/pause"' not in page, "there is nobody to be told"
    simulator.release()
