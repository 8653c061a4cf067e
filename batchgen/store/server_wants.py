"""What the servers that a worker asks have room for, and which of them a claim is for. Pure.

A worker may ask several servers, each with limits of its own. It claims for all of them at once,
and each claimed item is for one of them: the one of which the largest share is free.
"""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from batchgen.limits import NO_LIMITS, UNKNOWN_CALL, CallTokens, Limits, Told


class Trial(Struct, frozen=True):
    """What a worker knows of recipes at a server: those that are `proven`. Of the others, all
    workers together have no more than `calls` in flight. `watches`: some that it works on may be on
    trial, or suspects. So many calls of this worker are `in_flight`, of which so many `probes`."""

    proven: frozenset[int] = frozenset()
    calls: int = 4
    watches: bool = True
    probes: int = 0
    in_flight: int = 0


class ServerWant(Struct, frozen=True):
    """Room for up to `slots` more calls at a `server` (its key), of `capacity` in all, sending it
    no more than `limits` allow together with every other worker that asks it. A call is thought to
    use `call_tokens`, and for `pause_ms` from now on the server wants no more calls; those that it
    has refused it wants not to be sent again for `asked_ms`. `trial` None: no recipe is ever on
    trial. While the server answers nobody, as `probes` calls have shown, its calls are for items
    from all over the pool. It answers rows of these `experiments` (None: of all that no other one
    names). The others are `told` what it has found, or nothing yet. With `runs_code` there is no
    server: these are rows that the user's functions end, and they take no part in what the servers
    share out among them."""

    server: str
    slots: int = 0
    limits: Limits = NO_LIMITS
    call_tokens: CallTokens = UNKNOWN_CALL
    pause_ms: int = 0
    asked_ms: int = 0
    capacity: int = 0
    trial: Trial | None = None
    probes: int | None = None
    experiments: tuple[int, ...] | None = None
    runs_code: bool = False
    told: Told | None = None


class AskedServer(Struct, frozen=True):
    """A server that a worker asks: its key, and its name for people, which is no secret."""

    key: str
    name: str = ""


def server_key(base_url: str) -> str:
    """By which a server is known in the database: a hash, as its URL may hold what nobody is to
    read."""
    from hashlib import blake2b  # here: who only reads has no use for it

    return blake2b(base_url.rstrip("/").encode(), digest_size=8).hexdigest()


def server_keys(base_urls: Sequence[str]) -> list[str]:
    """Of those of one config. Where several have a URL in common, the second and later ones, with
    keys of their own, are told from it by their number: no hash of a key is kept."""
    return [
        server_key(url) if not (n := base_urls[:place].count(url)) else server_key(f"{url} {n + 1}")
        for place, url in enumerate(base_urls)
    ]


def in_turn(room: Mapping[str, int], capacity: Mapping[str, int], calls: int) -> list[str]:
    """The server of each of so many calls, or of as many as there is room for: always the one of
    whose `capacity` most is free, so that all fill evenly."""
    if len(room) == 1:
        ((server, slots),) = room.items()
        return [server] * min(calls, slots)
    left = dict(room)
    most = {server: max(capacity.get(server, 0), slots, 1) for server, slots in room.items()}
    servers = []
    for _ in range(min(calls, sum(left.values()))):
        server = max(filter(left.__getitem__, left), key=lambda one: left[one] / most[one])
        left[server] -= 1
        servers.append(server)
    return servers
