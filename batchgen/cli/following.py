"""What is said of rows that were done by other rules of their steps, and are followed by the
present ones."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from batchgen.cli.progress import Latest, Pace, showing_progress
from batchgen.cli.session import Session, counted
from batchgen.store import Store

if TYPE_CHECKING:  # what has no steps need not load them
    from batchgen.jobs.follow import FollowResult


async def follow_scope(session: Session, store: Store, experiments: Sequence[int] | None) -> None:
    """Before work on these experiments (None: all): an enqueueing that was stopped in the middle of
    it is ended."""
    known = await store.experiments()
    chosen = [one for one in known if experiments is None or one.id in experiments]
    firsts = dict.fromkeys(one.first_id or one.id for one in chosen if one.step is not None)
    names = {one.id: one.name for one in known}
    for first_id in firsts:
        from batchgen.jobs.follow import follow_done  # here: few have steps

        so_far, pace = Latest(0), Pace()

        def line(
            name: str = names[first_id], so_far: Latest[int] = so_far, pace: Pace = pace
        ) -> str:
            return f"{name}: {so_far.value:,} done rows followed, {pace.of(so_far.value)}"

        with showing_progress(session, line):
            followed = await follow_done(store, first_id, so_far.put)
        say_followed(session, names[first_id], followed)


def say_followed(session: Session, name: str, followed: "FollowResult | None") -> None:
    if followed is None or not followed.rows:
        return
    made = ", ".join(f"{n:,} of {step}" for step, n in followed.added.items()) or "none"
    rows = counted(followed.rows, "done row")
    line = f"{name}: {rows} followed by the new steps, which makes these rows new: {made}"
    if followed.failed:
        line += f"; {followed.failed:,} failed, as there was no list for a step with each"
    session.say(line)
