"""Limits: what all workers of a database may send. All of it pure: time is passed in, and the state
that workers share is kept by the store. What one worker may send is in `worker.pacer`.

    buckets     all workers together: how many calls and tokens may go out in a minute
    adaptive    the rate that a server takes, found by `--adaptive`
    announced   what a server says of its limits in its replies
    tokens      what a call will use, as far as one can tell before
"""

from batchgen.limits.adaptive import Learned
from batchgen.limits.announced import Announced
from batchgen.limits.buckets import NO_LIMITS, Back, Limits, Room, Sending, held_line, room
from batchgen.limits.tokens import UNKNOWN_CALL, CallTokens, TokenMeter

__all__ = [
    "NO_LIMITS", "UNKNOWN_CALL", "Announced", "Back", "CallTokens", "Learned", "Limits",
    "Room", "Sending", "TokenMeter", "held_line", "room",
]  # fmt: skip
