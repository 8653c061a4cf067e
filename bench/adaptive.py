"""How much of a server's rate limit `work --adaptive` uses, and how often it runs into it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.measure import Figure, Options, Table
from bench.simulated import Side, ledgers_of

NAME = "adaptive"
GOAL_SHARE, GOAL_REFUSED, GOAL_REFUSED_OF_60 = 0.9, 0.02, 0.05
_SECONDS, _QUICK_SECONDS = 240, 30


@dataclass(frozen=True)
class Load:
    """A limit of `rpm`, of which `burst` may come at once (None: a second's worth); each worker has
    `slots`. That share of the calls is refused whatever is sent: `strays`. Without `has_limit` the
    `rpm` are what the slots would get without strays."""

    rpm: int
    slots: int
    burst: int | None = None
    workers: int = 1
    strays: float = 0.0
    has_limit: bool = True

    @property
    def name(self) -> str:
        strays = f", {100 * self.strays:g} % strays" if self.strays else ""
        if not self.has_limit:
            return f"no limit, {self.slots} slots{strays}"
        return f"{self._limit}{strays}"

    @property
    def _limit(self) -> str:
        burst = "a second's worth" if self.burst is None else "a minute's worth"
        return f"{self.rpm:,} a minute, {burst} at once"


_SLOTS_RPM = 2870  # 50 slots; an answer takes 1.046 s on the mean

# Those of a line run beside each other: all but the last are far from what this machine can do.
LOADS = (
    (Load(60, 20), Load(600, 50), Load(600, 25, burst=600, workers=2), Load(6000, 300, workers=2)),
    (
        Load(_SLOTS_RPM, 50, strays=0.03, has_limit=False),
        Load(_SLOTS_RPM, 50, strays=0.1, has_limit=False),
        Load(600, 50, strays=0.03),
    ),
    (Load(24_000, 500, workers=2),),
)


@dataclass(frozen=True)
class Calls:
    """What the server's ledger tells: when each call came, and whether it was taken."""

    load: Load
    seen: list[tuple[float, bool]]

    def share(self, start_s: float, end_s: float) -> float:
        """The calls that it took, of those that it would have."""
        taken = sum(self._between(start_s, end_s))
        return taken / (self.load.rpm / 60 * (end_s - start_s))

    def refused(self, start_s: float, end_s: float) -> float:
        calls = self._between(start_s, end_s)
        return calls.count(False) / max(1, len(calls))

    def _between(self, start_s: float, end_s: float) -> list[bool]:
        return [taken for at_s, taken in self.seen if start_s <= at_s < end_s]


def run(options: Options) -> Table:
    seconds = _QUICK_SECONDS if options.quick else _SECONDS
    found = [
        calls
        for number, loads in enumerate(LOADS)
        for calls in _measure(options.work_dir / str(number), loads, seconds)
    ]
    from_s = seconds / 4
    return Table(
        title=f"Adaptive: `work --adaptive` for {seconds} s against limits that it does not know",
        columns=("limit", "workers x slots", f"share of it in the first {from_s:.0f} s",
                 "share of it after", "429s in the first", "429s after"),
        rows=tuple(
            (calls.load.name, f"{calls.load.workers} x {calls.load.slots}",
             f"{calls.share(0, from_s):.3f}", f"{calls.share(from_s, seconds):.3f}",
             f"{100 * calls.refused(0, from_s):.1f} %",
             f"{100 * calls.refused(from_s, seconds):.2f} %")
            for calls in found
        ),
        figures=tuple(
            figure for calls in found for figure in _figures(calls, from_s, seconds)
        ),
        notes=(
            "The server is `batchgen simulate --no-limit-headers` in a process of its own, with a "
            "latency around a second; the figures are from its ledger. A 429 tells how long to "
            "wait.",
            "A limit that lets a minute's worth through at once gives that on top in the first "
            "minute.",
        ),
    )  # fmt: skip


def _figures(calls: Calls, from_s: float, until_s: float) -> Iterator[Figure]:
    share, refused = calls.share(from_s, until_s), calls.refused(from_s, until_s)
    most = calls.load.strays + (GOAL_REFUSED if calls.load.rpm > 60 else GOAL_REFUSED_OF_60)
    yield Figure(
        f"share of the limit after the first minute, {calls.load.name}",
        share, "of it", f">= {GOAL_SHARE:g}", share >= GOAL_SHARE,
    )  # fmt: skip
    yield Figure(
        f"429s after the first minute, {calls.load.name}",
        100 * refused, "%", f"< {100 * most:g}", refused < most,
    )  # fmt: skip


def _measure(path: Path, loads: tuple[Load, ...], seconds: float) -> list[Calls]:
    found = ledgers_of(path, [_side(load, seconds) for load in loads], seconds)
    return [
        Calls(load, [(at_s, outcome == "ok") for at_s, outcome in ledger.calls])
        for load, ledger in zip(loads, found, strict=True)
    ]


def _side(load: Load, seconds: float) -> Side:
    server = ["--latency", "lognormal:1.0:0.3", "--no-limit-headers"]
    server += ["--rpm", str(load.rpm)] if load.has_limit else []
    server += ["--errors", f"429={load.strays}", "--retry-after", "0"] if load.strays else []
    server += [] if load.burst is None else ["--burst", str(load.burst)]
    items = int(load.rpm / 60 * seconds * 1.2) + 2 * load.rpm + 1000
    return Side(tuple(server), ("-c", str(load.slots), "--adaptive"), items, load.workers)
