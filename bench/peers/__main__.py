"""batchgen beside what people would use instead, on the same job and the same local server.

    python -m bench.peers --cookbook api_request_parallel_processor.py

Each peer is installed once, with pinned versions, into a virtual environment of its own. Then they
take turns: a job of one item, the whole job, the same at a server that refuses a share of the
calls, and the whole job killed half-way and run again.
bench/peers/README.md says how each is used, and what the numbers are.

The cookbook's script is not in this repository. Get it from
https://github.com/openai/openai-cookbook/blob/main/examples/api_request_parallel_processor.py
and name it with --cookbook.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from dataclasses import asdict, replace  # noqa: TID251  of dataclasses of its own
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.peers.peers import (
    HERE,
    PEERS,
    ROOT,
    Installed,
    Job,
    Peer,
    environment,
    install,
    prepare,
    revision,
    versions,
)
from bench.peers.processes import Ran, Server, run_all, serving
from bench.peers.report import markdown

_SERVER_CPU = 0


def main() -> int:
    given = _arguments()
    chosen = [peer for peer in PEERS if not given.only or peer.name in given.only]
    found: dict[str, Any] = {
        "machine": {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "cpus": os.cpu_count(),
            "python": platform.python_version(),
            "system": platform.platform(),
            "load_average_at_start": os.getloadavg(),
        },
        "settings": {
            "items": given.items,
            "concurrency": given.concurrency,
            "latency_s": given.latency,
            "spread": given.spread,
            "refuse": given.refuse,
            "rounds": given.rounds,
            "limit_s": given.limit,
            "batchgen": revision(given.batchgen),
        },
        "peers": {},
    }
    _say(json.dumps(found["settings"]))
    places: dict[str, Installed] = {}
    for peer in chosen:
        _say(f"installing {peer.name}: {peer.setting}")
        entry = {"setting": peer.setting, "part": peer.part, "versions": {}, "rounds": []}
        found["peers"][peer.name] = entry
        try:
            places[peer.name] = _install(peer, given)
            entry["versions"] = versions(peer, places[peer.name])
        except RuntimeError as error:
            _leave_out(found, places, peer, str(error))
    with serving(given.latency, given.spread, _SERVER_CPU) as server:
        job = Job(given.items, given.concurrency, server.base_url)
        for number in range(given.rounds + 1):  # the first warms up caches, with one item
            for peer in chosen if number % 2 else reversed(chosen):
                if peer.name not in places:
                    continue
                bench = _Bench(peer, places[peer.name], server, job, given.limit, given.refuse)
                if number == 0:
                    last = bench.whole(1)["commands"][-1]
                    if last["exit_code"]:
                        _leave_out(found, places, peer, f"its start fails: {last['tail']}")
                    continue
                one_round = bench.round()
                found["peers"][peer.name]["rounds"].append(one_round)
                _say(f"round {number}, {peer.name}: {_in_short(one_round)}")
            found["machine"]["load_average_at_end"] = os.getloadavg()
            _write(found, given.json)
    print(markdown(found))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--items", type=int, default=1500)
    parser.add_argument("--concurrency", type=int, default=50, help="calls at once")
    parser.add_argument("--latency", type=float, default=0.05, help="of the server, in seconds")
    parser.add_argument("--spread", type=float, default=0.5, help="of the latency, as a share")
    parser.add_argument("--refuse", type=float, default=0.03, help="share of the calls, with 429")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=120, help="seconds a command may take")
    parser.add_argument(
        "--only", action="append", metavar="NAME", choices=[peer.name for peer in PEERS],
        help="this one (may be given again); then nothing is written unless --json is given",
    )  # fmt: skip
    parser.add_argument("--cookbook", type=Path, metavar="PATH", help="the cookbook's script")
    parser.add_argument("--json", type=Path, metavar="FILE", help="raw numbers; a .md beside it")
    parser.add_argument("--venvs", type=Path, default=ROOT / ".venv-peers", metavar="DIR")
    parser.add_argument("--batchgen", type=Path, default=ROOT, metavar="DIR", help="a checkout")
    given = parser.parse_args()
    given.venvs = given.venvs.resolve()
    given.batchgen = given.batchgen.resolve()
    if given.json is None and not given.only:
        given.json = HERE / "results.json"
    return given


def _install(peer: Peer, given: argparse.Namespace) -> Installed:
    if peer.name != "cookbook":
        return install(peer, given.venvs, given.batchgen)
    if given.cookbook is None or not given.cookbook.is_file():
        raise RuntimeError("its script is fetched by you: name it with --cookbook (see --help)")
    placed = install(peer, given.venvs, given.batchgen)
    return replace(placed, script=given.cookbook.resolve())


def _leave_out(found: dict[str, Any], places: dict[str, Installed], peer: Peer, why: str) -> None:
    places.pop(peer.name, None)
    found["peers"][peer.name]["not_compared"] = " ".join(why.split())
    _say(f"{peer.name} is left out: {why}")


class _Bench:
    """One peer at its job. Each time in a new directory, deleted afterwards."""

    def __init__(
        self, peer: Peer, installed: Installed, server: Server, job: Job, limit_s: float,
        refuse: float,
    ) -> None:  # fmt: skip
        self._peer = peer
        self._installed = installed
        self._server = server
        self._job = job
        self._limit_s = limit_s
        self._refuse = refuse

    def round(self) -> dict[str, Any]:
        return {
            "one_item": self.whole(1),
            "whole": self.whole(self._job.items),
            "refused": self.whole(self._job.items, refuse=self._refuse),
            "crash": self.crash(),
            "load_average": os.getloadavg()[0],
        }

    def whole(self, items: int, refuse: float = 0) -> dict[str, Any]:
        """The job from start to end; a share of its calls is refused."""
        with tempfile.TemporaryDirectory() as parent:
            work_dir = Path(parent) / "job"
            job = replace(self._job, items=items)
            prepare(work_dir, job)
            self._server.reset()
            self._server.refuse(refuse)
            ran = self._run(job, work_dir)
            return self._told(ran, work_dir)

    def crash(self) -> dict[str, Any]:
        """Killed with its whole process group by the answer that makes half, and run again."""
        with tempfile.TemporaryDirectory() as parent:
            work_dir = Path(parent) / "job"
            prepare(work_dir, self._job)
            self._server.reset()
            self._run(self._job, work_dir, kill_at_answers=self._job.items // 2)
            at_kill = self._server.ledger()
            again = self._run(self._job, work_dir)
            return {"at_kill": at_kill, **self._told(again, work_dir)}

    def _run(self, job: Job, work_dir: Path, kill_at_answers: int = 0) -> list[Ran]:
        return run_all(
            self._peer.commands(job, self._installed),
            work_dir,
            environment(self._installed, work_dir),
            self._limit_s,
            (self._server, kill_at_answers) if kill_at_answers else None,
        )

    def _told(self, ran: list[Ran], work_dir: Path) -> dict[str, Any]:
        results = ran[-1].results
        exported = work_dir / "results.jsonl"
        if results is None and ran[-1].well and exported.exists():
            results = sum(1 for _ in exported.open())
        return {
            "commands": [asdict(one) for one in ran],
            "ledger": self._server.ledger(),
            "results": results,
        }


def _in_short(one_round: dict[str, Any]) -> str:
    whole, crash, refused = one_round["whole"], one_round["crash"], one_round["refused"]
    refused_s = sum(ran["wall_s"] for ran in refused["commands"])
    wall_s = sum(ran["wall_s"] for ran in whole["commands"])
    cpu_s = sum(ran["cpu_s"] for ran in whole["commands"])
    again, last = crash["ledger"]["answered_again"], crash["commands"][-1]
    return (
        f"{wall_s:.1f} s, CPU {cpu_s:.1f} s, {whole['results']} results; with refusals "
        f"{refused_s:.1f} s, {refused['results']} results; after kill -9 and restart "
        f"{again} answered again, exit {last['exit_code']}"
    )


def _write(found: dict[str, Any], file: Path | None) -> None:
    if file is not None:
        file.write_text(json.dumps(found, indent=1) + "\n")
        file.with_suffix(".md").write_text(markdown(found))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
