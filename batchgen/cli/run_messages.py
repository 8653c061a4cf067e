"""What work, run and demo say as they are stopped, and in the end."""

from batchgen.cli.hints import batchgen, of_experiment, with_hint
from batchgen.cli.session import Session, counted
from batchgen.cli.terminal import say
from batchgen.display.status import reasons_text
from batchgen.jobs.work import WorkResult
from batchgen.store import Counts


def stopping_line(now: bool, in_flight: int, grace_s: float) -> str:
    """What a signal does; `now`: it is the second."""
    calls = counted(in_flight, "call")
    if now:
        return f"stopping now; abandoning {calls} in flight, to be sent again by the next run"
    return f"stopping: {calls} in flight, waiting up to {grace_s:g} s. Ctrl-C again stops at once."


def leaving_line(requests: int) -> str:
    """What a signal does to a run in provider batches."""
    if not requests:
        return "stopping: nothing is at the provider."
    go_on = "goes" if requests == 1 else "go"
    return (
        f"stopping: {counted(requests, 'request')} in provider batches {go_on} on at the provider; "
        "run the same command to collect them."
    )


def say_result(session: Session, result: WorkResult) -> None:
    """The closing lines: what is done, why not all of it, and what to do next."""
    counts, stats = result.counts, result.stats
    left = counts.pending + counts.running
    ended = "" if counts.ended == counts.done else f" ({counts.ended} to the end of their steps)"
    session.say(
        f"{counts.done} done{ended}, {counts.failed} failed, {left} left; "
        f"{counted(stats.calls, 'call')} in this run"
    )
    if stats.halted:
        say(f"halted: {with_hint(stats.halted.why, stats.halted.remedy)}")
        if left:
            rows = counted(left, "row" if result.of_steps else "item")
            waiting = f"{rows} {'waits' if left == 1 else 'wait'}"
            say(f"Nothing is lost: {waiting}. Fix that, then run the same command again.")
        return
    if result.until is not None:
        session.say(_until_line(counts, result.until))
    if counts.failed:
        session.say(f"failed because of: {reasons_text(counts)}. See them, and what to do about "
                    f"each: {batchgen()} failures{of_experiment()}")  # fmt: skip
    if counts.stale:
        session.say(_stale_line(counts.stale, stays=result.stays_stale))
    if result.in_batches:
        wait = "waits" if result.in_batches == 1 else "wait"
        session.say(
            f"{counted(result.in_batches, 'row')} {wait} for a provider. To collect "
            f"{'it' if result.in_batches == 1 else 'them'}: {batchgen()} work --batch"
            f"{of_experiment()}"
        )
    if left > result.in_batches and not counts.is_enough(result.until):
        session.say("Run the same command to go on.")


def _stale_line(n: int, *, stays: bool) -> str:
    """What was made of something that has been replaced."""
    rows = f"{counted(n, 'row')} {'is' if n == 1 else 'are'} stale"
    if stays:
        return f"{rows}, as the steps make {'it' if n == 1 else 'them'} no more."
    was = "it was" if n == 1 else "they were"
    return (
        f"{rows}, as what {was} made of has been replaced. To ask again: {batchgen()} retry --stale"
        f"{of_experiment()}"
    )


def _until_line(counts: Counts, until: int) -> str:
    """How far --until came."""
    line = f"{counts.ended} of {until} wanted {'is' if until == 1 else 'are'} done"
    if counts.is_enough(until):
        return f"{line}; {counts.pending} left pending"
    missing = f"{line}, {until - counts.ended} missing"
    if counts.open:
        return f"{missing}."
    return (
        f"{missing}, and nothing is left to answer. Enqueue more, or put failed items back "
        f"({batchgen()} retry{of_experiment()}); then run the same command."
    )
