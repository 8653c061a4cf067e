"""Every page for people who do not see it, or not well: nothing that axe-core finds serious, in the
light and in the dark, in both languages."""

import json
from functools import cache
from importlib.resources import files

import pytest

from batchgen.simulate import Behaviour, Simulator
from tests.kits.browser import Browser
from tests.kits.page import Viewer, viewing
from tests.kits.project import Project

CHAIN = """
steps:
- name: draft
  user: {text: "Draft {word}"}
- name: judge
  user: {text: "Judge {draft}"}
  parser: json
"""
PLACES = (
    "/e/default", "/e/default/items", "/e/default/items?where=nothing+is+read", "/items/2",
    "/items/5", "/items/5/diff?a=s5&b=s6",
    "/e/default/failures", "/e/default/retry", "/e/default/fields", "/e/default/review",
    "/e/default/review?n=2&seed=1",
    "/recipes", "/recipes/compare?a=1&b=2", "/workers", "/batches", "/nowhere",
)  # fmt: skip

RUN = """
const how = {resultTypes: ["violations"], runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]};
return axe.run(how).then((found) => found.violations
  .filter((one) => ["serious", "critical"].includes(one.impact))
  .map((one) => [one.id, ...one.nodes.slice(0, 3).map((node) => node.html.slice(0, 200))]));
"""


@cache
def axe() -> str:
    """The program itself; nothing of the package around it is used."""
    return (files("axe_core_python") / "axe.min.js").read_text(encoding="utf-8")


async def serious(browser: Browser) -> object:
    await browser.until("document.documentElement.dataset.ready !== '0'")
    await browser.run(axe())
    return await browser.run(RUN)


@pytest.fixture
async def busy(project: Project, simulator: Simulator) -> Project:
    """Two steps, rows that are done and some that failed, and reviews."""
    project.config(CHAIN + "work: {max_attempts: 1}\n")
    verdicts = [json.dumps({"score": n, "why": "short"}) for n in range(3)]
    simulator.script("Judge", *map(Behaviour.ok, verdicts))
    simulator.script("Draft w3", Behaviour.error(400, message="too long"))
    project.pool({"word": f"w{number}"} for number in range(5))
    assert (await project.batchgen("run", "pool.jsonl", "-c", "1")).code == 3
    [(done,)] = project.query("select max(item_id) from work where state = 'done'")
    assert (await project.batchgen("review", str(done), "--accept")).code == 0
    return project


@pytest.mark.quick("en")
@pytest.mark.parametrize(("language", "dark"), [("en", False), ("zh", True)])
async def test_no_page_keeps_anybody_out(
    busy: Project, browser: Browser, language: str, *, dark: bool
) -> None:
    async with viewing(busy) as viewer:
        await browser.open(viewer.link)
        found = {
            place: problems
            for place in PLACES
            if (problems := await _seen(browser, viewer, place, language, dark=dark))
        }
        assert found == {}
        assert viewer.said == []


async def test_no_report_keeps_anybody_out(busy: Project, browser: Browser) -> None:
    assert (await busy.batchgen("report", "-o", "run.html")).code == 0
    await browser.open((busy.path / "run.html").as_uri())
    assert await serious(browser) == []
    await browser.run("document.querySelector('main').append(document.createElement('input'))")
    assert await serious(browser) == [["label", "<input>"]]  # so it does look


async def _seen(
    browser: Browser, viewer: Viewer, place: str, language: str, *, dark: bool
) -> object:
    await browser.look(800 if dark else 1280, dark=dark)
    mark = "&" if "?" in place else "?"
    await browser.open(f"{viewer.origin}{place}{mark}lang={language}")
    return await serious(browser)
