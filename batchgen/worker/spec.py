"""What a worker is to do: one frozen value, made once from the config and the flags. It can go to
another process as JSON."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from batchgen.limits import NO_LIMITS, Limits
from batchgen.llm.decide import RetryPolicy
from batchgen.store import Budget


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkSpec:
    """`slots` calls at most are in flight at once. None means no limit, and of `experiments`: all.

    `max_items` is the most that this worker claims; it claims nothing more once `until` items are
    done, by all workers together. With `wait_for_more` it stays when nothing is left. `limits` are
    those at its start, before other terminals change them. With `hedge` a straggler's request is
    sent once more. No answer has more than `max_answer_tokens`, where the config says it; local
    images are looked for in `directory`. For `patience_s` a database that cannot be written is
    tried again, with the answers in memory.

    The API key, prices, and parsers that are Python objects are not part of it.
    """

    slots: int
    experiments: tuple[int, ...] | None = None
    limits: Limits = NO_LIMITS
    budget: Budget | None = None
    max_items: int | None = None
    until: int | None = None
    wait_for_more: bool = False
    hedge: bool = False
    retry_policy: RetryPolicy = field(default_factory=RetryPolicy)
    timeout_s: float = 600.0
    parse_timeout_s: float = 30.0
    parse_feedback: bool = False
    stall_s: float = 1800.0
    grace_s: float = 30.0
    lease_s: float = 60.0
    patience_s: float = 60.0
    max_answer_tokens: int | None = None
    directory: Path = Path()

    def split(self, parts: int) -> "list[WorkSpec]":
        """For so many workers: each with a share of the slots and, if they are limited, of the
        items."""
        slots = shares(self.slots, parts)
        if self.max_items is None:
            return [replace(self, slots=share) for share in slots]
        items = shares(self.max_items, parts)
        return [replace(self, slots=s, max_items=i) for s, i in zip(slots, items, strict=True)]

    def to_json(self) -> dict[str, Any]:
        """Plain values, as `json.dumps` takes them."""
        return asdict(self) | {"directory": str(self.directory)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "WorkSpec":
        """The spec that `to_json` was called on. Raises KeyError or TypeError for anything else."""
        budget = values["budget"]
        made = {
            "experiments": _ids(values["experiments"]),
            "limits": Limits(**values["limits"]),
            "budget": budget and Budget(**budget | {"experiments": _ids(budget["experiments"])}),
            "retry_policy": RetryPolicy(**values["retry_policy"]),
            "directory": Path(values["directory"]),
        }
        return cls(**{one.name: values[one.name] for one in fields(cls)} | made)


def shares(total: int, parts: int) -> list[int]:
    """`total` in so many parts, as even as can be."""
    return [total // parts + (number < total % parts) for number in range(parts)]


def _ids(values: list[int] | None) -> tuple[int, ...] | None:
    return None if values is None else tuple(values)
