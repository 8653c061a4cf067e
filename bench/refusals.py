"""What `work` gets from servers that refuse, against what they would give.

Those of a line run beside each other, each with a server of its own in a process of its own: so the
share of a load is that of its baseline, which was under the same machine at the same time.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.measure import Figure, Options, Table, interleaved, median
from bench.peers.processes import serving
from bench.project import CLIENT_CPU, SERVER_CPU, make_project
from bench.simulated import Ledger, Side, ledgers_of

NAME = "refusals"
_SLOTS = 50
_FINDING_S, _SECONDS, _QUICK_SECONDS = 20, 80, 40
_OUTAGE_S, _QUICK_OUTAGE_S = 60, 15
_BACK_WITHIN_S = 10
_LATENCY = "uniform:0.7:1.3"
_SHORT_ITEMS, _SHORT_LATENCY_S, _SHORT_SPREAD = 1500, 0.05, 0.5
_SHORT_ROUNDS, _QUICK_SHORT_ROUNDS = 9, 3
_SHORT_STRAYS, _SHORT_SHARE = 0.03, 0.9
_NO_WAIT = ("--retry-after", "0")


@dataclass(frozen=True)
class Load:
    """A server started with `options`, and `work` with `slots`, in so many `processes`. Its goal is
    a share of `best` answers a second (None: of what its baseline gets, the first of its line),
    with fewer than `most_refused` of its calls refused."""

    name: str
    options: tuple[str, ...] = ()
    slots: int = _SLOTS
    processes: int = 1
    best: float | None = None
    share: float | None = None
    most_refused: float = 1.0


_CAP_10 = ("--at-once", "10")
_BUCKET = ("--rpm", "600", "--no-limit-headers", *_NO_WAIT)


def _ten_at_once(status: int, processes: int = 1) -> Load:
    options = (*_CAP_10, "--refuse-with", str(status), *_NO_WAIT)
    name = f"ten at once, {status}{_in_processes(processes)}"
    return Load(name, options, processes=processes, share=0.85, most_refused=0.05)


def _bucket(processes: int = 1) -> Load:
    name = f"600 a minute, no Retry-After{_in_processes(processes)}"
    return Load(name, _BUCKET, processes=processes, best=10.0)


def _in_processes(processes: int) -> str:
    return f", {processes} processes" if processes > 1 else ""


LINES = (
    (
        Load("no refusals"),
        Load("3 % strays, 429", ("--errors", "429=0.03", *_NO_WAIT), share=0.9),
        Load("3 % strays, 429, Retry-After 1", ("--errors", "429=0.03"), share=0.9),
        Load("10 % strays, 429", ("--errors", "429=0.1", *_NO_WAIT)),
    ),
    (
        Load("ten at once, 503, c = 10", _CAP_10, slots=10),
        _ten_at_once(503),
        _ten_at_once(429),
        Load(
            "three at once, 429, Retry-After 5",
            ("--at-once", "3", "--refuse-with", "429", "--retry-after", "5"), best=3.0, share=0.75,
        ),
        _bucket(),
    ),
    (
        Load("ten at once, 503, c = 10", _CAP_10, slots=10),
        _ten_at_once(503, 4),
        _ten_at_once(429, 4),
        Load(
            "one at once, 429, 4 processes", ("--at-once", "1", "--refuse-with", "429", *_NO_WAIT),
            processes=4, best=1.0, share=0.85, most_refused=0.05,
        ),
        _bucket(4),
    ),
    # So many processes are for a machine to start, and to give a turn: each server by itself.
    *((Load("ten at once, 503, c = 10", _CAP_10, slots=10), _ten_at_once(status, 8))
      for status in (503, 429)),
)  # fmt: skip


@dataclass(frozen=True)
class Calls:
    """What a server's ledger tells: when each call came, and what it got."""

    load: Load
    ledger: Ledger

    @property
    def seen(self) -> list[tuple[float, str]]:
        return self.ledger.calls

    def per_s(self, start_s: float, end_s: float) -> float:
        taken = sum(outcome == "ok" for at_s, outcome in self.seen if start_s <= at_s < end_s)
        return taken / (end_s - start_s)

    def refused(self, start_s: float, end_s: float) -> float:
        outcomes = [outcome for at_s, outcome in self.seen if start_s <= at_s < end_s]
        return sum(outcome != "ok" for outcome in outcomes) / max(1, len(outcomes))


def run(options: Options) -> Table:
    seconds = _QUICK_SECONDS if options.quick else _SECONDS
    outage_s = _QUICK_OUTAGE_S if options.quick else _OUTAGE_S
    rows: list[tuple[str, ...]] = []
    figures: list[Figure] = []
    for number, loads in enumerate(LINES):
        found = _measure(options.work_dir / str(number), loads, seconds)
        for calls in found:
            all_there_s = calls.ledger.all_there_s
            found_s, end_s = all_there_s + _FINDING_S, all_there_s + seconds
            best = calls.load.best or found[0].per_s(found_s, end_s)
            share = calls.per_s(found_s, end_s) / best
            refused = calls.refused(found_s, end_s)
            rows.append((
                calls.load.name, str(calls.load.slots),
                f"{calls.per_s(all_there_s, found_s):.1f}", f"{share * best:.1f}", f"{share:.2f}",
                f"{100 * refused:.1f} %", f"{100 * calls.ledger.idle_share:.0f} %",
            ))  # fmt: skip
            figures += _figures(calls.load, share, refused)
    rounds = _QUICK_SHORT_ROUNDS if options.quick else _SHORT_ROUNDS
    short, short_figure = _short_run(options.work_dir / "short", rounds)
    outages = [_outage(options.work_dir / f"outage {n}", outage_s, n) for n in (1, 4)]
    return Table(
        title=f"Refusals: `work -c {_SLOTS}` for {seconds} s at servers that refuse",
        columns=("server", "slots", f"answers/s in the first {_FINDING_S} s", "answers/s after",
                 "share of the best", "refused", "CPU that was free"),
        rows=(*rows, *(row for row, _ in outages), short),
        figures=(*figures, *(figure for _, figure in outages), short_figure),
        notes=(
            "The servers are `batchgen simulate`, each in a process of its own, with a latency "
            "around a second; the figures are from their ledgers. Each share is of the answers a "
            "second that the first of its line gets, which runs at the same time, or of what the "
            "limit allows. Seconds count from when the last worker has joined; those of an outage "
            "from the first call. Where little CPU was free, a figure says little.",
            f"The last line: the whole command on {_SHORT_ITEMS:,} items, its start included, by "
            "turns with the same without refusals; medians, of the time.",
        ),
    )  # fmt: skip


def _figures(load: Load, share: float, refused: float) -> list[Figure]:
    if load.share is None:
        return []
    goal = f">= {load.share:g}"
    found = [Figure(f"{load.name}: share", share, "of the best", goal, share >= load.share)]
    if load.most_refused < 1:
        goal = f"< {100 * load.most_refused:g}"
        met = refused < load.most_refused
        found.append(Figure(f"{load.name}: refused", 100 * refused, "%", goal, met))
    return found


def _outage(path: Path, outage_s: int, processes: int) -> tuple[tuple[str, ...], Figure]:
    """How long after an outage it takes to be as fast as before."""
    start_s, end_s = 15, 15 + outage_s
    name = f"out of service for {outage_s} s{_in_processes(processes)}"
    load = Load(name, ("--outage", f"{start_s}:{end_s}"), processes=processes)
    (calls,) = _measure(path, (load,), end_s + 25)
    before = calls.per_s(5, start_s)
    back_s = next(
        (at - end_s for at in range(end_s, end_s + 25) if calls.per_s(at, at + 2) >= 0.9 * before),
        25,
    )
    while_out = sum(start_s <= at_s < end_s for at_s, _ in calls.seen)
    row = (
        load.name, str(load.slots), f"{before:.1f} before it",
        f"{calls.per_s(end_s + 10, end_s + 25):.1f}", f"full speed after {back_s} s",
        f"{while_out} calls meanwhile", f"{100 * calls.ledger.idle_share:.0f} %",
    )  # fmt: skip
    met = back_s <= _BACK_WITHIN_S
    return row, Figure(f"{load.name}: full speed after", back_s, "s", f"<= {_BACK_WITHIN_S}", met)


def _short_run(path: Path, rounds: int) -> tuple[tuple[str, ...], Figure]:
    """How much longer a short run takes for strays: in the end nothing is left but their waits."""
    name = f"{_SHORT_ITEMS:,} items of {_SHORT_LATENCY_S * 1000:.0f} ms, {_SHORT_STRAYS:.0%} strays"
    with serving(_SHORT_LATENCY_S, _SHORT_SPREAD, SERVER_CPU) as server:
        project = make_project(path, server.base_url, _SHORT_ITEMS, parser="raw")
        enqueued = path / "enqueued"
        project.database.rename(enqueued)

        def work(strays: float) -> tuple[float, float]:
            project.reuse(enqueued)
            server.reset()
            server.refuse(strays)
            spent = project.spend("work", "-c", str(_SLOTS), cpu=CLIENT_CPU)
            told = server.ledger()
            assert told["answers"] == told["items_answered"] == _SHORT_ITEMS
            return spent.wall_s, told["refused"] / (told["refused"] + _SHORT_ITEMS)

        calm, found = interleaved(rounds, partial(work, 0.0), partial(work, _SHORT_STRAYS))
    calm_s, found_s = (median(wall_s for wall_s, _ in runs) for runs in (calm, found))
    refused, share = median(share for _, share in found), calm_s / found_s
    row = (
        name, str(_SLOTS), "", f"{_SHORT_ITEMS / found_s:.1f}, all in all", f"{share:.2f}",
        f"{100 * refused:.1f} %", "",
    )  # fmt: skip
    goal = f">= {_SHORT_SHARE:g}"
    return row, Figure(f"{name}: share", share, "of the speed without", goal, share >= _SHORT_SHARE)


def _measure(path: Path, loads: tuple[Load, ...], seconds: float) -> list[Calls]:
    found = ledgers_of(path, [_side(load, seconds) for load in loads], seconds)
    return [Calls(load, ledger) for load, ledger in zip(loads, found, strict=True)]


def _side(load: Load, seconds: float) -> Side:
    items = int((load.best or load.slots) * seconds * 1.5) + 1000
    work = ("-c", str(load.slots), "--processes", str(load.processes))
    return Side(
        ("--latency", _LATENCY, *load.options), work, items, processes=load.processes
    )  # fmt: skip
