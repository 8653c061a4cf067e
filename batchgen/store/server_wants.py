"""What the servers that a worker asks have room for, and which of them a claim is for. Pure.

A worker may ask several servers, each with limits of its own. It claims for all of them at once,
and each claimed item is for one of them: the one that has most room left.
"""

from collections.abc import Mapping
from hashlib import blake2b

from msgspec import Struct

from batchgen.limits import NO_LIMITS, UNKNOWN_CALL, CallTokens, Limits


class ServerWant(Struct, frozen=True):
    """Room for up to `slots` more calls at a `server` (its key), sending it no more than
    `limits` allow together with every other worker that asks it. A call is thought to use
    `call_tokens`, and for `pause_ms` from now on the server wants no more calls."""

    server: str
    slots: int = 0
    limits: Limits = NO_LIMITS
    call_tokens: CallTokens = UNKNOWN_CALL
    pause_ms: int = 0


def server_key(base_url: str) -> str:
    """By which a server is known in the database: a hash, as its URL may hold what nobody is to
    read."""
    return blake2b(base_url.rstrip("/").encode(), digest_size=8).hexdigest()


def in_turn(room: Mapping[str, int], calls: int) -> list[str]:
    """The server of each of so many calls, or of as many as there is room for."""
    left = dict(room)
    servers = []
    for _ in range(min(calls, sum(left.values()))):
        server = max(left, key=left.__getitem__)
        left[server] -= 1
        servers.append(server)
    return servers
