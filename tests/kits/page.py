"""The local web page, served in this process, and somebody who asks it as a program would."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from batchgen.cli.hints import commands, marked_hint
from batchgen.config import load
from batchgen.web import serve
from tests.kits.project import Project


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def place(self) -> str:
        """Where it leads."""
        return self.headers["Location"]


@dataclass(frozen=True)
class Viewer:
    """A server, and a client that has followed its link. `said` is what the server told of its own
    faults: mostly a test wants none."""

    link: str
    client: aiohttp.ClientSession
    said: list[str]

    @property
    def origin(self) -> str:
        return self.link.partition("/?")[0]

    @property
    def port(self) -> int:
        return urlsplit(self.link).port or 0

    @property
    def token(self) -> str:
        return self.link.partition("token=")[2]

    @property
    def cookie(self) -> tuple[str, str]:
        """Its name, and its value, which the link was exchanged for."""
        [one] = [one for one in self.client.cookie_jar if one.key.startswith("batchgen-8")]
        return one.key, one.value

    async def ask(self, method: str, path: str, **how: Any) -> Answer:
        """One request, as it is said: no redirect is followed."""
        request = self.client.request(method, self.origin + path, allow_redirects=False, **how)
        async with request as response:
            return Answer(response.status, response.headers, await response.read())

    async def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        return await self.ask("GET", path, headers=headers)

    async def post(
        self, path: str, form: Mapping[str, str], headers: Mapping[str, str] | None = None
    ) -> Answer:
        """As a form of the page is sent by a browser."""
        own = {"Sec-Fetch-Site": "same-origin", "Origin": self.origin}
        return await self.ask("POST", path, data=form, headers={**own, **(headers or {})})


@asynccontextmanager
async def viewing(project: Project, **options: Any) -> AsyncIterator[Viewer]:
    """The page of the project's database. Its port is the usual one, or the next that is free."""
    config = load(
        project.path / "config.yaml", env=project.env, cwd=project.path,
        overrides={"database": project.server.url} if project.server else {},
    )  # fmt: skip
    said: list[str] = []
    jar = aiohttp.CookieJar(unsafe=True)  # else it keeps none of an address
    async with (
        serve(
            config,
            called="batchgen",
            commands=commands(),
            hint_of=marked_hint,
            say=said.append,
            **options,
        ) as link,
        aiohttp.ClientSession(cookie_jar=jar) as client,
    ):
        async with client.get(link, allow_redirects=False) as response:
            assert response.status == 303
        yield Viewer(link, client, said)
