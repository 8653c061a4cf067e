"""The command: one line with the link, and a quick end."""

import asyncio
import signal
import time
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests.kits.processes import Process
from tests.kits.project import Project, ended


async def link_of(process: Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


async def follow(client: aiohttp.ClientSession, link: str) -> tuple[int, str]:
    async with client.get(link) as response:
        return response.status, await response.text()


def browser() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))


@pytest.mark.quick("2")
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
async def test_it_prints_a_link_and_ends_at_once_though_tabs_are_open(
    answered: Project, signum: signal.Signals
) -> None:
    answered.env["XDG_STATE_HOME"] = str(answered.path / "state")
    process = await answered.start("view")
    link = await link_of(process)
    async with browser() as client:
        status, text = await follow(client, link)
        assert status == 200
        assert "default" in text
        began_at = time.monotonic()
        process.send_signal(signum)
        said = await ended(process)
        assert time.monotonic() - began_at < 3  # on a busy machine
    assert (said.code, said.out, said.err) == (0, "", "")


@pytest.mark.slow
@pytest.mark.on_both_engines
async def test_a_second_viewer_has_a_port_of_its_own_and_one_that_only_reads_a_token(
    answered: Project,
) -> None:
    first, second = await answered.start("view"), await answered.start("view", "--read-only")
    links = [urlsplit(await link_of(one)) for one in (first, second)]
    assert links[0].query != links[1].query
    assert links[0].port != links[1].port
    async with browser() as client:
        for link in links:
            assert (await follow(client, link.geturl()))[0] == 200
    taken = await answered.batchgen("view", "--port", str(links[0].port))
    assert (taken.code, taken.err) == (
        2, f"error: port {links[0].port} is in use; choose another one.\n"
    )  # fmt: skip
    for process in (first, second):
        process.terminate()
    codes = [one.code for one in await asyncio.gather(ended(first), ended(second))]
    assert codes == [0, 0]


@pytest.mark.only_sqlite("there the tables are made before a test")
async def test_without_a_database_it_says_what_to_do(project: Project) -> None:
    said = await project.batchgen("view")
    assert said.code == 2
    assert "no such database. Enqueue a data pool first (batchgen enqueue)" in said.err
