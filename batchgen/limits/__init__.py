"""Limits: what all workers of a database may send. All of it is pure: time is passed in, and the
store keeps the state that the workers share. What one worker may send is in `worker.pacer`.

    buckets     all workers together: how many calls and tokens may go out in a minute
    adaptive    the rate that a server takes, found by `--adaptive`
    shares      how the workers share the calls that a server takes at once
    strays      refusals that come whatever is sent, told from those of a limit
    announced   what a server says of its limits in its replies
    tokens      how many tokens a call will probably use
"""

from batchgen.limits.adaptive import LearnedRate
from batchgen.limits.announced import AnnouncedLimit
from batchgen.limits.buckets import (
    NO_LIMITS,
    Allowance,
    LimitName,
    Limits,
    Returned,
    SharedRate,
    allowance,
)
from batchgen.limits.shares import Part, Parts, Share, SharedCap, Told
from batchgen.limits.strays import Strays
from batchgen.limits.tokens import UNKNOWN_CALL, CallTokens, TokenMeter

__all__ = [
    "NO_LIMITS",
    "UNKNOWN_CALL",
    "Allowance",
    "AnnouncedLimit",
    "CallTokens",
    "LearnedRate",
    "LimitName",
    "Limits",
    "Part",
    "Parts",
    "Returned",
    "Share",
    "SharedCap",
    "SharedRate",
    "Strays",
    "TokenMeter",
    "Told",
    "allowance",
]  # fmt: skip
