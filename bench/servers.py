"""What `work` gets from two servers of different speed at once, against what each gives alone; and
what becomes of a run of which one server is killed and comes back.

All of it runs at the same time, each with servers of its own in processes of their own: so a busy
machine slows what is compared alike.
"""

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.measure import Figure, Options, Running, Table
from bench.project import Project, make_project
from bench.simulated import simulating

NAME = "servers"
_FINDING_S, _SECONDS, _QUICK_SECONDS = 20, 120, 60
_KILLED_S, _BACK_AFTER_S = 20, 20
_GOAL = 0.95


@dataclass(frozen=True)
class Kind:
    """A server with such a latency, and the slots that a worker has there."""

    name: str
    latency: str
    slots: int


FAST, SLOW = Kind("fast", "uniform:0.8:1.2", 30), Kind("slow", "uniform:2:4", 20)


def run(options: Options) -> Table:
    seconds = _QUICK_SECONDS if options.quick else _SECONDS
    back_at = _FINDING_S + _KILLED_S
    total = max(seconds, back_at + _BACK_AFTER_S + 20)
    with ExitStack() as stack:
        jobs = {
            name: stack.enter_context(_working(options.work_dir / name, kinds, total))
            for name, kinds in {
                "fast": (FAST,), "slow": (SLOW,), "both": (FAST, SLOW), "killed": (FAST, SLOW),
            }.items()
        }  # fmt: skip
        begun = time.time()
        time.sleep(_FINDING_S)
        jobs["killed"].servers[1].kill()
        time.sleep(_KILLED_S)
        jobs["killed"].servers[1].start()
        time.sleep(max(0.0, begun + total - time.time()))
        for job in jobs.values():
            job.stop()

    def per_s(name: str, start_s: float, end_s: float) -> float:
        return jobs[name].per_s(begun, start_s, end_s)

    fast, slow = (per_s(name, _FINDING_S, total) for name in ("fast", "slow"))
    both = per_s("both", _FINDING_S, total)
    while_killed = (_FINDING_S + 5, back_at)
    once_back = (back_at + _BACK_AFTER_S, total)
    shares = {
        "both": both / (fast + slow),
        "the slow one killed": per_s("killed", *while_killed) / per_s("fast", *while_killed),
        "it is back": per_s("killed", *once_back) / per_s("both", *once_back),
    }
    wrong = jobs["killed"].lost_or_twice()
    rows = (
        ("fast alone", f"{fast:.1f}", ""),
        ("slow alone", f"{slow:.1f}", ""),
        ("both", f"{both:.1f}", f"{shares['both']:.2f} of their sum"),
        ("the slow one killed", f"{per_s('killed', *while_killed):.1f}",
         f"{shares['the slow one killed']:.2f} of the fast one at that time"),
        (f"it is back for {_BACK_AFTER_S} s", f"{per_s('killed', *once_back):.1f}",
         f"{shares['it is back']:.2f} of both at that time"),
    )  # fmt: skip
    figures = (
        *(Figure(f"{name}: share", share, "", f">= {_GOAL}", share >= _GOAL)
          for name, share in shares.items()),
        Figure("answered twice, or lost", wrong, "items", "0", wrong == 0),
    )  # fmt: skip
    return Table(
        title=f"Servers: `work` at one of {FAST.slots} slots, one of {SLOW.slots}, for {total} s",
        columns=("servers", "answers/s", "share"),
        rows=rows,
        figures=figures,
        notes=(
            "The servers are `batchgen simulate` in processes of their own, the fast one with a "
            "latency of about a second and the slow one of three; the figures are from their "
            "ledgers. Killed is SIGKILL; `batchgen verify` proves the database in the end.",
        ),
    )  # fmt: skip


class _Server:
    """A simulated one, which can be killed, and started again at its port."""

    def __init__(self, place: Path, kind: Kind) -> None:
        self.kind = kind
        self.ledger = place / "ledger.jsonl"
        self._place = place
        self._port = _free_port()
        self._running = ExitStack()
        self.url = ""

    def start(self) -> None:
        options = ("--latency", self.kind.latency, "--port", str(self._port))
        self.url = self._running.enter_context(simulating(self._place, *options))

    def kill(self) -> None:
        self._running.close()

    def answered_at(self) -> list[float]:
        """When each call came that was answered; those of a server that is killed count until
        then."""
        with self.ledger.open() as lines:
            calls = [json.loads(line) for line in lines]
        return [call["time"] for call in calls if call["outcome"] == "ok"]


class _Job:
    def __init__(self, project: Project, servers: list[_Server], worker: Running) -> None:
        self.servers = servers
        self._project = project
        self._worker = worker

    def stop(self) -> None:
        """Drains, and proves the database."""
        os.kill(self._worker.pid, signal.SIGTERM)
        self._worker.wait(timeout_s=60)
        self._project.spend("verify")

    def per_s(self, begun: float, start_s: float, end_s: float) -> float:
        calls = [at - begun for server in self.servers for at in server.answered_at()]
        return sum(start_s <= at < end_s for at in calls) / (end_s - start_s)

    def lost_or_twice(self) -> int:
        """How many items were answered more than once, or are done without an answer."""
        twice = (
            "select count(*) from (select item_id from attempts where outcome = 'answered'"
            " group by item_id having count(*) > 1)"
        )
        lost = (
            "select count(*) from work where state = 'done' and item_id not in"
            " (select item_id from attempts where outcome = 'answered')"
        )
        return sum(int(self._project.query(sql)[0][0]) for sql in (twice, lost))


@contextmanager
def _working(path: Path, kinds: tuple[Kind, ...], seconds: float) -> Iterator[_Job]:
    with ExitStack() as stack:
        servers = []
        for kind in kinds:
            place = path / kind.name
            place.mkdir(parents=True)
            server = _Server(place, kind)
            server.start()
            stack.callback(server.kill)
            servers.append(server)
        items = int(sum(kind.slots for kind in kinds) * seconds * 2.5) + 1000
        project = make_project(path, servers[0].url, items, parser="raw")
        named = [{"base_url": one.url, "concurrency": one.kind.slots} for one in servers]
        (path / "config.yaml").write_text(
            f"model: {{model: simulated, max_tokens: 100, servers: {json.dumps(named)}}}\n"
        )
        worker = project.start("-q", "work")
        for server in servers:
            while not server.ledger.stat().st_size:
                time.sleep(0.1)
        yield _Job(project, servers, worker)


def _free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])
