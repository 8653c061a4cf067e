"""What a worker reports, gathered from its parts."""

from batchgen.clock import clock_ms, now_ms
from batchgen.limits import TokenMeter
from batchgen.worker.pacer import Pacer
from batchgen.worker.report import Held, HeldBy, Straggler, WorkerReport
from batchgen.worker.stats import Stats
from batchgen.worker.stragglers import CallsInFlight
from batchgen.worker.trials import Trials

_MOST_STRAGGLERS = 5
_STILL_SHORT_MS = 5000  # a budget is short until calls have gone out again for so long
_WORTH_SAYING_MS = 2000  # a wait


class Reporter:
    """Of one worker."""

    def __init__(
        self, stats: Stats, calls: CallsInFlight, pacer: Pacer, meter: TokenMeter, trials: Trials
    ) -> None:
        self._stats = stats
        self._calls = calls
        self._pacer = pacer
        self._meter = meter
        self._trials = trials

    def report(self) -> WorkerReport:
        now, stats = clock_ms(), self._stats
        ahead = now_ms() - now
        late = self._calls.stragglers(now)[:_MOST_STRAGGLERS]
        return WorkerReport(
            paused=stats.paused,
            halted=stats.halted.why if stats.halted else None,
            held_by=self._held_by(now, ahead),
            trouble=stats.trouble,
            calls=stats.calls,
            failed_calls=dict(stats.failed_calls),
            late_after_ms=self._calls.late_after_ms(now),
            stragglers=tuple(Straggler(item_id, began_at + ahead) for item_id, began_at in late),
        )

    def _held_by(self, now: int, ahead: int) -> Held | None:
        """The strongest of what holds it. `ahead`: of `now`, what the clock of the wall shows."""
        stats, pacer = self._stats, self._pacer
        if stats.paused:
            return Held(HeldBy.ORDER)
        if stats.halted:
            return Held(HeldBy.HALT)
        paused_until = pacer.paused_until + ahead if now < pacer.paused_until else None
        if pacer.down:
            return Held(HeldBy.OUTAGE, paused_until)
        if paused_until is not None:
            return Held(HeldBy.PAUSE, paused_until)
        announced = pacer.server.next_at(self._meter.mean, now)
        if announced is not None and announced - now > _WORTH_SAYING_MS:
            return Held(HeldBy.ANNOUNCED, announced + ahead)
        return self._held_by_us(now)

    def _held_by_us(self, now: int) -> Held | None:
        """The same, of what the server has no part in now."""
        stats, pacer = self._stats, self._pacer
        if stats.budget_wait and now - stats.budget_wait_at < _STILL_SHORT_MS:
            return Held(HeldBy.BUDGET, budget=stats.budget_wait)
        if stats.limited_to_rpm:
            return Held(HeldBy.LIMIT, per_minute=stats.limited_to_rpm, limit=stats.limited_by)
        if self._trials.on_trial and stats.in_flight < pacer.slots:
            return Held(HeldBy.FIRST)
        if pacer.controller.limit < pacer.slots:
            return Held(HeldBy.SLOTS, slots=pacer.controller.limit)
        due_at = stats.next_item_at
        if due_at is not None and due_at - now_ms() > _WORTH_SAYING_MS:
            return Held(HeldBy.ITEMS, due_at)
        return None
