"""What only a real browser can show: what it lets other sites do, and pages that go on by
themselves."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from batchgen.simulate import Simulator
from tests.kits.browser import EVIL, Browser
from tests.kits.crashes import until
from tests.kits.page import Viewer, viewing
from tests.kits.project import Project, ended

PAUSED = "select count(*) from workers where report like '%\"paused\":true%'"
ORDERED = "select count(*) from workers where paused = 1"


@asynccontextmanager
async def another_site(page: str) -> AsyncIterator[str]:
    """On another port of this machine, which is the same site to a browser."""

    async def show(_: web.BaseRequest) -> web.Response:
        return web.Response(text=page, content_type="text/html")

    runner = web.ServerRunner(web.Server(show, access_log=None))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{site.port}/"
    finally:
        await runner.cleanup()


async def test_nobody_else_gets_in(browser: Browser, viewer: Viewer) -> None:
    await browser.open(f"{viewer.origin}/e/default")
    assert "the link that batchgen view has printed" in await browser.text()
    await browser.open(f"http://{EVIL}:{viewer.port}/?token={viewer.token}")
    assert "not a name of this server" in await browser.text()
    await browser.open(viewer.link)
    assert browser.url == f"{viewer.origin}/e/default"
    assert "default" in await browser.text("h1")
    await browser.open(f"http://{EVIL}:{viewer.port}/e/default")
    assert "not a name of this server" in await browser.text()


@pytest.mark.on_both_engines
@pytest.mark.slow
async def test_another_port_of_this_machine_gives_no_order_and_sees_nothing(
    browser: Browser, project: Project, simulator: Simulator
) -> None:
    project.pool([{"word": "w"}])
    assert (await project.batchgen("enqueue", "pool.jsonl")).code == 0
    simulator.hold()
    worker = await project.start("work", "-c", "1")
    await simulator.received(1)
    async with viewing(project) as viewer:
        await browser.open(viewer.link)  # so the cookie is there, and sent to any port
        order = f"{viewer.origin}/workers/pause"
        form = f'<form method="post" action="{order}"><button>x</button></form>'
        async with another_site(form) as site:
            await browser.open(site)
            await browser.click("button")
            assert browser.url == order
            assert "Another site asked for this" in await browser.text()
        asks = f"""<p id="said"></p><script>
            const tries = [
              fetch("{order}", {{method: "POST", mode: "no-cors", credentials: "include",
                body: new URLSearchParams()}}),
              fetch("{order}", {{method: "DELETE", credentials: "include"}}),
              fetch("{viewer.origin}/e/default", {{credentials: "include"}}),
            ];
            Promise.allSettled(tries).then((all) => {{
              document.getElementById("said").textContent =
                all.map((one) => one.status + (one.value ? one.value.type : "")).join(" ");
            }});
            </script><iframe src="{viewer.origin}/e/default"></iframe>"""
        async with another_site(asks) as site:
            await browser.open(site)
            said = await browser.until("document.getElementById('said').textContent")
            # The first was sent, as it needs no leave, and refused; nobody sees how.
            assert said in ("fulfilledopaque rejected rejected", "rejected rejected rejected")
            complaints = " ".join(await browser.complaints())
            assert "frame-ancestors" in complaints or "X-Frame-Options" in complaints
        assert viewer.said == []
    assert project.query(ORDERED) == [(0,)]
    simulator.release()
    assert (await ended(worker)).code == 0


async def test_numbers_follow_a_run_that_is_paused_from_the_page(
    browser: Browser, project: Project, simulator: Simulator
) -> None:
    project.pool({"word": f"w{number}"} for number in range(30))
    assert (await project.batchgen("enqueue", "pool.jsonl")).code == 0
    async with viewing(project) as viewer:
        await browser.open(viewer.link)
        tiles = "document.getElementById('tiles').innerText.replace(/\\s+/g, ' ')"
        assert "pending 30" in await browser.run(f"return {tiles}")
        simulator.hold()
        worker = await project.start("work", "-c", "3")
        await simulator.received(3)
        assert await browser.until(f"/in flight [1-9]/.test({tiles})")

        await browser.open(f"{viewer.origin}/workers")
        await browser.click("#orders form[action$=pause] button")
        assert "1 worker told to pause. 3 calls in flight will be finished" in await browser.text()
        await until(project.database, PAUSED)
        simulator.release()
        assert await browser.until("document.getElementById('workers').innerText.includes('0 / 3')")
        assert simulator.calls == 3
        assert (
            await browser.run("return document.querySelectorAll('[data-copy][hidden]').length") == 0
        )

        await browser.click("#workers form[action$=resume] button")
        await browser.open(f"{viewer.origin}/e/default")
        assert await browser.until(f"{tiles}.includes('done 30')")
        assert (await ended(worker)).code == 0
        assert await browser.complaints() == []
        assert len(viewer.said) == 2


STATE = "document.getElementById('state').textContent"
LIVES = "document.documentElement.dataset.ready > 1"


class _Way:
    """What a tunnel is: it passes on what comes to its port, until it is cut."""

    def __init__(self, to: int) -> None:
        self._to = to
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        assert self._server is not None
        self._server.close()
        for one in self._open:
            one.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._to)
        ends = {writer, back}
        self._open |= ends
        await asyncio.gather(_copy(reader, back), _copy(there, writer))
        self._open -= ends


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(1 << 16):
            target.write(data)
            await target.drain()
    except ConnectionError:
        pass
    target.close()


async def test_a_server_that_is_away_is_told_and_waited_for(
    browser: Browser, viewer: Viewer
) -> None:
    way = _Way(viewer.port)
    await way.open()
    await browser.open(viewer.link.replace(f":{viewer.port}/", f":{way.port}/"))
    assert await browser.until(LIVES)
    await way.cut()
    assert await browser.until(f"{STATE}.startsWith('No answer since')")
    await way.open()
    assert await browser.until(f"{STATE} === ''")
    await way.cut()


@pytest.mark.only_sqlite("its database is a file that can be put away")
async def test_an_open_page_tells_that_its_database_is_gone_and_back(
    browser: Browser, viewer: Viewer, answered: Project
) -> None:
    await browser.open(viewer.link)
    away = answered.file.with_name("away.db")
    answered.file.rename(away)
    assert await browser.until(f"{STATE}.includes('deleted or replaced while in use')")
    away.rename(answered.file)
    assert await browser.until(f"{STATE} === ''")


@pytest.mark.quick("en")
@pytest.mark.parametrize(("language", "words"), [
    ("en", "Open the link that the present one has printed"), ("zh", "请打开当前 batchgen view"),
])  # fmt: skip
async def test_a_page_of_a_viewer_that_has_ended_says_so_and_asks_the_next_one_no_more(
    browser: Browser, answered: Project, language: str, words: str
) -> None:
    async with viewing(answered) as viewer:
        await browser.open(viewer.link)
        await browser.open(f"{viewer.origin}/e/default?lang={language}")
        assert await browser.until(LIVES)
    async with viewing(answered, port=viewer.port):
        assert await browser.until(f"{STATE}.includes('{words}')")
        drawn = await browser.run("return document.documentElement.dataset.ready")
        # As if it was looked at once more.
        await browser.run("document.dispatchEvent(new Event('visibilitychange'))")
        assert await browser.run("return timer") is None
        assert await browser.run("return document.documentElement.dataset.ready") == drawn
        await browser.open(f"{viewer.origin}/e/default")
        assert words in await browser.text()
        await browser.open(viewer.link)  # as the token stays
        assert await browser.text("h1") == "default"


async def test_who_takes_the_port_of_a_viewer_that_has_ended_is_sent_no_cookie_by_its_pages(
    browser: Browser, answered: Project
) -> None:
    asked: asyncio.Queue[web.BaseRequest] = asyncio.Queue()

    async def take(request: web.BaseRequest) -> web.Response:
        asked.put_nowait(request)
        return web.Response(status=200)

    async with viewing(answered) as viewer:
        await browser.open(viewer.link)
        assert await browser.until(LIVES)
    runner = web.ServerRunner(web.Server(take, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", viewer.port).start()
    try:
        request = await asyncio.wait_for(asked.get(), 60)
    finally:
        await runner.cleanup()
    assert "Cookie" not in request.headers
    assert viewer.token not in str(request.raw_headers)


@pytest.mark.on_both_engines
@pytest.mark.slow
async def test_ten_tabs_are_all_live(browser: Browser, viewer: Viewer) -> None:
    await browser.open(viewer.link)
    for _ in range(9):
        await browser.new_tab()
        await browser.open(f"{viewer.origin}/e/default")
        assert await browser.text("h1") == "default"
    assert await browser.until("document.documentElement.dataset.ready > 1")
    assert await browser.complaints() == []


async def test_no_script_but_ours_runs_and_nothing_is_loaded_from_outside(
    browser: Browser, viewer: Viewer
) -> None:
    """What the other tests rely on: the browser complains where the policy forbids something."""
    await browser.open(viewer.link)
    assert await browser.complaints() == []
    for markup in (
        "<img src='http://elsewhere.example/x.png'>",
        "<img src=x onerror='window.pwned = 1'>",
        "<p style='color: red'>",
    ):
        await browser.run("document.querySelector('h1').innerHTML = arguments[0]", markup)
        assert await browser.run("return window.pwned") is None
    complaints = " ".join(await browser.complaints())
    assert "violates the following Content Security Policy directive" in complaints
    assert "style-src" in complaints
    assert "img-src" in complaints
