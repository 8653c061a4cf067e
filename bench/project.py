"""What is measured on: the server, and a project with its config, template, pool and database."""

import json
import os
import shutil
import signal
import sqlite3
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.job import TEMPLATE, write_pool
from bench.measure import Running, Spent, spend, start

ROOT = Path(__file__).resolve().parent.parent
_CPUS = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else [0]
SERVER_CPU, CLIENT_CPU = _CPUS[0], _CPUS[-1]


@dataclass(frozen=True)
class Server:
    """A running `bench.server`."""

    base_url: str

    def stats(self) -> dict[str, Any]:
        return self._get("stats")

    def reset(self) -> None:
        self._get("reset")

    def _get(self, path: str) -> dict[str, Any]:
        root = self.base_url.removesuffix("/v1")
        with urllib.request.urlopen(f"{root}/{path}") as response:
            found: dict[str, Any] = json.load(response)
        return found


@contextmanager
def serving(
    *, cpu: int | None = SERVER_CPU, urgent: bool = False, **options: float
) -> Iterator[Server]:
    """A server in a process of its own; `options` are the flags of `bench.server`, `urgent` as
    in `measure.start`."""
    command = [sys.executable, "-m", "bench.server"]
    for name, value in ({} if cpu is None else {"cpu": cpu}).items() | options.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    ours, theirs = os.pipe()
    with os.fdopen(ours) as said, os.fdopen(theirs, "wb") as says:
        running = start(command, cwd=ROOT, stdout=says, urgent=urgent)
        says.close()
        try:
            yield Server(f"http://127.0.0.1:{int(said.readline())}/v1")
        finally:
            os.kill(running.pid, signal.SIGKILL)
            running.wait()


@dataclass(frozen=True)
class Project:
    """A directory to run batchgen in."""

    path: Path

    @property
    def database(self) -> Path:
        return self.path / "batchgen.db"

    @property
    def pool(self) -> Path:
        return self.path / "pool.jsonl"

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "batchgen"]

    def spend(
        self,
        *arguments: str,
        cpu: int | None = None,
        terminal: bool = False,
        urgent: bool = False,
    ) -> Spent:
        """Run batchgen here to its end. Raises RuntimeError unless it exits with 0."""
        command = [*self.command, *arguments]
        return done(spend(command, cpu, cwd=self.path, terminal=terminal, urgent=urgent))

    def start(self, *arguments: str, cpu: int | None = None) -> Running:
        return start([*self.command, *arguments], cpu, cwd=self.path)

    def reuse(self, enqueued: Path) -> None:
        """Put a copy of an enqueued database here, in place of the one there was."""
        for file in self.path.glob("batchgen.db*"):
            file.unlink()
        shutil.copyfile(enqueued, self.database)

    def query(self, sql: str) -> list[Any]:
        """Ask the database while nobody works on it."""
        with closing(sqlite3.connect(self.database)) as db:
            return db.execute(sql).fetchall()


def done(spent: Spent) -> Spent:
    """Raises RuntimeError, with what it printed, unless the process exited with 0."""
    if spent.exit_code:
        raise RuntimeError(f"exit {spent.exit_code}: {spent.output[-2000:]}")
    return spent


def make_project(path: Path, base_url: str, items: int, parser: str = "tag:draft") -> Project:
    """A project with `items` enqueued, of `bench.job`."""
    project = Project(path)
    prompts = path / "prompts" / "user_prompts"
    prompts.mkdir(parents=True, exist_ok=True)
    (prompts / "default.txt").write_text(TEMPLATE)
    set_server(project, base_url, parser)
    write_pool(project.pool, items)
    project.spend("enqueue", "pool.jsonl")
    return project


def set_server(project: Project, base_url: str, parser: str = "tag:draft") -> None:
    (project.path / "config.yaml").write_text(
        f"model: {{base_url: {base_url}, api_key: sk-bench-0123456789, model: simulated,"
        " max_tokens: 1000, temperature: 0.7}\n"
        f"parser: {json.dumps(parser)}\n"
    )
