"""What a worker reports, gathered from its parts."""

from collections.abc import Iterable

from batchgen.clock import clock_ms, now_ms
from batchgen.limits import TokenMeter
from batchgen.worker.report import Held, HeldBy, ServerReport, Straggler, WorkerReport
from batchgen.worker.servers import Server, Servers
from batchgen.worker.stats import Stats
from batchgen.worker.stragglers import CallsInFlight

_MOST_STRAGGLERS = 5
_STILL_SHORT_MS = 5000  # a budget is short until calls have gone out again for so long
_WORTH_SAYING_MS = 2000  # a wait
_WORTH_SAYING_SHARE = 0.01  # of the calls
# Once a limit is found it is asked for more now and then: of the others not so many are refused.
_MORE_THAN_A_LIMIT_MAKES = 0.05


class Reporter:
    """Of one worker."""

    def __init__(
        self, stats: Stats, calls: CallsInFlight, servers: Servers, meter: TokenMeter,
        max_cost_usd: float | None,
    ) -> None:  # fmt: skip
        self._stats = stats
        self._max_cost_usd = max_cost_usd
        self._calls = calls
        self._servers = servers
        self._meter = meter

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
            calls_at_once=self._calls_at_once(),
            failed_calls=dict(stats.failed_calls),
            late_after_ms=self._calls.late_after_ms(now),
            stragglers=tuple(Straggler(item_id, began_at + ahead) for item_id, began_at in late),
            servers=tuple(self._of_server(server, now, ahead) for server in self._servers),
            max_cost_usd=self._max_cost_usd,
        )

    @property
    def _taking_part(self) -> list[Server]:
        return [server for server in self._servers if server.left_out is None]

    def _calls_at_once(self) -> int:
        usable = sum(server.pacer.controller.limit for server in self._taking_part)
        return min(usable, self._servers.slots)

    def _of_server(self, server: Server, now: int, ahead: int) -> ServerReport:
        return ServerReport(
            server.key, server.spec.name,
            calls=server.calls,
            in_flight=server.in_flight,
            failed_calls=dict(server.failed_calls),
            per_minute=server.per_minute(now),
            held_by=self._held_by_server(server, now, ahead),
            trouble=server.trouble,
            trouble_at=server.trouble_at + ahead if server.trouble else None,
            left_out=server.why.why if server.why else None,
            left_out_at=server.left_out_at + ahead if server.why else None,
        )  # fmt: skip

    def _held_by(self, now: int, ahead: int) -> Held | None:
        """The strongest of what holds it. `ahead`: of `now`, what the clock of the wall shows."""
        stats = self._stats
        if stats.paused:
            return Held(HeldBy.ORDER)
        if stats.halted:
            return Held(HeldBy.HALT)
        if stats.waits_for_more and not stats.in_flight:
            return Held(HeldBy.MORE)
        held = [self._held_by_server(server, now, ahead) for server in self._taking_part]
        if held and all(held):  # or else one sends as much as it could
            return min(filter(None, held), key=lambda one: one.until_ms or 0)
        return self._held_by_us(now)

    def _held_by_server(self, server: Server, now: int, ahead: int) -> Held | None:
        """What one of them has a part in."""
        pacer = server.pacer
        paused_until = pacer.paused_until + ahead if now < pacer.paused_until else None
        if pacer.down:
            return Held(HeldBy.OUTAGE, paused_until)
        if paused_until is not None:
            return Held(HeldBy.PAUSE, paused_until)
        announced = pacer.server.next_at(self._meter.mean, now)
        if announced is not None and announced - now > _WORTH_SAYING_MS:
            return Held(HeldBy.ANNOUNCED, announced + ahead)
        return None

    def _held_by_us(self, now: int) -> Held | None:
        """The same, of what no server has a part in now."""
        stats, servers = self._stats, self._servers
        if stats.budget_wait and now - stats.budget_wait_at < _STILL_SHORT_MS:
            return Held(HeldBy.BUDGET, budget=stats.budget_wait)
        if stats.limited_to_rpm:
            return Held(HeldBy.LIMIT, per_minute=stats.limited_to_rpm, limit=stats.limited_by)
        taking_part = self._taking_part
        if all(one.trials.on_trial for one in taking_part) and stats.in_flight < servers.slots:
            return Held(HeldBy.FIRST)
        at_work = [one for one in taking_part if not one.is_idle(now)]
        usable, slots = self._calls_at_once(), sum(one.pacer.slots for one in taking_part)
        if at_work and usable < min(servers.slots, slots):
            refused_with = _one_of(one.pacer.refusals.limited_with for one in taking_part)
            share = max(one.pacer.refusals.share for one in taking_part)
            return Held(
                HeldBy.SLOTS, slots=usable, refused_with=refused_with,
                share=round(share, 2) if share >= _MORE_THAN_A_LIMIT_MAKES else None,
            )  # fmt: skip
        if (stats.paused_until or 0) > now_ms() and not stats.in_flight:
            return Held(HeldBy.PAUSE, stats.paused_until)
        due_at = stats.next_item_at
        if due_at is not None and due_at - now_ms() > _WORTH_SAYING_MS:
            return Held(HeldBy.ITEMS, due_at)
        return _refusals(at_work)


def _refusals(servers: Iterable[Server]) -> Held | None:
    """What no limit makes."""
    seen = [one.pacer.refusals for one in servers]
    share = max((one.share for one in seen), default=0.0)
    if share < _WORTH_SAYING_SHARE:
        return None
    refused_with = next(one.newest for one in seen if one.share == share)
    return Held(HeldBy.REFUSALS, share=round(share, 2), refused_with=refused_with)


def _one_of(found: Iterable[str]) -> str | None:
    return next(filter(None, found), None)
