"""How many calls at once servers take, of all workers together, and each worker's share of them.

It is read and written with what a worker writes anyway, and kept for those that begin later, too. A
row is written only when it changes; of a server that has refused nothing there is none. The
arithmetic is in limits/shares.py.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import NamedTuple

from msgspec.structs import asdict, replace

from batchgen.limits.shares import Part, Parts, Share, SharedCap, Told
from batchgen.store.records import WorkerRow
from batchgen.store.server_wants import AskedServer
from batchgen.store.transaction import Rows, Transaction
from batchgen.store.transactions.living import workers

_BELIEVED_MS = 24 * 3_600_000
_FOUND_AGAIN_MS = 600_000  # so often that is noted
_SERVED_MS = 1000  # and so often that a worker is served


class _Kept(NamedTuple):
    """What stands of a server in the database."""

    parts: Parts
    found_at: int


class _Told(NamedTuple):
    """What becomes of it, and what the worker is told that told of it. `before` None: nothing had
    been found."""

    server: str
    before: _Kept | None
    after: Parts
    share: Share


def first_shares(
    db: Transaction, worker_id: int, slots: int, asked: Sequence[AskedServer],
    alive: Sequence[WorkerRow], now: int,
) -> dict[str, int]:  # fmt: skip
    """The shares of a worker that joins, besides those that are `alive`: as many calls as these do
    not hold. Nothing of a server of which nothing is known, or for too long."""
    shares = {}
    for one in asked:
        others = {row.id for row in alive if one.key in row.servers}
        kept = _kept(db, one.key, look_for_caps(db, [one.key])[one.key], others)
        if kept is None:
            continue
        if not others and kept.found_at <= now - _BELIEVED_MS:
            db.execute("forget_cap", {"server": one.key})
            continue
        parts = kept.parts if others else kept.parts.begun_anew()
        after, share = parts.tell(worker_id, Told(None, 0, slots), now)
        _write(db, worker_id, _Told(one.key, kept, after, share), now)
        shares[one.key] = share.calls
    return shares


def look_for_caps(db: Transaction, servers: Iterable[str]) -> dict[str, Rows]:
    """For `tell`; so it can be begun with other reads."""
    return {server: db.execute("cap", {"server": server}) for server in servers}


def tell(
    db: Transaction, worker_id: int, told: Mapping[str, Told], now: int,
    caps: Mapping[str, Rows] | None = None,
) -> dict[str, Share]:  # fmt: skip
    """By server, what a worker tells the others and is told itself. Nothing of those that have
    refused nobody. `caps` are those of these servers, where they were looked for before."""
    if (shares := told_as_before(db, worker_id, told, now, caps)) is not None:
        return shares
    db.lock("shares", sorted(told))
    done = _tell(db, worker_id, told, now)
    for one in done:
        _write(db, worker_id, one, now)
    return {one.server: one.share for one in done}


def told_as_before(
    db: Transaction, worker_id: int, told: Mapping[str, Told], now: int,
    caps: Mapping[str, Rows] | None = None,
) -> dict[str, Share] | None:  # fmt: skip
    """The same where nothing is to be written for it; None: something is."""
    done = _tell(db, worker_id, told, now, caps)
    if any(_has_changed(worker_id, one, now) for one in done):
        return None
    return {one.server: one.share for one in done}


def _tell(
    db: Transaction, worker_id: int, told: Mapping[str, Told], now: int,
    caps: Mapping[str, Rows] | None = None,
) -> list[_Told]:  # fmt: skip
    done, caps = [], look_for_caps(db, told) if caps is None else caps
    for server, one in told.items():
        if (kept := _kept(db, server, caps[server])) is not None:
            done.append(_Told(server, kept, *kept.parts.tell(worker_id, one, now)))
        elif one.takes is not None:
            asking = [row for row in workers(db) if server in row.servers]
            in_flight = {row.id: row.calls for row in asking}
            parts = Parts.found_by(worker_id, one, in_flight, {row.id: row.slots for row in asking})
            done.append(_Told(server, None, *parts.tell(worker_id, one, now)))
    return done


def _kept(
    db: Transaction, server: str, cap: Rows, workers: Container[int] | None = None
) -> _Kept | None:
    """As it is shared by these workers (None: by all)."""
    found = cap.fetchone()
    if found is None:
        return None
    calls, failed_rises, found_at = found
    rows = db.execute("shares", {"server": server})
    of = {id_: Part(*part) for id_, *part in rows if workers is None or id_ in workers}
    return _Kept(Parts(SharedCap(calls, failed_rises), of), found_at)


def _has_changed(worker_id: int, told: _Told, now: int) -> bool:
    """Whether something is to be written."""
    before = told.before
    if before is None or told.after.cap != before.parts.cap or worker_id not in before.parts.of:
        return True
    part, was = told.after.of[worker_id], before.parts.of[worker_id]
    is_served_again = part.served_at - was.served_at >= _SERVED_MS
    is_found_again = before.found_at < now - _FOUND_AGAIN_MS
    return is_found_again or is_served_again or replace(part, served_at=was.served_at) != was


def _write(db: Transaction, worker_id: int, told: _Told, now: int) -> None:
    if not _has_changed(worker_id, told, now):
        return
    after, before = told.after, told.before
    changed = after.of if before is None else {worker_id: after.of[worker_id]}
    rows = [{"server": told.server, "worker_id": id_} | asdict(one) for id_, one in changed.items()]
    db.execute_many("write_share", rows)
    if before is None or after.cap != before.parts.cap or before.found_at < now - _FOUND_AGAIN_MS:
        db.execute("write_cap", {"server": told.server, "now": now} | asdict(after.cap))
