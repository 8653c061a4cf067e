"""Lists and what leads from them, in a real browser, for somebody who has read nothing."""

import json

from batchgen.simulate import Behaviour, Simulator
from tests.kits.browser import Browser
from tests.kits.page import viewing
from tests.kits.project import Project

TEXTS = {f"text{n}": "A text that goes on for longer than any column is wide." for n in range(5)}
SHORT = {"label": "positive", "score": 3, "is_spam": False, "n": 4}

# By how many pixels tables are wider than their place, and what is seen of the header of the first.
LOOK = """
const tables = [...document.querySelectorAll(".wide")];
const seen = [...document.querySelectorAll(".rows thead th")].filter((one) => one.offsetWidth);
return [Math.max(...tables.map((one) => one.scrollWidth - one.clientWidth)),
        seen.map((one) => one.textContent)];
"""
OPEN = "return [location.hash, document.querySelector(location.hash).open]"


async def test_every_column_of_a_list_is_in_sight(
    project: Project, simulator: Simulator, browser: Browser
) -> None:
    simulator.script("Say", *[Behaviour.ok(json.dumps({**TEXTS, **SHORT}))] * 3)
    simulator.script("Say", Behaviour.ok("no JSON " * 50))
    project.config("parser: json\n", price={"input_usd_per_mtok": 100, "output_usd_per_mtok": 1})
    project.pool({"word": "w" * 300, "id": f"an-id-of-some-length-{n:010}"} for n in range(4))
    assert (await project.batchgen("run", "pool.jsonl", "-c", "1")).code == 3
    async with viewing(project) as viewer:
        await browser.open(viewer.link)
        for width, columns in ((1280, 13), (800, 8)):
            await browser.look(width)
            await browser.open(f"{viewer.origin}/e/default/items")
            wider, heads = await browser.run(LOOK)
            assert (wider, len(heads), heads[-1]) == (0, columns, "cost"), heads
        assert await browser.complaints() == []


async def test_the_slowest_call_is_found_by_its_time(project: Project, browser: Browser) -> None:
    project.pool({"word": f"w{number}"} for number in range(5))
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    slowest = "select seq from attempts order by latency_ms desc, seq limit 1"
    [(seq,)] = project.query(slowest)
    async with viewing(project) as viewer:
        await browser.open(viewer.link)
        await browser.click("a[href='#of-slowest']")
        await browser.click("#slowest tbody a")
        assert await browser.run(OPEN) == [f"#attempt-{seq}", True]
        assert await browser.complaints() == []
