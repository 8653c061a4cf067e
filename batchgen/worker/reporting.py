"""What a worker reports, gathered from its parts."""

from batchgen.clock import clock_ms, now_ms
from batchgen.worker.pacer import Pacer
from batchgen.worker.report import Straggler, WorkerReport
from batchgen.worker.stats import Stats
from batchgen.worker.stragglers import CallsInFlight

_MOST_STRAGGLERS = 5


def make_report(stats: Stats, calls: CallsInFlight, pacer: Pacer) -> WorkerReport:
    now = clock_ms()
    ahead = now_ms() - now
    is_paused = now < pacer.paused_until
    late = calls.stragglers(now)[:_MOST_STRAGGLERS]
    return WorkerReport(
        paused=stats.paused,
        halted=stats.halted.why if stats.halted else None,
        waits_for_server=is_paused or pacer.down,
        limited_to_rpm=stats.limited_to_rpm,
        paused_until_ms=pacer.paused_until + ahead if is_paused else None,
        trouble=stats.trouble,
        calls=stats.calls,
        late_after_ms=calls.late_after_ms(now),
        stragglers=tuple(Straggler(item_id, began_at + ahead) for item_id, began_at in late),
    )
