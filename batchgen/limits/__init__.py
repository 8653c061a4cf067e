"""Limits: what holds calls back, for one worker and for all of a database. All of it pure: time is
passed in, and the state that workers share is kept by the store.

    pacer       one worker: how many calls may be under way at this moment
    buckets     all workers together: how many calls and tokens may go out in a minute
    adaptive    the rate that a server takes, found by `--adaptive`
    announced   what a server says of its limits in its replies
    tokens      what a call will use, as far as one can tell before
"""

from batchgen.limits.adaptive import Learned
from batchgen.limits.announced import Announced
from batchgen.limits.buckets import NO_LIMITS, Back, Limits, Room, Sending, held_line, room
from batchgen.limits.pacer import Pacer
from batchgen.limits.tokens import UNKNOWN_CALL, CallTokens, TokenMeter

__all__ = [
    "NO_LIMITS", "UNKNOWN_CALL", "Announced", "Back", "CallTokens", "Learned", "Limits", "Pacer",
    "Room", "Sending", "TokenMeter", "held_line", "room",
]  # fmt: skip
