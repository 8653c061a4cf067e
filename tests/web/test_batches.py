"""The page of what is at providers, and what other pages say of rows in provider batches."""

import re
from collections.abc import AsyncIterator

import pytest

from batchgen.simulate import Simulator
from batchgen.store import WorkerKind
from tests.kits.page import Viewer, viewing
from tests.kits.project import KEY, Project
from tests.kits.sealing import Sealer
from tests.web.test_pages import words

IN_CHINESE = {"Accept-Language": "zh-CN"}


@pytest.fixture
async def sealer(project: Project, simulator: Simulator) -> Sealer:
    """Ten pending rows; batches at the provider stay as they are."""
    simulator.hold()
    project.pool({"word": f"w{n}"} for n in range(10))
    assert (await project.batchgen("enqueue", "pool.jsonl")).code == 0
    return Sealer(project)


@pytest.fixture
async def viewer(sealer: Sealer) -> AsyncIterator[Viewer]:
    async with viewing(sealer.project) as made:
        yield made
        assert made.said == []


async def test_it_is_in_the_navigation_when_there_are_any(viewer: Viewer, sealer: Sealer) -> None:
    page = (await viewer.get("/e/default")).text
    assert 'href="/batches"' not in page
    assert "batch" not in words(page).replace("batchgen", "")
    none = words((await viewer.get("/batches")).text)
    assert "There are no provider batches. To send what is pending in some, at their" in none
    assert "batchgen work --batch" in none
    await sealer.seal(2)
    for place in ("/e/default", "/workers", "/e/default/failures"):
        assert '<a href="/batches">Batches</a>' in (await viewer.get(place)).text
    assert '<a href="/batches" aria-current="page">' in (await viewer.get("/batches")).text


@pytest.mark.on_both_engines
async def test_each_is_told_with_its_state(viewer: Viewer, sealer: Sealer) -> None:
    first = await sealer.seal(2)
    await sealer.seal(1, is_made=False)
    await sealer.end((await sealer.seal(1)).number, "expired")
    await sealer.close((await sealer.seal(1)).number, "refused whole: <b>no</b> room")
    answer = await viewer.get("/batches")
    page = words(answer.text)
    assert re.search(
        rf"1 default simulated validating {first.batch_id} 0 / 2 0 \d+ s (23 h 59|24 h 0) min", page
    )
    assert "2 default simulated not known yet whether the provider has it 0 / 1 0" in page
    assert re.search(r"3 default simulated expired: to be collected batch_\w+ 1 / 1 0 ", page)
    assert "closed: refused whole: &lt;b&gt;no&lt;/b&gt; room" in page
    assert "No sender is at work. To go on with them: batchgen work --batch" in page
    assert "batchgen batches --cancel 1" in page
    assert page.endswith("batchgen batches Copy")
    assert KEY not in answer.text
    in_chinese = words((await viewer.get("/batches", IN_CHINESE)).text)
    for said in ("尚不清楚服务商是否已有它", "expired：待取回", "已关闭：整体被拒绝：", "批任务"):
        assert said in in_chinese
    assert not re.search(r"not known|collected|closed|expires|answered", in_chinese)


async def test_of_many_that_are_closed_the_last_ones_are_there(
    viewer: Viewer, sealer: Sealer
) -> None:
    for _ in range(11):
        await sealer.close((await sealer.seal(1)).number, "given up for lost")
    page = (await viewer.get("/batches")).text
    assert page.count("closed: given up for lost") == 10
    assert "No sender" not in page
    assert 'href="/batches?all=yes"' in page
    everything = (await viewer.get("/batches?all=yes", IN_CHINESE)).text
    assert everything.count("已关闭：已放弃") == 11
    assert "batchgen batches --all" in everything


@pytest.mark.on_both_engines
async def test_rows_in_batches_are_not_in_flight(viewer: Viewer, sealer: Sealer) -> None:
    batch = await sealer.seal(3)
    line = "Batches: 1 at the provider; 0 of 3 answered, oldest 0:00"
    page = words((await viewer.get("/e/default")).text)
    assert f"{line} . No sender is at work. To go on with them: batchgen work --batch" in page
    assert "in flight 0" in page
    assert "in batches 3" in page
    item = (await viewer.get("/items/2")).text
    assert (
        f'<a href="/batches#batch-1">in batch 1 ({batch.batch_id}), 0 % answered, since 0:00</a>'
    ) in item
    listed = (await viewer.get("/e/default/items?state=running")).text
    assert "in flight, in batches 3" in words(listed)
    assert listed.count('<a class="quiet" href="/batches#batch-1">in batch 1</a>') == 3
    everything = words((await viewer.get("/e/default/items?order=pool")).text)
    assert everything.count("in batches") >= 3
    in_chinese = words((await viewer.get("/items/2", IN_CHINESE)).text)
    assert f"在批任务 1（{batch.batch_id}）中，已回答 0 %，已 0:00" in in_chinese
    unheard = await sealer.seal(1, is_made=False)
    assert unheard.number == 2
    item = words((await viewer.get("/items/4")).text)
    assert "in batch 2, not known yet whether the provider has it, since 0:00" in item


async def test_a_call_says_in_which_batch_it_was(viewer: Viewer, sealer: Sealer) -> None:
    await sealer.seal(2)
    done = await sealer.project.batchgen("batches", "--abandon", "1", "--yes")
    assert done.code == 0
    item = (await viewer.get("/items/2")).text
    assert '· <a href="/batches#batch-1">in batch 1</a>' in item
    assert "#batch-1" not in (await viewer.get("/items/5")).text


async def test_a_report_has_them_too(sealer: Sealer) -> None:
    await sealer.seal(3)
    said = await sealer.project.batchgen("report", "-o", "run.html", "--sample", "0")
    assert said.code == 0, said.err
    page = words((sealer.project.path / "run.html").read_text(encoding="utf-8"))
    assert "done 0 failed 0 pending 7 in batches 3" in page


async def test_several_experiments_have_theirs(viewer: Viewer, sealer: Sealer) -> None:
    project = sealer.project
    project.pool([{"word": "x"}, {"word": "y"}], name="other.jsonl")
    await project.batchgen("enqueue", "other.jsonl", "--experiment", "other")
    await sealer.seal(2, "other")
    page = words((await viewer.get("/")).text)
    assert "in flight in batches pending cost" in page
    assert "other 0 % 0 0 0 2 0" in page
    assert "default 0 % 0 0 0 0 10" in page


async def test_a_sender_is_told_as_what_it_is(viewer: Viewer, sealer: Sealer) -> None:
    await sealer.seal(1)
    async with (
        sealer.store() as store,
        store.seat(1, 30.0, 3, kind=WorkerKind.SENDER) as seat,
    ):
        page = words((await viewer.get("/workers")).text)
        assert re.search(
            rf"\b{seat.id} \S+, pid \d+ sends and collects provider batches at work", page
        )
        assert "No sender is at work" not in words((await viewer.get("/batches")).text)
        assert "No sender is at work" not in words((await viewer.get("/e/default")).text)
        in_chinese = words((await viewer.get("/workers", IN_CHINESE)).text)
    assert "发送并取回批任务" in in_chinese


async def test_steps_have_their_own(project: Project, simulator: Simulator) -> None:
    simulator.hold()
    project.config(
        "steps:\n  - {name: draft, user: {text: 'Write {word}'}}\n"
        "  - {name: judge, user: {text: 'Judge {draft}'}}\n"
    )
    project.pool([{"word": "a"}, {"word": "b"}])
    assert (await project.batchgen("enqueue", "pool.jsonl")).code == 0
    await Sealer(project).seal(2, "default/draft")
    async with viewing(project) as viewer:
        page = words((await viewer.get("/e/default")).text)
        assert "draft done 0 in batches 2" in page
        assert "default/draft" in words((await viewer.get("/batches")).text)
    shown = await project.batchgen("show", "#1")
    assert re.search(r"running +0 calls +in batch 1 \(batch_\w+\), 0 % answered", shown.out)
    assert re.search(r"--- draft \(1\): running: in batch 1 \(batch_", shown.out)
    listed = await project.batchgen("batches", "--experiment", "default/draft", "--json")
    assert [one["experiment"] for one in listed.json] == ["default/draft"]
