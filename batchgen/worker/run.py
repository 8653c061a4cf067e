"""A worker put together from its parts, and its run from the first claim to the last."""

from collections.abc import Mapping
from functools import partial

from batchgen.clock import clock_ms
from batchgen.limits import TokenMeter
from batchgen.llm.client import Client
from batchgen.llm.prices import Prices
from batchgen.parsers import Parser
from batchgen.shutdown import Stop
from batchgen.store import Store
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
from batchgen.worker.reporting import make_report
from batchgen.worker.requests import Requests
from batchgen.worker.slots import Slots
from batchgen.worker.spec import WorkSpec
from batchgen.worker.stats import RunLog, Stats
from batchgen.worker.store_retries import StoreRetries
from batchgen.worker.stragglers import CallsInFlight


async def run_worker(
    store: Store, client: Client, spec: WorkSpec, *,
    prices: Prices, parsers: Mapping[str, Parser],
    stop: Stop, stats: Stats, log: RunLog,
) -> None:  # fmt: skip
    """Work until nothing is left, or `stop`, or a halt (`stats.halted` says why). `parsers` are
    those that no name can load, by their spec.

    Raises StoreError when the database fails, ConfigError when an item's parser cannot be loaded;
    in each case the items in flight are finished or given back first.
    """
    async with store.seat(spec.concurrency, spec.lease_s, spec.retry_policy.max_attempts) as seat:
        pacer = Pacer(
            spec.concurrency, spec.stall_s, clock_ms(),
            first_wait_s=spec.retry_policy.first_wait_s, cuts_slots=not spec.limits.adaptive,
        )  # fmt: skip
        permits = Permits(pacer)
        store_retries = StoreRetries(permits, spec.store_retry_s, log.warn)
        demand = Demand(spec, pacer, permits, await _token_meter(store, spec))
        calls_in_flight = CallsInFlight(stats.latencies_ms)
        membership = Membership(
            seat, spec, pacer, demand, store_retries,
            report=partial(make_report, stats, calls_in_flight, pacer), warn=log.warn,
        )  # fmt: skip
        committer = Committer(
            seat, demand, membership, permits, store_retries, spec.budget, stats, log.bug
        )  # fmt: skip
        requests = Requests(store, spec, parsers)
        stages = Stages(
            requests,
            _budget_guard(spec, prices, store, committer),
            Calls(client, committer, pacer, calls_in_flight, hedge=spec.hedge),
            Judge(
                spec.retry_policy, prices, pacer, stats,
                RejectedParameters(requests.leave_out, log.warn),
                halt=committer.halt, charge_late=committer.charge_late,
            ),
            AnswerParser(spec.retry_policy, spec.parse_timeout_s),
            committer, pacer, log,
        )  # fmt: skip
        await Slots(stages, spec, committer, membership, permits, stats, log).run(stop)


async def _token_meter(store: Store, spec: WorkSpec) -> TokenMeter:
    meter = TokenMeter(spec.max_answer_tokens)
    if spec.limits.tpm is not None:
        for item_bytes, tokens in await store.recent_usage():
            meter.observe(item_bytes, min(tokens, spec.limits.tpm))
    return meter


def _budget_guard(
    spec: WorkSpec, prices: Prices, store: Store, committer: Committer
) -> BudgetGuard | None:
    if spec.budget is None:
        return None
    return BudgetGuard(
        spec.budget, prices, store, reserve=committer.reserve, halt=committer.halt
    )  # fmt: skip
