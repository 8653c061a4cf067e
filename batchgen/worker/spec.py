"""What a worker is to do: one frozen value, made once from the config and the options of a run. It
can go to another process as JSON."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from secrets import token_hex
from typing import Any

from msgspec import Struct, field, to_builtins
from msgspec.structs import replace

from batchgen.config import WorkConfig
from batchgen.limits import Limits
from batchgen.llm.decide import RetryPolicy
from batchgen.store import Budget, FailureLimit, Selection


class ServerSpec(Struct, frozen=True, kw_only=True):
    """A server that a worker asks. `key` is by what the database knows it, `name` and `shown_url`
    are what messages call it, and `place` is where the config has it. `slots` bounds its calls in
    flight (None: only those of the worker do), and `rpm` and `tpm` are its limits, of all workers
    together; None: none. With `stream` each answer is asked for as a stream. It answers the rows of
    these `steps` and, with `answers_rest`, those that no other server names."""

    key: str = ""
    name: str = ""
    place: str = "model"
    shown_url: str = ""
    slots: int | None = None
    rpm: int | None = None
    tpm: int | None = None
    stream: bool = False
    steps: tuple[str, ...] = ()
    answers_rest: bool = True

    @property
    def is_alone(self) -> bool:
        """Whether it is the only one of the config."""
        return self.place == "model"


class WorkSpec(WorkConfig, frozen=True, kw_only=True):
    """The settings of the section `work`, and what one run adds to them. An option of `work` has
    the name of the field that it sets. None means no limit, and of `experiments`: all.

    With a `selection` of the store only its items are worked on, and `until` counts those alone. It
    ends early when others come that need a new selection.
    `rpm` and `tpm` are requests and tokens a minute at each of its `servers`, of all workers
    together, in place of what those say, before other terminals change them (0: no limit).
    `max_cost_usd` and `max_tokens_total` are what the calls of all runs together may use, those for
    `budget_experiments` (None: for `experiments`). `max_items` is the most that this worker claims.
    It halts once `max_failures` is reached, by the items of all runs together; and it claims
    nothing more once `until` items are done, by all workers together. With `wait_for_more` it stays
    when nothing is left. With `hedge` a straggler's request is sent once more. No answer has more
    than `max_answer_tokens`, where the config says it;
    `run` is what the processes of one command have in common. Local images
    are looked for in `directory`. For `store_retry_s` a database that cannot be written is tried
    again, with the answers in memory.

    The API key, prices, and parsers that are Python objects are not part of it.
    """

    experiments: tuple[int, ...] | None = None
    budget_experiments: tuple[int, ...] | None = None
    selection: Selection | None = None
    rpm: int | None = None
    tpm: int | None = None
    max_cost_usd: float | None = None
    max_tokens_total: int | None = None
    max_items: int | None = None
    max_failures: FailureLimit | None = None
    until: int | None = None
    wait_for_more: bool = False
    hedge: bool = False
    store_retry_s: float = 60.0
    max_answer_tokens: int | None = None
    servers: tuple[ServerSpec, ...] = (ServerSpec(),)
    run: str = field(default_factory=lambda: token_hex(8))
    directory: Path = Path()

    def limits_of(self, server: ServerSpec) -> Limits:
        """Before other terminals change them."""
        rpm = server.rpm if self.rpm is None else self.rpm or None
        tpm = server.tpm if self.tpm is None else self.tpm or None
        return Limits(rpm, tpm, self.adaptive)

    @property
    def budget(self) -> Budget | None:
        if self.max_cost_usd is None and self.max_tokens_total is None:
            return None
        experiments = self.budget_experiments or self.experiments
        return Budget(experiments, self.max_cost_usd, self.max_tokens_total)

    @property
    def retry_policy(self) -> RetryPolicy:
        return RetryPolicy(self.max_attempts, self.parse_attempts, self.retry_wait_s)

    @property
    def smallest_server(self) -> ServerSpec | None:
        """The one with the fewest slots; None: none has a number of its own."""
        limited = (one for one in self.servers if one.slots is not None)
        return min(limited, key=lambda one: one.slots or 0, default=None)

    def split(self, parts: int) -> "list[WorkSpec]":
        """For so many workers, or for fewer where a server has fewer slots: each with a share of
        the slots and, if they are limited, of the items."""
        smallest = self.smallest_server
        parts = min(parts, (smallest and smallest.slots) or parts)
        slots = shares(self.concurrency, parts)
        specs = [
            replace(self, concurrency=share, servers=servers)
            for share, servers in zip(slots, self._servers_in_parts(parts), strict=True)
        ]
        if self.max_items is None:
            return specs
        items = shares(self.max_items, parts)
        return [replace(spec, max_items=n) for spec, n in zip(specs, items, strict=True)]

    def _servers_in_parts(self, parts: int) -> Iterator[tuple[ServerSpec, ...]]:
        slots = [None if one.slots is None else shares(one.slots, parts) for one in self.servers]
        for number in range(parts):
            yield tuple(
                server if own is None else replace(server, slots=own[number])
                for server, own in zip(self.servers, slots, strict=True)
            )

    def to_json(self) -> dict[str, Any]:
        """Plain values, as `json.dumps` takes them."""
        values: dict[str, Any] = to_builtins(self, enc_hook=str)
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "WorkSpec":
        """The spec that `to_json` was called on. Raises KeyError or TypeError for anything else."""
        ids, of_budget = values["experiments"], values["budget_experiments"]
        failures = values["max_failures"]
        selection = values["selection"]
        made = {
            "experiments": None if ids is None else tuple(ids),
            "budget_experiments": None if of_budget is None else tuple(of_budget),
            "selection": selection and Selection(**selection),
            "max_failures": failures and FailureLimit(**failures),
            "directory": Path(values["directory"]),
            "servers": tuple(
                ServerSpec(**{**one, "steps": tuple(one["steps"])}) for one in values["servers"]
            ),
        }
        return cls(**{**values, **made})


def shares(total: int, parts: int) -> list[int]:
    """`total` in so many parts, as even as can be."""
    return [total // parts + (number < total % parts) for number in range(parts)]
