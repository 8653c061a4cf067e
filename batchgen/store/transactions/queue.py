"""The transactions of the workers: join, exchange, leave, and taking over from the dead.

`exchange` is the heart: what the slots finished is written, and what the freed slots do next is
claimed, in one transaction. So the fsync is shared by every result and claim of a tick, a slot gets
its next item in the very transaction that made its last answer durable, and the rows in state
`running` are exactly the calls that may be in flight.

Fencing: every claim has its epoch, and an outcome counts only while the row still has it (plan.py).
A worker that was taken for dead changes nothing; its paid answers are still appended to `attempts`.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from batchgen.items import Item, Outcome, State
from batchgen.limits import Allowance, Limits, Told
from batchgen.store.calls_ahead import CallsAhead
from batchgen.store.plan import Plan
from batchgen.store.records import Counts, WorkerKind
from batchgen.store.server_wants import AskedServer, ServerWant, in_turn
from batchgen.store.transaction import Transaction
from batchgen.store.transactions.capacities import look_for_caps, tell
from batchgen.store.transactions.claimed import items_claimed, with_values
from batchgen.store.transactions.claims import claim, earliest, experiments_to_claim, note_claims
from batchgen.store.transactions.finish import finish, give_back
from batchgen.store.transactions.limiter import InHand, Limiters, second_calls_of
from batchgen.store.transactions.living import workers
from batchgen.store.transactions.quota import Quota, quota_of
from batchgen.store.transactions.rows import rows_of
from batchgen.store.transactions.selections import counts_of_selection, others_have_come
from batchgen.store.transactions.steering import look_for_orders, orders_in
from batchgen.store.transactions.suspects import forget_trials_of_the_last
from batchgen.store.transactions.trials_of_servers import Trials
from batchgen.store.values import ClaimRequest, Condemned, Exchange, Failed

if TYPE_CHECKING:  # what has no steps need not load them
    from batchgen.store.plan_links import Made

_CLOCK_SET_BACK_MS = 75_000


def join(
    db: Transaction, machine: tuple[str, str], pid: int, slots: int, now: int,
    lease_ms: int, servers: Sequence[AskedServer] = (), kind: WorkerKind = WorkerKind.CALLER,
) -> int:  # fmt: skip
    """Add a worker that asks these servers; its id is never used again."""
    host, boot_id = machine
    row = {
        "host": host, "boot_id": boot_id, "pid": pid, "slots": slots, "now": now,
        "lease_until": now + lease_ms, "servers": json.dumps([one.key for one in servers]),
        "kind": str(kind),
    }  # fmt: skip
    for one in servers:
        db.execute("know_server", {"key": one.key, "name": one.name})
    (worker_id,) = db.execute("join_worker", row).fetchone()
    return int(worker_id)


def heartbeat(db: Transaction, worker_id: int, lease_until: int) -> bool:
    """Extend the lease. False: this worker was taken for dead, and its claims are others' now."""
    row = {"worker_id": worker_id, "lease_until": lease_until}
    return db.execute("heartbeat", row).rowcount == 1


def remove_worker(
    db: Transaction, worker_id: int, *, crashed: bool, max_crashes: int, now: int,
    kind: WorkerKind = WorkerKind.CALLER,
) -> int:  # fmt: skip
    """Remove a worker, and give its claims back to the others; how many these were."""
    sends = kind is WorkerKind.SENDER
    n = give_back(db, worker_id, crashed=crashed, sends=sends, max_crashes=max_crashes, now=now)
    db.execute("drop_reservations", {"worker_id": worker_id})
    servers = db.execute("servers_of_worker", {"worker_id": worker_id}).fetchall()
    db.execute("remove_worker", {"worker_id": worker_id})
    for (server,) in servers:
        forget_trials_of_the_last(db, server, now)
    return n


def conclude_trials(
    db: Transaction, worker_id: int, want: ClaimRequest, now: int
) -> dict[str, Condemned]:
    """This worker asks no more: of a server that no other asks, what is known must do."""
    others = [row for row in workers(db) if row.id != worker_id]
    asked = {server for row in others for server in row.servers}
    alone = replace(
        want, servers=tuple(map(_watched, (s for s in want.servers if s.server not in asked)))
    )
    trials = Trials(db, worker_id, alone, now, partial(_open, db, want))
    trials.learn([])
    trials.judge([], Plan(0, 0))
    if not trials.condemned:
        trials.conclude(nobody_left=True)
    return trials.condemned


def _watched(want: ServerWant) -> ServerWant:
    """It may have suspects of workers that are gone."""
    return replace(want, trial=want.trial and replace(want.trial, watches=True))


def shift_retry_times(db: Transaction, now: int, back: int | None = None) -> None:
    """When the clock was set back, retries that were due in a moment would wait as long as it was.

    `back` in ms; None: nobody knows, but the newest call must not lie ahead. Twice does no harm,
    but to a wait of more than half of it. A little is not worth it: waits are of up to a minute.
    """
    if back is None:
        (newest,) = db.execute("newest_attempt_at").fetchone() or (0,)
        back = newest - now
    if back > _CLOCK_SET_BACK_MS:
        db.execute("shift_retry_times", {"back": back, "after": now + back // 2})


def charge(db: Transaction, items: Iterable[Item]) -> None:
    db.execute_many("charge", [{"item_id": item.id} for item in items])


def begin_second_calls(
    db: Transaction, items: Sequence[Item], limits: Mapping[str, Limits], now: int
) -> set[int]:
    """`limits` are those of the servers."""
    claims = json.dumps({item.id: item.epoch for item in items})
    begun = db.execute("begin_second_calls", {"claims": claims}).fetchall()
    ours = {item_id for (item_id,) in begun}
    if ours:
        second_calls_of(db, [item for item in items if item.id in ours], limits, now)
    return ours


def exchange(
    db: Transaction,
    worker_id: int,
    outcomes: Sequence[Outcome],
    want: ClaimRequest,
    now: int,
    ahead: CallsAhead | None = None,
    after: int = 0,
) -> Exchange:
    """Write what the slots finished, and claim what the free ones do next: as many as the limits
    let through, or as this worker has taken `ahead` of that; where that spares a look through
    those before it, fresh ones `after` an item."""
    found_orders = look_for_orders(db, worker_id)
    caps = look_for_caps(db, [one.server for one in want.servers if one.told is not None])
    trials = Trials(db, worker_id, want, now, partial(_open, db, want))
    outcomes = trials.learn(outcomes)
    at_once = _begin_at_once(db, worker_id, want, outcomes, ahead, after, trials, now)
    finished = finish(db, worker_id, outcomes, now)
    trials.judge(outcomes, finished)
    orders = orders_in(found_orders)
    limiters = InHand(ahead, want.servers) if ahead else Limiters(db, want.servers, now)
    limiters.settle(outcomes)
    failed = _too_many_failed(db, want)
    outgrown = _is_outgrown(db, want)
    claims_nothing = orders is None or orders.claims_nothing or failed or outgrown
    allowed = limiters.allow({} if claims_nothing else trials.may_begin())
    quota = quota_of(db, want, partial(_counts, db, want))
    claimed = _at_once(db, want, at_once)
    due_at = None
    if len(claimed) < want.slots:
        rest, left = _rest(allowed, claimed), want.calls - len(claimed)
        others, due_at = _claim(
            db, worker_id, want, rest, trials, quota, left, now, finished.made
        )  # fmt: skip
        claimed += others
    items = trials.keep(claimed)
    limiters.take(items)
    limiters.write()
    done = Exchange(
        items, finished.attempt_seqs, orders, finished.lost,
        proven=trials.proven, on_trial=trials.on_trial, suspects=trials.suspects,
        condemned=trials.condemned, acquitted=trials.acquitted,
        failed=failed,
        shares={} if orders is None else tell(db, worker_id, _told(want, items), now, caps),
    )  # fmt: skip
    if len(items) == want.slots:
        return done
    limited = _limited(allowed)
    asked, most = _asked(want, items), sum(_room(want, allowed).values())
    return replace(
        done,
        open=_open(db, want),
        next_at=_look_at(due_at, limited if _asked(want, claimed) == most else {}, trials),
        enough=outgrown or quota.is_met,
        limited=limited if asked == most else {},
    )


def _told(want: ClaimRequest, items: Sequence[Item]) -> dict[str, Told]:
    """What it tells of the servers, with what is claimed now; where there was too little to claim,
    it needs no more."""
    told = {}
    is_enough = _asked(want, items) >= want.calls
    for one in want.servers:
        if one.told is not None:
            in_flight = one.told.in_flight + sum(item.server == one.server for item in items)
            needs = one.told.needs if is_enough else in_flight
            told[one.server] = replace(one.told, in_flight=in_flight, needs=needs)
    return told


def _begin_at_once(
    db: Transaction, worker_id: int, want: ClaimRequest, outcomes: Sequence[Outcome],
    ahead: CallsAhead | None, after: int, trials: Trials, now: int,
) -> Iterator[Item] | None:  # fmt: skip
    """Claims with the first answer that is waited for, where nothing that an exchange may find out
    until then, or writes, can say that there are to be none, or others. What is found too few that
    way is claimed as usual."""
    one, experiments = want.servers[0] if want.servers else None, want.experiments or (None,)
    if one is None or len(want.servers) > 1 or len(experiments) > 1 or not db.is_far:
        return None
    depends = want.until or want.selection or want.max_failures or trials.watches
    is_plain = one.experiments is None and one.probes is None and not one.runs_code
    if depends or not is_plain or (one.limits.any and ahead is None):
        return None
    if any(outcome.item.plan_id is not None for outcome in outcomes):
        return None  # what follows them comes first
    calls = want.calls
    if ahead is not None:
        calls = ahead.allowed(want.servers, {one.server: calls})[one.server].calls
    if not calls:
        return None
    row = {
        "worker_id": worker_id, "experiment_id": experiments[0], "want": calls,
        "server": one.server, "now": now, "after": after,
    }  # fmt: skip
    return rows_of(db, "claim_at_once", Item, row)


def _at_once(db: Transaction, want: ClaimRequest, begun: Iterator[Item] | None) -> list[Item]:
    """What was claimed with that."""
    if begun is None or not (found := list(begun)):
        return []
    note_claims(db, Counter(item.experiment_id for item in found))
    return with_values(db, found, {one.server: one for one in want.servers}, {})


def _claim(
    db: Transaction, worker_id: int, want: ClaimRequest, allowed: Mapping[str, Allowance],
    trials: Trials, quota: Quota, left: int, now: int, made: "Made",
) -> tuple[list[Item], int | None]:  # fmt: skip
    """As many items as are allowed, of which `left` may be calls, each for a server, or for the
    user's code; also when the next retry will be due, if these are fewer. Servers that answer
    nobody get probes, each its own."""
    wants = {one.server: one for one in want.servers}
    found: list[Item] = []
    due_at: int | None = None
    for experiments, of_these in _by_experiments(want, _in_order(db, want)).items():
        servers = _servers(of_these, allowed, left)
        chosen = experiments_to_claim(db, want, experiments)
        for probes, of in _by_probes(of_these, trials).items():
            if share := [server for server in servers if server in of]:
                claimed, due = claim(db, worker_id, want, chosen, probes, len(share), quota, now)
                items = items_claimed(db, dict(zip(claimed, share, strict=False)), wants, made)
                found += items if probes is None else [replace(one, probe=True) for one in items]
                due_at = earliest(due_at, due)
                left -= _asked(want, items)
    return found, due_at


def _rest(allowed: Mapping[str, Allowance], claimed: Sequence[Item]) -> Mapping[str, Allowance]:
    """What these leave of it."""
    if not claimed:
        return allowed
    used = Counter(item.server for item in claimed)
    return {
        server: replace(one, calls=max(0, one.calls - used[server]))
        for server, one in allowed.items()
    }


_Wants = dict[str, ServerWant]


def _in_order(db: Transaction, want: ClaimRequest) -> Sequence[int]:
    """The experiments in the order of claiming, as far as servers answer different ones."""
    answer_some = any(one.experiments is not None for one in want.servers if not one.runs_code)
    if want.experiments is None and answer_some:
        return [id_ for (id_,) in db.execute("open_experiments")]
    return want.experiments or ()


def _by_experiments(
    want: ClaimRequest, in_order: Sequence[int]
) -> dict[tuple[int, ...] | None, _Wants]:
    """The servers by what they answer: what needs none comes first, and then what comes first among
    the experiments. What one finds no row for is left to those after it."""
    places = {id_: place for place, id_ in enumerate(in_order)}
    last = len(places)

    def place(one: ServerWant) -> tuple[bool, int]:
        first = min((places.get(id_, last) for id_ in one.experiments or ()), default=last)
        return not one.runs_code, first

    groups: dict[tuple[int, ...] | None, _Wants] = {}
    for one in sorted(want.servers, key=place):
        groups.setdefault(one.experiments, {})[one.server] = one
    return groups


def _servers(wants: _Wants, allowed: Mapping[str, Allowance], calls: int) -> list[str]:
    """The one of each row that may be claimed for these, of which so many may be calls."""
    room = {server: allowed[server].calls for server in wants}
    if any(one.runs_code for one in wants.values()):
        return [server for server, rows in room.items() for _ in range(rows)]
    return in_turn(room, {server: one.capacity for server, one in wants.items()}, calls)


def _by_probes(wants: _Wants, trials: Trials) -> dict[int | None, set[str]]:
    """The servers by how many probes they have had; None: they need none."""
    groups: dict[int | None, set[str]] = {}
    for server, want in wants.items():
        probes = trials.probes(server)
        groups.setdefault(want.probes if probes is None else probes, set()).add(server)
    return groups


def _room(want: ClaimRequest, allowed: Mapping[str, Allowance]) -> dict[str, int]:
    """By server, how many calls it may be sent."""
    return {one.server: allowed[one.server].calls for one in want.servers if not one.runs_code}


def _asked(want: ClaimRequest, items: Sequence[Item]) -> int:
    """How many of these are asked of a server."""
    code = {one.server for one in want.servers if one.runs_code}
    return sum([item.server not in code for item in items]) if code else len(items)


def _look_at(
    due_at: int | None, limited: Mapping[str, Allowance], trials: Trials
) -> int | None:  # fmt: skip
    """When there may be more. While limits hold claims back, what comes due before they allow more
    is worth no look."""
    times = [one.next_at for one in limited.values()] if limited else [due_at]
    return earliest(*times, trials.look_again_at)


def _limited(allowed: Mapping[str, Allowance]) -> dict[str, Allowance]:
    return {server: one for server, one in allowed.items() if one.next_at is not None}


def _counts(db: Transaction, want: ClaimRequest) -> Counts:
    """Items by state, of those wanted."""
    counts = _counts_of_experiments(db, want)
    return counts_of_selection(db, want.selection, counts) if want.selection else counts


def _counts_of_experiments(db: Transaction, want: ClaimRequest) -> Counts:
    counts = Counts()
    for experiment_id, state, reason, n in db.execute("counters"):
        if want.experiments is None or experiment_id in want.experiments:
            setattr(counts, state, getattr(counts, state) + n)
            if state == State.FAILED and n:
                counts.reasons[reason] += n
    counts.ended = counts.done  # of chains, `quota` counts these itself
    return counts


def _open(db: Transaction, want: ClaimRequest) -> int:
    """But for rows in provider batches, unless it is those that are waited for."""
    found = _counts(db, want).open
    if found and not want.waits_for_batches:
        found -= sum(
            rows
            for experiment_id, rows in db.execute("rows_in_batches")
            if want.experiments is None or experiment_id in want.experiments
        )
    return max(0, found)


def _is_outgrown(db: Transaction, want: ClaimRequest) -> bool:
    """Whether others could be claimed along with those of the selection."""
    return want.selection is not None and any(
        others_have_come(db, want.selection, experiment_id)
        for experiment_id in want.experiments or ()
    )


def _too_many_failed(db: Transaction, want: ClaimRequest) -> Failed | None:
    if want.max_failures is None:
        return None
    counts = _counts_of_experiments(db, want)
    if not want.max_failures.is_reached(counts.failed, counts.total):
        return None
    (newest,) = db.execute("newest_failure").fetchone() or ("",)
    return Failed(counts.failed, counts.total, counts.reasons, newest)
