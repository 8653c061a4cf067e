"""Estimates how many tokens a call will use, from the calls that have come back. It needs no
tokenizer. Pure."""

from msgspec import Struct

_BYTES_PER_TOKEN = 4  # of English; the first answers tell it better
_GUESS = 600  # for the template and the answer, while nothing is known
_MEMORY = 200  # calls; the weight of older ones fades


class CallTokens(Struct, frozen=True):
    """A call's tokens, in and out: `base`, and `per_byte` of its item. `mean` is what most calls
    use."""

    mean: float = _GUESS
    base: float = _GUESS
    per_byte: float = 1 / _BYTES_PER_TOKEN

    def of(self, item_bytes: int) -> int:
        """The estimate for an item of that many bytes."""
        return max(1, round(self.base + self.per_byte * item_bytes))


UNKNOWN_CALL = CallTokens()


class TokenMeter:
    """Fits a line through the points (bytes of the item, tokens of its call), in which the newest
    calls count most."""

    def __init__(self, max_tokens: int | None) -> None:
        """`max_tokens` is the most tokens that an answer can have, where that is known."""
        self._first = UNKNOWN_CALL if max_tokens is None else CallTokens(max_tokens, max_tokens)
        self._n = 0
        self._bytes = self._tokens = self._variance = self._covariance = 0.0

    def observe(self, item_bytes: int, tokens: int) -> None:
        self._n += 1
        weight = 1 / min(self._n, _MEMORY)
        bytes_off, tokens_off = item_bytes - self._bytes, tokens - self._tokens
        self._bytes += weight * bytes_off
        self._tokens += weight * tokens_off
        self._variance += weight * (bytes_off * (item_bytes - self._bytes) - self._variance)
        self._covariance += weight * (bytes_off * (tokens - self._tokens) - self._covariance)

    @property
    def mean(self) -> float:
        """What most calls use, in tokens."""
        return max(1.0, self._tokens) if self._n else self._first.mean

    @property
    def estimate(self) -> CallTokens:
        if not self._n:
            return self._first
        # Longer items never use fewer tokens, nor more than one a byte.
        slope = self._covariance / self._variance if self._variance > 1 else 0.0
        slope = min(max(slope, 0.0), 1.0)
        return CallTokens(self.mean, self._tokens - slope * self._bytes, slope)
