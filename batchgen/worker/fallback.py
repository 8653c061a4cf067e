"""What is kept of an item when its own outcome cannot be: after a bug, or when the database refuses
a value in it. A bug costs its item, never the others' answers, and it is not met again for ever."""

from msgspec.structs import replace

from batchgen.clock import now_ms
from batchgen.items import Attempt, Fail, Outcome, Reason
from batchgen.userfunctions import text_of


def unknown_attempt() -> Attempt:
    """A call that was sent, and abandoned."""
    return Attempt(finished_at=now_ms())


def internal_error(exc: Exception, *, has_answer: bool) -> Fail:
    """The end of an item that met a bug. One whose answer is kept fails as one that could not be
    parsed: so `reparse` makes use of the answer when the bug is gone, and nobody pays again."""
    said = f"internal error, please report it: {type(exc).__name__}: {text_of(exc)}"
    return Fail(Reason.PARSE if has_answer else Reason.REJECTED, said)


def with_failed_item(outcome: Outcome, exc: Exception) -> Outcome:
    """Its attempts are kept as they are; `exc` ends the item."""
    waits = outcome.item.answer_seq is not None
    has_answer = waits or any(one.response is not None for one in outcome.attempts)
    return replace(outcome, decision=internal_error(exc, has_answer=has_answer))


def with_unknown_calls(outcome: Outcome, exc: Exception) -> Outcome:
    """Its calls are kept, but not what they brought; `exc` ends the item."""
    calls = tuple(unknown_attempt() for _ in outcome.attempts)
    return with_failed_item(replace(outcome, attempts=calls), exc)
