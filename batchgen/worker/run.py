"""A worker put together from its parts, and its run from the first claim to the last."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from batchgen.clock import clock_ms
from batchgen.limits import TokenMeter
from batchgen.store import AskedServer, Store
from batchgen.worker.answering import answering
from batchgen.worker.budget import BudgetGuard
from batchgen.worker.calls import Calls
from batchgen.worker.committer import Committer
from batchgen.worker.demand import Demand
from batchgen.worker.item import Stages
from batchgen.worker.judge import Judge
from batchgen.worker.membership import Membership
from batchgen.worker.pacer import Pacer
from batchgen.worker.parsing import AnswerParser
from batchgen.worker.permits import Permits
from batchgen.worker.rejected_parameters import RejectedParameters
from batchgen.worker.report import BudgetWait
from batchgen.worker.reporting import Reporter
from batchgen.worker.requests import Present, Requests
from batchgen.worker.servers import Connection, Server, Servers
from batchgen.worker.slots import Slots
from batchgen.worker.spec import WorkSpec
from batchgen.worker.stats import RunContext, RunLog, Stats
from batchgen.worker.store_retries import StoreRetries
from batchgen.worker.stragglers import CallsInFlight


async def run_worker(
    store: Store, connections: Sequence[Connection], spec: WorkSpec, context: RunContext, *,
    present: Mapping[int, Present], begun: Callable[[], object] = lambda: None,
) -> None:  # fmt: skip
    """Work until nothing is left, or it is stopped, or a halt (its `stats.halted` says why).
    `connections` are those to the servers of the spec, in their order. `present` are the parsers of
    experiments, and the functions of steps that run one, by their numbers; for others what the
    experiment has is loaded. `begun` is called once the first calls have gone out.

    Raises StoreError when the database fails, ConfigError when an item's parser cannot be loaded;
    in each case the items in flight are finished or given back first.
    """
    stop, log, stats = context.stop, context.log, context.stats
    store.wait_for_server(spec.patience_s, log.warn)
    asked = [AskedServer(server.key, server.name) for server in spec.servers]
    async with store.seat(
        spec.concurrency, spec.lease_s, spec.retry_policy.max_attempts, asked, spec.run
    ) as seat:
        meter = await _token_meter(store, spec)
        answers = await answering(store, spec)
        servers = Servers(
            [
                Server(one, connection, _pacer(spec, seat.first_shares.get(one.key)), answered)
                for one, connection, answered in zip(
                    spec.servers, connections, answers.servers, strict=True
                )
            ],
            spec.concurrency, meter, halt=lambda halt: committer.halt(halt), warn=log.warn,
        )  # fmt: skip
        permits = Permits(servers)
        store_retries = StoreRetries(permits, spec.store_retry_s, log.warn)
        demand = Demand(spec, servers, permits, meter, answers.code)
        calls_in_flight = CallsInFlight(stats.latencies_ms)
        reporter = Reporter(stats, calls_in_flight, servers, meter, spec.max_cost_usd)
        membership = Membership(
            seat, spec, servers, demand, store_retries, report=reporter.report, warn=log.warn
        )
        committer = Committer(
            seat, demand, membership, permits, store_retries, servers, spec, stats, log
        )  # fmt: skip
        requests = Requests(store, spec, present)
        stages = Stages(
            requests,
            _budget_guard(spec, servers, store, committer, stats, log),
            Calls(
                servers, committer, calls_in_flight, hedge=spec.hedge,
                begun=partial(_all, begun, servers.read_prices),
            ),
            Judge(
                servers, stats, RejectedParameters(requests.leave_out, log.warn), spec,
                charge_late=committer.charge_late, warn=log.warn,
            ),
            AnswerParser(spec.retry_policy, spec.parse_timeout_s),
            committer, servers, log,
        )  # fmt: skip
        slots = Slots(
            stages, spec, committer, membership, permits, stats, log, runs_code=answers.runs_code
        )
        await slots.run(stop)
        if stats.halted is None and not stop.drain.is_set():
            await committer.conclude_trial()


def _pacer(spec: WorkSpec, known: int | None) -> Pacer:
    return Pacer(
        spec.concurrency, spec.stall_s, clock_ms(),
        first_wait_s=spec.retry_policy.first_wait_s, cuts_slots=not spec.adaptive,
        known=known,
    )  # fmt: skip


def _all(*calls: Callable[[], object]) -> None:
    for call in calls:
        call()


async def _token_meter(store: Store, spec: WorkSpec) -> TokenMeter:
    meter = TokenMeter(spec.max_answer_tokens)
    if tpm := max((spec.limits_of(server).tpm or 0 for server in spec.servers), default=0):
        for item_bytes, tokens in await store.recent_usage():
            meter.observe(item_bytes, min(tokens, tpm))
    return meter


def _budget_guard(
    spec: WorkSpec, servers: Servers, store: Store, committer: Committer, stats: Stats, log: RunLog
) -> BudgetGuard | None:
    if spec.budget is None:
        return None

    def waits(wait: BudgetWait) -> None:
        stats.budget_wait, stats.budget_wait_at = wait, clock_ms()

    return BudgetGuard(
        spec.budget, lambda server: servers[server].prices, store,
        reserve=committer.reserve, halt=committer.halt, warn=log.warn, waits=waits,
    )  # fmt: skip
