"""Rows that are done followed by another plan, and stale rows asked once more."""

import json
from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from batchgen.items import State
from batchgen.steps import Followed
from batchgen.store.chain import Steps, made_of_parent
from batchgen.store.chain_records import FollowRow, MadeOf, Refollowed, StaleRow
from batchgen.store.deltas import CounterDeltas
from batchgen.store.plan import Parent
from batchgen.store.plan_follow import Change, Standing, change_of, made_of_seqs
from batchgen.store.plan_rows import followed_columns
from batchgen.store.transaction import Transaction
from batchgen.store.transactions.deltas import write_deltas
from batchgen.store.transactions.follow import Followers, standing, steps_of
from batchgen.store.transactions.gatherings import gather, passed_on_by
from batchgen.store.transactions.links import links_of
from batchgen.store.transactions.plans import chain_of
from batchgen.store.transactions.rows import bounded, rows_of

_GATHERINGS_AT_ONCE = 500


def follow_page(db: Transaction, experiment_id: int, after: int, limit: int) -> list[FollowRow]:
    which = {"experiment_id": experiment_id, "after": after, "limit": limit}
    page, _ = bounded(rows_of(db, "rows_to_follow", FollowRow, which), _chars_of)
    found = links_of(db, [row.item_id for row in page])
    return [replace(row, made_of=found.get(row.item_id, MadeOf(()))) for row in page]


def _chars_of(row: FollowRow) -> int:
    return len(row.input_json) + len(row.parsed_json or "") + len(row.response or "")


def write_followed(
    db: Transaction, rows: Sequence[tuple[FollowRow, Followed]], now: int
) -> Refollowed:
    deltas = CounterDeltas()
    followers = Followers(db, steps_of(db, {row.experiment_id for row, _ in rows}), deltas)
    there = {row.item_id: row for row in standing(db, [row.item_id for row, _ in rows])}
    parents = []
    for row, followed in rows:
        standing_row = there.get(row.item_id)
        if standing_row is not None and _still_stands(standing_row, row, followed, followers.steps):
            set_followed(db, standing_row, followed, followers)
            parents.append(
                Parent(row.item_id, row.experiment_id, row.result_seq, followed, is_new=False)
            )
    followers.follow(parents)
    gather(db, followers, (), now)
    write_deltas(db, deltas)
    skipped = {row.item_id for row, _ in rows} - {parent.item_id for parent in parents}
    return Refollowed(skipped, followers.unasked)


def standing_children(
    db: Transaction, rows: Sequence[tuple[FollowRow, Followed]]
) -> set[tuple[int, int, int]]:
    """Of the rows that would be made, by parent, number of their step, and element."""
    steps = steps_of(db, {row.experiment_id for row, _ in rows})
    ids = {"ids": json.dumps([row.item_id for row, _ in rows])}
    below = standing(db, [item_id for (item_id,) in db.execute("children_of", ids)])
    there = {(row.parent_id, row.experiment_id, row.element): row for row in below}
    found = set[tuple[int, int, int]]()
    for row, followed in rows:
        for child in followed.children:
            step = steps.find_beside(row.experiment_id, child.number)
            key = (row.item_id, step.experiment_id, child.element) if step else None
            if key in there and not _would_be_asked(there[key], followed, child.input_json):
                found.add((row.item_id, child.number, child.element))
    return found


def _would_be_asked(row: Standing, followed: Followed, input_json: str) -> bool:
    now = made_of_parent(followed.passed_on, input_json)
    was = None if row.parent_result is None else made_of_parent(row.stands_for, row.input)
    has_no_answer = row.result_seq is None and row.answer_seq is None
    return change_of(row, was, now) is Change.RENEW or (row.state == State.STALE and has_no_answer)


def _still_stands(there: Standing, row: FollowRow, followed: Followed, steps: Steps) -> bool:
    is_same = there.state == State.DONE and there.result_seq == row.result_seq
    return is_same and steps.plan_id(row.experiment_id) == followed.plan_id


def set_followed(db: Transaction, row: Standing, followed: Followed, followers: Followers) -> None:
    """Of its present result."""
    children, passed_over = len(followed.children), followed.passed_over
    if row.children is not None:
        before = row.children, row.passed_over or 0
        followers.steps.count(followers.deltas, row.experiment_id, *before, -1)
    followers.steps.count(followers.deltas, row.experiment_id, children, passed_over, +1)
    if (row.children == 0) != (children == 0):  # its chain ends here, or does no more: files tell
        followers.deltas.supersede(row.experiment_id)
    db.execute("set_followed", {
        "seq": row.result_seq, **followed_columns(followed)
    })  # fmt: skip
    if row.gathering is not None:
        followers.touched.add(row.gathering)


def gather_missing(db: Transaction, first_id: int, now: int) -> int:
    """Gatherings that were complete before their step was there; how many."""
    chain = chain_of(db, first_id)
    assert chain is not None
    ids = json.dumps([step.experiment_id for step in chain.steps])
    which = {"ids": ids, "limit": _GATHERINGS_AT_ONCE}
    roots = [root for (root,) in db.execute("gatherings_without_row", which)]
    deltas = CounterDeltas()
    gather(db, Followers(db, Steps(), deltas), roots, now)
    write_deltas(db, deltas)
    return len(roots)


def end_following(db: Transaction, first_id: int, plan_id: int) -> None:
    db.execute("end_following", {"first_id": first_id, "plan_id": plan_id})


def stale_page(db: Transaction, experiment_id: int, after: int, limit: int) -> list[StaleRow]:
    which = {"experiment_id": experiment_id, "after": after, "limit": limit}
    ids = [item_id for (item_id,) in db.execute("stale_page", which)]
    unmade = {item_id for (item_id,) in db.execute("unmade", {"ids": json.dumps(ids)})}
    return [
        StaleRow(row.item_id, change is None, change is Change.RENEW, row.item_id in unmade)
        for row, change in _changes(db, ids)
    ]


def reopen_stale(db: Transaction, rows: Sequence[StaleRow], now: int) -> tuple[int, int]:
    changes = [
        (row, change) for row, change in _changes(db, [row.item_id for row in rows])
        if change is not None and row.state == State.STALE
    ]  # fmt: skip
    deltas = CounterDeltas()
    followers = Followers(db, Steps(), deltas)
    followers.know(row for row, _ in changes)
    asked = [row.item_id for row, change in changes if change is Change.RENEW]
    followers.change(changes)
    db.execute_many("give_present_recipe", [{"item_id": item_id} for item_id in asked])
    gather(db, followers, (), now)
    write_deltas(db, deltas)
    return len(asked), len(changes) - len(asked)


def _changes(db: Transaction, item_ids: Iterable[int]) -> list[tuple[Standing, Change | None]]:
    """What may become of stale rows: asked anew or, where they have seen the same, restored.
    None: what they are made of is not there yet, or no more."""
    rows = standing(db, item_ids)
    ids = {"ids": json.dumps([row.item_id for row in rows])}
    ready = {item_id for (item_id,) in db.execute("parents_done", ids)}
    found = list[tuple[Standing, Change | None]]()
    for row in rows:
        change = None
        if row.item_id in ready:
            now = _hash_now(db, row)
            has_answer = row.result_seq is not None or row.answer_seq is not None
            is_same = has_answer and change_of(row, now, now) is Change.RESTORE
            change = Change.RESTORE if is_same else Change.RENEW
        found.append((row, change))
    return found


def _hash_now(db: Transaction, row: Standing) -> bytes:
    if row.gathered is None:
        return made_of_parent(row.stands_for, row.input)
    return made_of_seqs(row.gathered, passed_on_by(db, row.gathered))
