"""What is said of rows that were done by other rules of their steps, and are followed by the
present ones."""

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from batchgen.cli.progress import Latest, Pace, showing_progress
from batchgen.cli.session import Session, counted
from batchgen.config import Config
from batchgen.errors import ConfigError
from batchgen.jobs.present_parser import load_reader, present_spec
from batchgen.store import Store

if TYPE_CHECKING:  # what has no steps need not load them
    from batchgen.jobs.follow import FollowResult
    from batchgen.jobs.missing_lists import Readers


async def follow_scope(
    session: Session, store: Store, config: Config, experiments: Sequence[int] | None
) -> None:
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

        readers = await _readers(store, config, first_id)
        with showing_progress(session, line):
            followed = await follow_done(
                store, first_id, readers, so_far.put, timeout_s=config.work.parse_timeout_s
            )
        say_followed(session, names[first_id], followed)


async def _readers(store: Store, config: Config, first_id: int) -> "Readers":
    """Of the steps of a chain, those that can be loaded; none where nothing is to be followed."""
    chain = await store.chain_of(first_id)
    found = {}
    if chain is not None and not chain.is_followed:
        for one in await store.experiments():
            if one.step is not None and first_id in (one.id, one.first_id):
                with suppress(ConfigError):
                    spec = await present_spec(store, config, one)
                    found[one.step] = load_reader(spec, config, one)
    return found


def say_followed(session: Session, name: str, followed: "FollowResult | None") -> None:
    if followed is None or not (followed.rows or followed.read_again):
        return
    made = ", ".join(f"{n:,} of {step}" for step, n in followed.added.items()) or "none"
    rows = counted(followed.rows, "done row")
    line = f"{name}: {rows} followed by the new steps, which makes these rows new: {made}"
    if followed.failed:
        line += f"; {followed.failed:,} failed, as there was no list for a step with each"
    if followed.read_again:
        n = followed.read_again
        line += f"; {counted(n, 'row')} that had failed for want of a list "
        line += f"{'is' if n == 1 else 'are'} read again, without a call"
    session.say(line)
