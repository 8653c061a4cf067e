"""One worker: N slots that claim an item, ask the model, decide what the reply means, and hand in.

    slot:  item -> request -> client -> decide -> [answer durable] -> parse -> hand in -> next item

A user's parser runs only after the raw answer is committed, off the event loop and with a deadline,
so that nothing it does can cost the answer. Built-in parsers cannot fail the process; they run
first and share the commit. After a crash an item with an answer and no parse is parsed, not asked
for again.

This is the door: `run_worker`. Behind it:

    slots       the tasks that claim and hand in; stopping
    claims      one item: ask, decide, parse
    calls       the call itself; a second one for a straggler
    parameters  what follows when the server rejects one
    requests    what is asked for an item
    stragglers  the calls under way, and which are late
    report      what a worker reports to other terminals; reporting gathers it
    options     what a worker tells while it runs
    spec        what a worker is to do
"""

from collections.abc import Mapping
from functools import partial

from batchgen.clock import clock_ms
from batchgen.limits import TokenMeter
from batchgen.llm.client import Client
from batchgen.llm.prices import Prices
from batchgen.parsers import Parser
from batchgen.shutdown import Stop
from batchgen.store import Store
from batchgen.worker.claims import Claims
from batchgen.worker.committer import Committer
from batchgen.worker.options import RunLog, Stats
from batchgen.worker.pacer import Pacer
from batchgen.worker.reporting import make_report
from batchgen.worker.slots import Slots
from batchgen.worker.spec import WorkSpec
from batchgen.worker.stragglers import CallsUnderWay

__all__ = ["RunLog", "Stats", "WorkSpec", "run_worker"]


async def run_worker(
    store: Store, client: Client, spec: WorkSpec, *, prices: Prices, parsers: Mapping[str, Parser],
    stop: Stop, stats: Stats, log: RunLog,
) -> None:  # fmt: skip
    """Work until nothing is left, or `stop`, or a halt (`stats.halted` says why). `parsers` are
    those that no name can load, by their spec.

    Raises StoreError when the database fails, ConfigError when an item's parser cannot be loaded;
    in each case the items in flight are finished or given back first.
    """
    max_crashes = spec.retry_policy.max_attempts
    async with store.seat(spec.slots, spec.lease_s, max_crashes) as seat:
        pacer = Pacer(
            spec.slots, spec.stall_s, clock_ms(), cuts_slots=not spec.limits.adaptive
        )  # fmt: skip
        meter = TokenMeter(spec.max_answer_tokens)
        if spec.limits.tokens_per_minute is not None:
            for item_bytes, tokens in await store.recent_usage():
                meter.observe(item_bytes, tokens)
        committer = Committer(seat, pacer, spec, meter, warn=log.warn)
        calls = CallsUnderWay(stats.latencies_ms)
        committer.report = partial(make_report, stats, calls, committer, pacer)
        claims = Claims(store, client, spec, prices, parsers, committer, pacer, stats, calls, log)
        await Slots(claims, spec, committer, pacer, stats, log).run(stop)
