"""The page of batches in a browser: it goes on by itself, and can be read by everybody."""

import pytest

from batchgen.simulate import Simulator
from tests.kits.browser import Browser
from tests.kits.page import viewing
from tests.kits.project import Project
from tests.kits.sealing import Sealer
from tests.web.browser.test_access import serious


@pytest.mark.on_both_engines
async def test_what_the_provider_says_is_there_without_a_reload(
    browser: Browser, project: Project, simulator: Simulator
) -> None:
    simulator.hold()
    project.pool({"word": f"w{n}"} for n in range(20))
    assert (await project.batchgen("enqueue", "pool.jsonl")).code == 0
    sealer = Sealer(project)
    batch = await sealer.seal(9)
    await sealer.seal(2, is_made=False)
    await sealer.close((await sealer.seal(1)).number, "refused whole: " + "no room " * 40)
    async with viewing(project) as viewer:
        await browser.open(viewer.link)
        await browser.click('nav a[href="/batches"]')
        assert await browser.text("h1") == "Batches"
        async with sealer.store() as store:
            await store.batches.note(
                batch.number, status="finalizing", answered=7, failed=1, expires_at=None
            )
        await browser.until("document.querySelector('#batch-1').innerText.includes('finalizing')")
        assert "7 / 9" in await browser.text("#batch-1")
        for width, dark in ((1280, False), (800, True)):
            await browser.look(width, dark=dark)
            assert await serious(browser) == []
            is_wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
            assert not await browser.run(f"return {is_wide}")
        await browser.open(f"{viewer.origin}/items/2")
        assert f"in batch 1 ({batch.batch_id}), 77 % answered" in await browser.text()
        await browser.click('a[href="/batches#batch-1"]')
        assert browser.url == f"{viewer.origin}/batches#batch-1"
        assert await browser.complaints() == []
