"""How many tokens a call will use, as far as one can tell before: learned from the calls that came
back. No tokenizer. Pure."""

from dataclasses import dataclass

_BYTES_OF_A_TOKEN = 4  # of English; soon it is known better
_GUESS = 600  # of a call of which nothing is known: its template, and its answer
_MEMORY = 200  # calls; older ones fade


@dataclass(frozen=True, slots=True)
class CallTokens:
    """A call's tokens, in and out, by the bytes of its item; `mean` is what most use."""

    mean: float = _GUESS
    base: float = _GUESS
    per_byte: float = 1 / _BYTES_OF_A_TOKEN

    def of(self, item_bytes: int) -> int:
        return max(1, round(self.base + self.per_byte * item_bytes))


UNKNOWN_CALL = CallTokens()


class TokenMeter:
    """A line through (bytes of the item, tokens of its call), in which the newest count most."""

    def __init__(self, max_tokens: int | None) -> None:
        """`max_tokens` is the most that an answer can have, where that is known."""
        self._first = UNKNOWN_CALL if max_tokens is None else CallTokens(max_tokens, max_tokens)
        self._n = 0
        self._bytes = self._tokens = self._bytes_spread = self._slope_spread = 0.0

    def observe(self, item_bytes: int, tokens: int) -> None:
        self._n += 1
        weight = 1 / min(self._n, _MEMORY)
        off, above = item_bytes - self._bytes, tokens - self._tokens
        self._bytes += weight * off
        self._tokens += weight * above
        self._bytes_spread += weight * (off * (item_bytes - self._bytes) - self._bytes_spread)
        self._slope_spread += weight * (off * (tokens - self._tokens) - self._slope_spread)

    @property
    def mean(self) -> float:
        return max(1.0, self._tokens) if self._n else self._first.mean

    @property
    def estimate(self) -> CallTokens:
        if not self._n:
            return self._first
        # Longer items never use fewer tokens, nor more than one a byte.
        slope = self._slope_spread / self._bytes_spread if self._bytes_spread > 1 else 0.0
        slope = min(max(slope, 0.0), 1.0)
        return CallTokens(self.mean, self._tokens - slope * self._bytes, slope)
