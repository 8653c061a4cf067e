"""What models and pools say is text on every page, whatever it looks like."""

import json

import pytest

from batchgen.simulate import Behaviour, Simulator
from tests.kits.browser import Browser
from tests.kits.page import Viewer, viewing
from tests.kits.project import Project

HOSTILE = (
    "<script>window.pwned = 1</script>"
    "<img src=x onerror='window.pwned = 2'>"
    "<svg onload=window.pwned=3><a href='javascript:window.pwned=4'>x</a></svg>"
    '"><iframe srcdoc="<script>parent.pwned=5</script>"></iframe>'
    "</pre></textarea></title></script><!-- --> {{7*7}} {% raw %} &lt;b&gt; &#x41;"
    " javascript:alert(1) https://evil.example/beacon.png"
)
STEERING = "a\u202egnp.exe\u2066 b\u200bc\u2060d e\x00f g\x1b[2J h"
DRAWN = 'iframe, main img, svg[onload], a[href^="javascript"]'
LONG_LINE = "0123456789" * 500_000


@pytest.fixture
async def hostile(project: Project, simulator: Simulator) -> Project:
    """1: as an answer, 2: as fields of a value, 3: as an error; each pool line and name, too. 4 is
    of five megabytes, and 5 cannot be seen."""
    project.config("parser: json\nwork: {max_attempts: 1}\n")
    value = json.dumps({HOSTILE: HOSTILE, "why": STEERING.replace("\x00", "")}, ensure_ascii=False)
    for word, said in {
        "one": Behaviour.ok(HOSTILE), "two": Behaviour.ok(value), "four": Behaviour.ok(LONG_LINE),
        "three": Behaviour.error(400, message=HOSTILE), "five": Behaviour.ok(STEERING),
    }.items():  # fmt: skip
        simulator.script(f"Say {word}", said)
    words = ["one", "two", "three", "four", "five"]
    project.pool({"word": word, "id": f"{word} {HOSTILE}", "extra": HOSTILE} for word in words)
    assert (await project.batchgen("run", "pool.jsonl", "-c", "1")).code == 3
    return project


async def harm(browser: Browser) -> list[object]:
    """What a page has done that it must not: nothing is drawn of what is text."""
    ran = await browser.run("return window.pwned")
    drawn = await browser.run(f"return document.querySelectorAll('{DRAWN}').length")
    said = [one for one in await browser.complaints() if "responded with a status of 4" not in one]
    return [one for one in (ran, drawn, *said) if one]


async def open_at(viewer: Viewer, browser: Browser, place: str) -> None:
    await browser.open(viewer.origin + place)


async def test_nothing_that_a_model_says_is_more_than_text(
    hostile: Project, browser: Browser
) -> None:
    async with viewing(hostile) as viewer:
        await browser.open(viewer.link)
        assert await harm(browser) == []
        places = ["/e/default", "/e/default/items", "/e/default/items?order=pool",
                  "/e/default/items?q=%3Cscript",
                  "/e/default/items?where=%3Cscript%3E", "/e/default/items?state=failed",
                  "/e/default/failures", "/e/default/fields",
                  "/e/default/retry?message=%3Cscript%3E%22'",
                  "/e/default/retry?reason=%3Cscript%3E",
                  *(f"/items/{n}" for n in range(1, 6)), "/items/1/diff?a=a1&b=a2",
                  "/items/1/diff?a=s1&b=s5", "/items/1/diff?a=%3Cscript%3E&b=a1"]  # fmt: skip
        for place in places:
            await open_at(viewer, browser, place)
            assert await harm(browser) == [], place
        assert viewer.said == []


@pytest.mark.slow
@pytest.mark.on_both_engines
async def test_a_text_is_shown_letter_by_letter(hostile: Project, browser: Browser) -> None:
    async with viewing(hostile) as viewer:
        await browser.open(viewer.link)
        await open_at(viewer, browser, "/items/1")
        texts = await browser.run(
            "return [...document.querySelectorAll('pre')].map(one => one.textContent)"
        )
        assert HOSTILE in texts
        await open_at(viewer, browser, "/items/2")
        texts = await browser.run(
            "return [...document.querySelectorAll('pre')].map(one => one.textContent)"
        )
        assert any(HOSTILE in json.loads(text) for text in texts if text.startswith("{\n"))


@pytest.mark.slow
@pytest.mark.on_both_engines
async def test_what_cannot_be_seen_is_marked(hostile: Project, browser: Browser) -> None:
    async with viewing(hostile) as viewer:
        await browser.open(viewer.link)
        await open_at(viewer, browser, "/items/5")
        marks = await browser.run(
            "return [...document.querySelector('pre:has(.mark)').querySelectorAll('.mark')]"
            ".map(one => one.textContent)"
        )
        nul = (
            [] if hostile.server else ["U+0000"]
        )  # a server keeps none: another character stands there
        assert marks == ["U+202E", "U+2066", "U+200B", "U+2060", *nul, "U+001B"]
        await open_at(viewer, browser, "/e/default/items?order=pool")
        assert "\u202e" not in await browser.text()


async def test_a_report_as_a_file_runs_nothing_but_its_plots(
    hostile: Project, browser: Browser
) -> None:
    assert (await hostile.batchgen("report", "-o", "run.html")).code == 0
    await browser.open((hostile.path / "run.html").as_uri())
    assert await harm(browser) == []
    drawn = "return [...document.querySelectorAll('figure')].map(one => one.plot?.data[1].length)"
    assert all(await browser.run(drawn))
    await browser.run("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    texts = await browser.run(
        "return [...document.querySelectorAll('pre')].map(one => one.textContent)"
    )
    assert any(HOSTILE in json.loads(text) for text in texts if text.startswith("{\n"))
    assert "\u202e" not in await browser.text()
    # Nothing else can be made to run in it: what is put there later is not its own.
    await browser.run(
        "document.body.append(Object.assign(document.createElement('script'),"
        " {textContent: 'window.pwned = 6'}))"
    )
    assert await browser.run("return window.pwned") is None
    assert "script-src" in " ".join(await browser.complaints())


async def test_five_megabytes_in_one_line_are_a_page_and_a_file(
    hostile: Project, browser: Browser
) -> None:
    async with viewing(hostile) as viewer:
        await browser.open(viewer.link)
        await open_at(viewer, browser, "/items/4")
        assert "4.9 MB more" in await browser.text()
        assert not await browser.run("return document.documentElement.scrollWidth > innerWidth")
        whole = await viewer.get("/items/4/attempts/4/raw")
        assert whole.text == LONG_LINE


async def test_rows_are_gone_through_by_keys(hostile: Project, browser: Browser) -> None:
    async with viewing(hostile) as viewer:
        await browser.open(viewer.link)
        await open_at(viewer, browser, "/e/default/items?order=pool")
        await browser.type("body", "jj")
        assert await browser.run("return document.activeElement.title") == "2"
        await browser.type(":focus", "k")
        assert await browser.run("return document.activeElement.title") == "1"
        await browser.type(":focus", "jo")
        await browser.until("location.pathname === '/items/2'")
        await browser.type("body", "j")
        await browser.until("location.pathname === '/items/3'")
        await browser.type("body", "u")
        await browser.until("location.pathname === '/e/default/items'")
        await browser.click("[data-keys-switch]")
        await browser.type("body", "j")
        assert not await browser.run("return document.activeElement.matches('th a')")
        await browser.click("[data-keys-switch]")
