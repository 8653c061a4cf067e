"""Calls of a pacer, at times that the tests choose."""

from collections.abc import Sequence

from batchgen.items import Answer, Failure, Item, Usage
from batchgen.llm.decide import Blame
from batchgen.worker.controller import Call
from batchgen.worker.pacer import Pacer

ANSWER = Answer("Hello", "{}", "stop", "m-1", Usage())


def item(number: int, epoch: int = 1, tries: int = 0) -> Item:
    return Item(number, epoch, 1, 1, None, "{}", tries)


def hear(
    pacer: Pacer, verdict: Answer | Failure, of: Item, sent_at: int, now: int, *,
    is_last_try: bool = False,
) -> Blame:  # fmt: skip
    """A call that goes out at `sent_at`, beside those that are under way, and its reply."""
    call = pacer.call_sent(sent_at)
    return pacer.observe(verdict, of, call, now, is_last_try=is_last_try)


def use_all_slots(pacer: Pacer, now: int) -> None:
    """All that may be under way is, and is answered, round after round."""
    for _ in range(20):
        calls = [pacer.call_sent(now) for _ in range(pacer.allowed(now))]
        for number, call in enumerate(calls):
            pacer.observe(ANSWER, item(1_000_000 + number), call, now)


def refuse_everybody(
    pacer: Pacer, failure: Failure, now: int, of: Item | None = None, answered: Sequence[Call] = ()
) -> int:
    """Calls one after another are refused at once, until the pacer pauses; returns how many. After
    the first one those `answered` are, which were under way."""
    for refused in range(100):
        if now < pacer.paused_until:
            return refused
        hear(pacer, failure, of or item(refused), now, now)
        for call in answered if refused == 0 else ():
            pacer.observe(ANSWER, item(2_000_000 + call.number), call, now)
    raise AssertionError("it does not pause")
