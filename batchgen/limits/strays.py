"""Strays: refusals that come whatever is sent, and how they are told from those of a limit. Pure.

The share of the calls that meet one is learned from calls that go out well below the server's
limit. The newest calls are looked at by themselves: what they have more of it than chance explains
is a limit's. They fade, and are added to what is learned as they do.
"""

from math import sqrt

from msgspec import Struct
from msgspec.structs import replace

MOST_STRAYS = 0.15  # more of a server's refusals are never taken for strays
_MOST_UNTESTED = 0.03  # what is learned without a test
_MEMORY_CALLS = 1000.0
_RECENT_S, _RECENT_CALLS = 4.0, 100


class Strays(Struct, frozen=True):
    """`share` of the calls are strays, as `known_calls` have shown. Of the newest calls, so many
    were refused."""

    share: float = 0.005
    known_calls: float = 20.0
    recent_calls: float = 0.0
    recent_refused: float = 0.0

    @property
    def recent_share(self) -> float:
        return self.recent_refused / max(self.recent_calls, self.recent_refused, 1.0)

    def sent(self, calls: int, per_s: float, *, learns: bool) -> "Strays":
        """`calls` more went out, at that rate. If it `learns`, the older ones tell of strays."""
        kept: float = (1 - 1 / max(_RECENT_CALLS, _RECENT_S * per_s)) ** calls
        faded, refused = (1 - kept) * self.recent_calls, (1 - kept) * self.recent_refused
        share, known_calls = self.share, self.known_calls
        if learns:
            share = (share * known_calls + refused) / (known_calls + faded)
            share = min(share, max(self.share, _MOST_UNTESTED))
            known_calls = min(known_calls + faded, _MEMORY_CALLS)
        return Strays(
            share, known_calls, self.recent_calls - faded + calls, self.recent_refused - refused
        )

    def refused(self, calls: int) -> "Strays":
        return replace(self, recent_refused=self.recent_refused + calls)

    def cut(self) -> "Strays":
        """The rate is another one from now on."""
        return Strays(self.share, self.known_calls)

    def tested(self) -> "Strays":
        """The newest refusals are strays."""
        return Strays(min(self.recent_share, MOST_STRAYS), self.recent_calls)


def are_too_many(
    refused: float, calls: float, share: float, least: float = 0.0, *, sigmas: float
) -> bool:
    """Whether so many of the calls are refused, where that share of them is expected to be."""
    expected = share * calls
    return refused > expected + sigmas * sqrt(expected * (1 - share)) + least


NO_STRAYS_KNOWN = Strays()
