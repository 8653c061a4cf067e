"""Writes what was done in minutes into their rows."""

from collections.abc import Mapping
from typing import TypeVar

from msgspec.json import Decoder, encode

from batchgen.store.minutes import MinuteDelta
from batchgen.store.transaction import Transaction

K = TypeVar("K", int, str)

_buckets, _reasons = Decoder(dict[int, int]), Decoder(dict[str, int])
_NOTHING = ("{}", "{}", "{}")


def write_minutes(db: Transaction, minutes: Mapping[tuple[int, int], MinuteDelta]) -> None:
    """Within the caller's transaction. A server adds up by itself, as others may write to the same
    row meanwhile; elsewhere nobody does, and it costs less here."""
    rows = [_row(db, *key, delta) for key, delta in minutes.items() if delta.is_row]
    db.execute_many("add_to_minutes", rows)


def _row(
    db: Transaction, experiment_id: int, minute: int, more: MinuteDelta
) -> dict[str, object]:  # fmt: skip
    which = {"experiment_id": experiment_id, "minute": minute}
    there = None if db.is_far else db.execute("buckets_of_minute", which).fetchone()
    latencies, lengths, reasons = there or _NOTHING
    return {
        "experiment_id": experiment_id,
        "minute": minute,
        "done": more.done,
        "failed": more.failed,
        "calls": more.calls,
        "latency_ms": more.latency_ms,
        "prompt_tokens": more.prompt_tokens,
        "completion_tokens": more.completion_tokens,
        "cached_tokens": more.cached_tokens,
        "reasoning_tokens": more.reasoning_tokens,
        "cost_usd": more.cost_usd,
        "latencies": _added(_buckets, latencies, more.latencies),
        "lengths": _added(_buckets, lengths, more.lengths),
        "reasons": _added(_reasons, reasons, more.reasons),
        "slowest": more.slowest,
        "slowest_ms": more.slowest_ms,
    }


def _added(decoder: Decoder[dict[K, int]], there: str, more: dict[K, int]) -> str:
    """JSON, as what is there."""
    if not more:
        return there
    if there != "{}":
        counted = decoder.decode(there)
        for key, n in more.items():
            counted[key] = counted.get(key, 0) + n
        more = counted
    return encode(more).decode()
