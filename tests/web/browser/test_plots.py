"""Plots, in a real browser, while a worker works."""

import asyncio

from tests.kits.browser import Browser
from tests.kits.page import viewing
from tests.kits.project import Project

PRICE = {"input_usd_per_mtok": 1, "output_usd_per_mtok": 1_000}
_TABLE = """
return [...document.querySelectorAll("#plot-lengths details tbody tr")].map(
  (row) => [...row.children].map((cell) => cell.textContent))
"""
_SEEN = """
const figure = document.getElementById(arguments[0]), canvas = figure.querySelector("canvas");
return [canvas.getAttribute("role"), canvas.getAttribute("aria-label"), figure.plot.data[0].length];
"""
_LINK = "return document.querySelector('#plot-latency details tbody a').pathname"
_COLOUR = "return document.getElementById('plot-rate').plot.series[1].stroke()"


async def test_plots_have_what_a_worker_does_while_it_does_it(
    project: Project, browser: Browser
) -> None:
    project.config(price=PRICE, max_tokens=100)
    project.pool({"word": f"w{number}"} for number in range(40))
    assert (await project.batchgen("enqueue", "pool.jsonl")).code == 0
    async with viewing(project) as viewer:
        await browser.open(viewer.link)
        await browser.open(f"{viewer.origin}/e/default")
        await browser.until("Number(document.documentElement.dataset.ready) >= 2")
        assert await browser.run("return document.getElementById('plots').hidden")
        working = asyncio.create_task(project.batchgen("work", "--max-cost", "500"))
        await browser.until(
            "document.getElementById('plot-lengths').plot?.data[1].reduce((a, b) => a + b) === 40"
        )
        assert (await working).code == 0
        for key in ("rate", "latency", "lengths"):
            canvas = f"document.querySelector('#plot-{key} canvas')"
            assert await browser.run(f"return {canvas}.getAttribute('role')") == "img"
            assert str(await browser.run(f"return {canvas}.getAttribute('aria-label')")).endswith(
                "."
            )
            assert await browser.run(
                f"return document.getElementById('plot-{key}').plot.data[0].length"
            )
        await browser.click("#plot-lengths summary")
        await browser.until("document.querySelector('#plot-lengths details tbody tr') !== null")
        data = await browser.run("return document.getElementById('plot-lengths').plot.data[1]")
        table = await browser.run(_TABLE)
        assert [int(n) for _, n in table] == data
        assert sum(data) == 40
        await browser.click("#plot-latency summary")
        await browser.until("document.querySelector('#plot-latency details tbody a') !== null")
        link = await browser.run(
            "return document.querySelector('#plot-latency details tbody a').pathname"
        )
        assert str(link).startswith("/calls/")
        light = await browser.run(
            "return document.getElementById('plot-rate').plot.series[1].stroke()"
        )
        before = await browser.run("return Number(document.documentElement.dataset.ready)")
        await browser.look(dark=True)
        await browser.until(f"Number(document.documentElement.dataset.ready) > {before}")
        dark = await browser.run(
            "return document.getElementById('plot-rate').plot.series[1].stroke()"
        )
        assert light != dark
        assert await browser.complaints() == []
        assert viewer.said == []
