"""A `batchgen view` that runs meanwhile, and who asks it, as a browser does."""

import http.client
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from urllib.parse import urlsplit

from bench.project import Project


class Viewed:
    """Its pages, over one connection."""

    def __init__(self, pid: int, client: http.client.HTTPConnection, token: str) -> None:
        self.pid = pid
        self._client = client
        entered = self._get(f"/?{token}", {})
        entered.read()
        self._cookie = entered.headers["Set-Cookie"].partition(";")[0]

    def ask(self, page: str, **headers: str) -> bytes:
        """Empty where nothing has changed since, or where it leads elsewhere."""
        answer = self._get(page, {"Cookie": self._cookie, **headers})
        text = answer.read()
        assert answer.status in (200, 204, 302), f"{page}: {answer.status}"
        return text if answer.status == 200 else b""

    def _get(self, page: str, headers: dict[str, str]) -> http.client.HTTPResponse:
        self._client.request("GET", page, headers=headers)
        return self._client.getresponse()


@contextmanager
def viewed(project: Project) -> Iterator[Viewed]:
    command = [*project.command, "view", "--read-only"]
    with subprocess.Popen(command, cwd=project.path, stdout=subprocess.PIPE) as running:
        try:
            assert running.stdout is not None
            link = urlsplit(running.stdout.readline().decode().strip())
            with closing(http.client.HTTPConnection(link.netloc)) as client:
                yield Viewed(running.pid, client, link.query)
        finally:
            running.send_signal(signal.SIGINT)
