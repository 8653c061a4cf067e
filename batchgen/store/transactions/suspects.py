"""Suspects, in the table: how they end, by themselves or with those who could have told more."""

import json
from collections.abc import Sequence

from batchgen.items import Fail, Reason, State
from batchgen.store.chain import Steps
from batchgen.store.deltas import CounterDeltas
from batchgen.store.plan import parser_of
from batchgen.store.plan_rows import result_row
from batchgen.store.transaction import Transaction
from batchgen.store.transactions.deltas import write_deltas
from batchgen.store.transactions.finish import NOTHING, made_of_now
from batchgen.store.transactions.results import append_results
from batchgen.store.transactions.rows import rows_of
from batchgen.store.trial import Accusation, SuspectRow, accusation_of, left_to_themselves


def forget_trials(db: Transaction, server: str, now: int) -> None:
    """When nobody asks this server any more: the next workers find out for themselves. Suspects
    wait no longer: those that no others make doubtful have failed by themselves."""
    suspects = list(rows_of(db, "suspects", SuspectRow, {"server": server}))
    acquit(db, left_to_themselves(suspects), now)
    for query in (
        "release_suspects", "forget_proven_recipes", "forget_suspects", "forget_condemned_run",
        "forget_sole_asker", "forget_calls_on_trial",
    ):  # fmt: skip
        db.execute(query, {"server": server})


def forget_trials_of_the_last(db: Transaction, server: str, now: int) -> None:
    """After a worker has gone that asked this server, unless there are others; but not a verdict,
    which counts for the rest of its run."""
    (left,) = db.execute("count_workers_of_server", {"server": server}).fetchone()
    if not left and condemned_run(db, server) is None:
        forget_trials(db, server, now)


def forget_trials_of_other_runs(db: Transaction, server: str, run: str, now: int) -> None:
    """Before a worker joins, where nobody else asks this server."""
    if condemned_run(db, server) != run:
        forget_trials(db, server, now)


def condemned_run(db: Transaction, server: str) -> str | None:
    row = db.execute("condemned_run", {"server": server}).fetchone()
    return None if row is None else str(row[0])


def acquit(db: Transaction, suspects: Sequence[SuspectRow], now: int) -> None:
    """The fault was their own: they fail or, where another try may do, wait for it."""
    failing = [one.item_id for one in suspects if one.reason is not None]
    deltas, result_seq = CounterDeltas(), db.first_new("results", len(failing))
    made = made_of_now(db, failing)
    for one in suspects:
        db.execute("forget_suspect", {"item_id": one.item_id})
        if one.reason is None:
            charged = accusation_of(one.alike) is not Accusation.CUT  # that is the pacer's matter
            retry = {"item_id": one.item_id, "available_at": one.available_at, "tries": charged}
            db.execute("retry_suspect", retry)
            deltas.retry(one.experiment_id)
            continue
        failed = {"item_id": one.item_id, "result_seq": result_seq}
        if db.execute("fail_suspect", failed).rowcount == 1:
            end = Fail(Reason(one.reason), one.error)
            found = db.execute("parser_of_item", {"item_id": one.item_id}).fetchone()
            parser_id = parser_of(end, found[0])
            row = result_row(
                result_seq, one.item_id, one.attempt_seq, end, now, parser_id=parser_id,
                made_of=made.get(one.item_id, NOTHING).hash,
            )  # fmt: skip
            append_results(db, [row])
            result_seq += 1
            deltas.end(one.experiment_id, now, failed=True)
            deltas.parse(one.experiment_id, parser_id, +1)
            deltas.move(one.experiment_id, State.PENDING, -1)
            deltas.move(one.experiment_id, State.FAILED, +1, one.reason)
    _gather(db, [one.item_id for one in suspects if one.reason is not None], deltas, now)
    write_deltas(db, deltas)


def _gather(db: Transaction, failed: Sequence[int], deltas: CounterDeltas, now: int) -> None:
    """What these items were the last of."""
    ids = {"ids": json.dumps(failed)}
    roots = db.execute("gatherings_of", ids).fetchall() if failed else []
    if roots:
        from batchgen.store.transactions.follow import Followers  # here: few have steps
        from batchgen.store.transactions.gatherings import gather

        gather(db, Followers(db, Steps(), deltas), [root for (root,) in roots], now)
