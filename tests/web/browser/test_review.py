"""Reviewing by keys alone, in a real browser."""

import json
import re

from tests.kits.browser import Browser
from tests.kits.page import viewing
from tests.kits.project import Project

ROWS = 20


class _Keys:
    """Somebody who has no mouse."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser

    async def press(self, key: str) -> None:
        """One that leads to another page, which has loaded then."""
        before = await self._browser.run("return performance.timeOrigin")
        await self._browser.type("body", key)
        while True:
            after = await self._browser.run(
                "return document.readyState === 'complete' ? performance.timeOrigin : 0"
            )
            if after not in (0, before):
                return

    @property
    def item(self) -> int:
        return int(re.findall(r"item=(\d+)", self._browser.url)[0])


async def test_a_sample_is_reviewed_by_keys_alone(project: Project, browser: Browser) -> None:
    project.pool({"id": f"r{number}", "word": f"w{number}"} for number in range(1, 31))
    await project.batchgen("run", "pool.jsonl", "-c", "10")
    async with viewing(project) as viewer:
        await browser.open(viewer.link)
        await browser.open(f"{viewer.origin}/e/default/review?n={ROWS}&seed=7")
        keys, accepted, seen = _Keys(browser), set[int](), list[int]()
        for number in range(1, ROWS + 1):
            assert f"{number} of {ROWS}" in await browser.text("main")
            assert "n=20&seed=7" in browser.url
            item = keys.item
            seen.append(item)
            if number == 3:  # rejected by mistake, and taken back
                await keys.press("x")
                await keys.press("u")
                assert keys.item == item
            if number == 5:  # gone back to the one before, and forth again
                await keys.press("k")
                assert keys.item == seen[-2]
                await keys.press("j")
            await keys.press("x" if number % 4 == 0 else " " if number % 7 == 0 else "a")
            if number % 4 and number % 7:
                accepted.add(item)
        assert len(set(seen)) == ROWS
        assert "That was the last one." in await browser.text("main")
        assert f"5 of {ROWS - 2} rejected: 12.5 to 50.9 % (95 %)" in await browser.text("main")
        await browser.back()
        assert keys.item == seen[-1]
        assert f"{ROWS} of {ROWS}" in await browser.text("main")
        assert await browser.complaints() == []
        assert viewer.said == []
    out = await project.batchgen("export", "-o", "-", "--reviewed", "accepted")
    assert {json.loads(line)["id"] for line in out.out.splitlines()} == {
        f"r{item}" for item in accepted
    }


async def test_an_edit_is_typed_and_accepted_by_keys(project: Project, browser: Browser) -> None:
    project.pool([{"id": "r1", "word": "w1"}, {"id": "r2", "word": "w2"}])
    await project.batchgen("run", "pool.jsonl")
    async with viewing(project) as viewer:
        await browser.open(viewer.link)
        await browser.open(f"{viewer.origin}/e/default/review?n=2&seed=1")
        keys = _Keys(browser)
        first = keys.item
        await browser.type("body", "n")
        assert await browser.until("document.activeElement.id === 'note'")
        await browser.type("#note", "axe")  # letters, in a field
        await browser.type("#note", "\ue00c")  # Esc
        await browser.type("body", "e")
        assert await browser.until("document.activeElement.id === 'edited'")
        await browser.run("document.activeElement.value = 'Better.'")
        before = await browser.run("return performance.timeOrigin")
        await browser.type("#edited", "\ue009\ue007")  # Ctrl+Enter
        await browser.until(f"performance.timeOrigin !== {before}")
        assert keys.item != first
        await browser.click("[data-keys-switch]")
        await browser.run("document.activeElement.blur()")
        await browser.type("body", "a")
        assert "last=" in browser.url
        assert keys.item != first
        assert await browser.text("[data-keys-switch]")
        assert await browser.complaints() == []
    found = json.loads((await project.batchgen("review", "--json")).out)["reviews"]
    assert [(one["verdict"], one["note"], one["edited"]) for one in found] == [
        ("accepted", "axe", "Better.")
    ]
