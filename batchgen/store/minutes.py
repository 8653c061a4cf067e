"""What is counted by the minute: how a transaction adds to it, and how it is added up. Pure.

Latencies and lengths are counted in buckets, each a tenth wider than the one before it: what is
counted so in several minutes, or by several workers, adds up, and a percentile of it is right to
one twentieth.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import log

from msgspec import Struct, field

from batchgen.items import Attempt

MS_A_MINUTE = 60_000
BEFORE = 0
"""The minute that has all from before minutes were kept, as far as it is known."""

_WIDTH, _MIDDLE = log(1.1), 1.05

Call = tuple[int, Attempt]
"""With its number."""


def minute_of(at_ms: int) -> int:
    """Minutes since 1970, UTC."""
    return at_ms // MS_A_MINUTE


def bucket_of(n: int) -> int:
    """Where a latency (ms) or a length (characters) is counted: bucket b has what is at least
    1.1**b, and less than 1.1**(b + 1); what is less than one stands in the first."""
    return int(log(n) / _WIDTH) if n > 1 else 0


def start_of_bucket(bucket: int) -> float:
    """The least that is counted in it; in the next one is a tenth more."""
    return float(1.1**bucket)


def percentiles(
    buckets: Mapping[int, float], shares: Sequence[float]
) -> list[float | None]:  # fmt: skip
    """What these shares of all that was counted, the smallest first, are not above; None: nothing
    was."""
    total, counted = sum(buckets.values()), 0.0
    found: list[float | None] = []
    for bucket in sorted(buckets):
        counted += buckets[bucket]
        while len(found) < len(shares) and counted >= shares[len(found)] * total:
            found.append(start_of_bucket(bucket) * _MIDDLE)
    return found + [None] * (len(shares) - len(found))


class MinuteDelta(Struct):
    """What more of an experiment there is in a minute, by the columns of the table, which has no
    `unknown_calls`: they are counted when their end is known. What a budget has booked for them
    stays."""

    done: int = 0
    failed: int = 0
    calls: int = 0
    unknown_calls: int = 0
    latency_ms: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: float = 0.0
    latencies: dict[int, int] = field(default_factory=dict)  # of calls that were answered
    lengths: dict[int, int] = field(default_factory=dict)  # of answers that have a text
    reasons: dict[str, int] = field(default_factory=dict)  # of calls that failed
    slowest: int | None = None
    slowest_ms: int | None = None

    @property
    def is_row(self) -> bool:
        return bool(self.calls or self.done or self.failed or self.cost_usd)

    def add(self, calls: Iterable[Call]) -> None:
        """More calls. Of all that an exchange does for an item this is a part that is felt: so it
        adds up in variables, in one loop."""
        latencies, lengths, reasons = self.latencies, self.lengths, self.reasons
        known = unknown = total_ms = prompt = completion = cached = reasoning = 0
        cost_usd, slowest, slowest_ms = 0.0, self.slowest, self.slowest_ms or -1
        for seq, attempt in calls:
            if attempt.cost_usd:
                cost_usd += attempt.cost_usd
            response, latency_ms = attempt.response, attempt.latency_ms
            if response is None:
                if attempt.reason is None:
                    unknown += 1
                    continue
                reason = str(attempt.reason)
                reasons[reason] = reasons.get(reason, 0) + 1
            else:
                if latency_ms is not None:
                    bucket = int(log(latency_ms) / _WIDTH) if latency_ms > 1 else 0
                    latencies[bucket] = latencies.get(bucket, 0) + 1
                if response:
                    bucket = int(log(len(response)) / _WIDTH)
                    lengths[bucket] = lengths.get(bucket, 0) + 1
            known += 1
            if latency_ms is not None:
                total_ms += latency_ms
                if latency_ms > slowest_ms:
                    slowest, slowest_ms = seq, latency_ms
            usage = attempt.usage
            prompt += usage.prompt_tokens or 0
            completion += usage.completion_tokens or 0
            if usage.cached_tokens:
                cached += usage.cached_tokens
            if usage.reasoning_tokens:
                reasoning += usage.reasoning_tokens
        self.calls += known
        self.unknown_calls += unknown
        self.latency_ms += total_ms
        self.prompt_tokens += prompt
        self.completion_tokens += completion
        self.cached_tokens += cached
        self.reasoning_tokens += reasoning
        self.cost_usd += cost_usd
        if slowest is not None:
            self.slowest, self.slowest_ms = slowest, slowest_ms


def by_minute(calls: Sequence[Call]) -> dict[int, MinuteDelta]:
    """What calls add to the minutes in which they ended, nearly always one."""
    minutes = {attempt.finished_at // MS_A_MINUTE for _, attempt in calls}
    found = {minute: MinuteDelta() for minute in minutes}
    for minute, delta in found.items():
        if len(minutes) > 1:
            own = [call for call in calls if call[1].finished_at // MS_A_MINUTE == minute]
            delta.add(own)
        else:
            delta.add(calls)
    return found
