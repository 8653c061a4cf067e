"""What a worker gets from servers that refuse, by its rules and by those of others: simulated."""

from collections.abc import Callable
from math import ceil

from bench.measure import Options, Table, median
from bench.virtual_servers import (
    Bucket,
    Cap,
    Free,
    Holder,
    Minutes,
    Ours,
    Outage,
    Refused,
    Server,
    WorkTable,
)
from bench.virtual_servers import (
    run as simulate,
)

NAME = "controllers"
_SECONDS, _QUICK_SECONDS = 300, 60
_SEEDS, _QUICK_SEEDS = 5, 1
_SLOTS = 50
_LONGEST_PAUSE_S = 60.0

SERVERS: dict[str, Callable[[], Server]] = {
    "no refusals": Free,
    "3 % strays": lambda: Free(0.03),
    "3 % strays, Retry-After 1": lambda: Free(0.03, Refused(429, 1.0)),
    "10 % strays": lambda: Free(0.1),
    "ten at once, 503": lambda: Cap({0: 10}),
    "three at once, 429, Retry-After 5": lambda: Cap({0: 3}, Refused(429, 5.0)),
    "600 a minute, Retry-After": lambda: Bucket(10, 10, says=True),
    "600 a minute": lambda: Bucket(10, 10),
    "600 in each minute of the clock": lambda: Minutes(600),
    "out of service for a minute": lambda: Outage(Free(), 60_000, 120_000),
}


class _Holder:
    """A limit of calls at once, and a pause; the base of the rivals."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._limit = float(slots)
        self._until = 0
        self._cut_at = -1

    def allowed(self, now: int) -> int:
        return 0 if now < self._until else max(1, int(self._limit))

    def next_change_at(self, now: int) -> int | None:
        return self._until if now < self._until else None

    def sent(self, now: int) -> int:
        return now

    def exchange(self, table: WorkTable, worker: int, in_flight: int, needs: int, now: int) -> None:
        pass

    def _pause(self, seconds: float, now: int) -> int:
        self._until = max(self._until, now + ceil(1000 * seconds))
        return self._until


class CutEachBurst(_Holder):
    """Any refusal begins a burst: a pause for all, and a fifth less; a twentieth more a round."""

    _bursts = 0

    def taken(self, _sent_at: int, _item: int, _now: int) -> None:
        self._bursts = 0
        self._limit = min(self._slots, self._limit + 0.05 * self._slots / self._limit)

    def refused(self, sent_at: int, _item: int, refused: Refused, now: int) -> int:
        asked_s = refused.retry_after_s
        if sent_at > self._cut_at:
            self._cut_at = now
            self._limit = max(1.0, 0.8 * self._limit)
            asked_s = asked_s or min(2.0**self._bursts, _LONGEST_PAUSE_S)
            self._bursts += 1
        return self._pause(asked_s or 0.0, now)


class Aimd(_Holder):
    """As TCP: 0.7 of it at a refusal, but once a round; one more with each round."""

    def taken(self, _sent_at: int, _item: int, _now: int) -> None:
        self._limit = min(self._slots, self._limit + 1 / self._limit)

    def refused(self, sent_at: int, _item: int, refused: Refused, now: int) -> int:
        if sent_at > self._cut_at:
            self._cut_at = now
            self._limit = max(1.0, 0.7 * self._limit)
        return self._pause(refused.retry_after_s or 0.5, now)


class Gradient(_Holder):
    """By the latency, as proxies do: less where answers take longer than they used to, and 0.9 of
    it at a refusal."""

    _long_ms: float | None = None
    _sum_ms, _answers = 0, 0

    def taken(self, sent_at: int, _item: int, now: int) -> None:
        self._sum_ms += now - sent_at
        self._answers += 1
        if self._answers < max(5.0, self._limit):
            return
        short_ms = self._sum_ms / self._answers
        long_ms = self._long_ms = 0.95 * (self._long_ms or short_ms) + 0.05 * short_ms
        gradient = max(0.5, min(1.0, 1.5 * long_ms / short_ms))
        aim = self._limit * gradient + max(1.0, self._limit**0.5)
        self._limit = max(1.0, min(self._slots, 0.8 * self._limit + 0.2 * aim))
        self._sum_ms = self._answers = 0

    def refused(self, sent_at: int, _item: int, refused: Refused, now: int) -> int:
        if sent_at > self._cut_at:
            self._cut_at = now
            self._limit = max(1.0, 0.9 * self._limit)
        return self._pause(refused.retry_after_s or 0.1, now)


_HOLDERS: dict[str, Callable[[int], Holder]] = {
    "batchgen": Ours,
    "a pause and a fifth less for each burst": CutEachBurst,
    "AIMD, as TCP": Aimd,
    "gradient of the latency": Gradient,
}


def run(options: Options) -> Table:
    seconds = _QUICK_SECONDS if options.quick else _SECONDS
    seeds = _QUICK_SEEDS if options.quick else _SEEDS
    rows = [
        (name, *(_cell(server, holder, seconds, seeds) for holder in _HOLDERS.values()))
        for name, server in SERVERS.items()
    ]
    return Table(
        title=f"Controllers: share of the best in {seconds} s at c = {_SLOTS}, simulated",
        columns=("server", *_HOLDERS),
        rows=tuple(rows),
        figures=(),
        notes=(
            "In brackets, the refused calls for each that was answered. In virtual time, from the "
            f"first call on; medians of {seeds} runs. Answers take about a second. Of batchgen, "
            "what decides is its real code (worker/pacer.py); of the others, a few lines here.",
        ),
    )


def _cell(
    server: Callable[[], Server], holder: Callable[[int], Holder], seconds: int, seeds: int
) -> str:
    runs = [
        simulate(server(), seconds=seconds, slots=_SLOTS, seed=seed, holder=holder)
        for seed in range(1, seeds + 1)
    ]
    is_out = [isinstance(found.server, Outage) for found in runs]
    serving_s = seconds - 60 * is_out[0] if seconds > 120 else seconds
    share = median(found.share(0, seconds) * seconds / serving_s for found in runs)
    refused = median(len(found.refused_at) / max(1, len(found.taken_at)) for found in runs)
    return f"{share:.2f} ({refused:.2f})"
