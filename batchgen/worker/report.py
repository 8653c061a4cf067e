"""What a worker tells of itself to other terminals: plain values, kept as JSON in its row."""

from typing import Any

from batchgen.clock import clock_ms, now_ms
from batchgen.limits import limit_in_words
from batchgen.worker.committer import Committer
from batchgen.worker.options import Stats
from batchgen.worker.pacer import Pacer
from batchgen.worker.stragglers import CallsUnderWay

_STRAGGLERS_TOLD = 5


def report(
    stats: Stats, calls: CallsUnderWay, committer: Committer, pacer: Pacer
) -> dict[str, Any]:
    """`paused`, `waits_for` (why else it sends less than it could, or None), `late_after_ms`, and
    the `stragglers`: item number, and when its call began (epoch ms)."""
    now = clock_ms()
    ahead = now_ms() - now
    return {
        "paused": committer.paused,
        "waits_for": _waits_for(stats, committer, pacer, now),
        "late_after_ms": calls.late_after_ms(now),
        "stragglers": [
            [late.item_id, late.began_at + ahead] for late in calls.stragglers(now)
        ][:_STRAGGLERS_TOLD],
    }  # fmt: skip


def _waits_for(stats: Stats, committer: Committer, pacer: Pacer, now: int) -> str | None:
    if now < pacer.paused_until or pacer.down:
        return f"waiting for the server: {stats.trouble}" if stats.trouble else "waiting"
    if committer.limited_to_rpm:
        return limit_in_words(committer.limited_to_rpm)
    return None
