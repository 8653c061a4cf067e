"""What one run of a pool is asked for, checked before anything is done."""

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from batchgen.config import Config
from batchgen.errors import ConfigError, UsageError
from batchgen.parsers import Parser, load_parser, parser_from_callable
from batchgen.store import FailureLimit, OtherRecipe

Result = dict[str, Any]
Extract = Callable[..., Any] | str
OnResult = Callable[[Result], Awaitable[object] | object]
RecipeWord = Literal["stop", "replace", "again", "add"]


class RunOptions(TypedDict, total=False):
    """The keywords of `run`, which `run_sync` and `stream` have too."""

    samples: int
    until: int | None
    max_cost: float | None
    max_failures: int | str | None
    recipe: RecipeWord
    processes: int
    progress: bool


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """The arguments of `run`, by their names. Raises ConfigError or UsageError."""

    concurrency_limit: int | None = None
    extract_function: Extract | None = None
    samples: int = 1
    until: int | None = None
    max_cost: float | None = None
    max_failures: int | str | None = None
    recipe: str = "stop"
    processes: int = 1
    progress: bool = True

    def __post_init__(self) -> None:
        for name in ("concurrency_limit", "samples", "until", "processes"):
            _check_count(name, getattr(self, name))
        cost = self.max_cost
        if cost is not None and not (_is_number(cost) and 0 < cost < math.inf):
            raise ConfigError(f"max_cost: must be US dollars above 0, not {cost!r}")
        self.other_recipe, self.failure_limit  # noqa: B018  they raise
        if callable(self.extract_function):
            self.check_processes("extract_function")

    def check_processes(self, what: str) -> None:
        """Raises UsageError where other processes would need a function object, which is `what`."""
        if self.processes > 1:
            raise UsageError(
                "processes: another process cannot have a function of this one; give "
                f"{what} by its name: 'my_parsers.py:parse_response'"
            )

    @property
    def other_recipe(self) -> OtherRecipe:
        try:
            return OtherRecipe(self.recipe)
        except ValueError:
            words = ", ".join(OtherRecipe)
            raise UsageError(f"recipe: {self.recipe!r} is not one of {words}") from None

    @property
    def failure_limit(self) -> FailureLimit | None:
        limit = self.max_failures
        if limit is None:
            return None
        if isinstance(limit, bool) or not isinstance(limit, int | str):
            raise UsageError(f'max_failures: must be a number, or a share like "5%", not {limit!r}')
        try:
            return FailureLimit.parse(str(limit))
        except UsageError as exc:
            raise UsageError(f"max_failures: {exc}") from None

    @property
    def work_options(self) -> dict[str, Any]:
        """Fields of the WorkSpec; None: as the config says."""
        options = {
            "concurrency": self.concurrency_limit,
            "until": self.until,
            "max_cost_usd": self.max_cost,
            "max_failures": self.failure_limit,
        }
        return {name: value for name, value in options.items() if value is not None}


def parser_of(extract: Any, config: Config) -> Parser:
    """The parser that `extract_function` means; the config's, where it is None."""
    if extract is None:
        return load_parser(config.parser, config.directory)
    if isinstance(extract, str):
        return load_parser(str(extract), config.directory)
    if not callable(extract):
        kind = type(extract).__name__
        raise ConfigError(f"extract_function: must be a function or a parser spec, not {kind}")
    return parser_from_callable(extract)


def _check_count(name: str, value: Any) -> None:
    if value is None and name in ("concurrency_limit", "until"):
        return
    if type(value) is not int or value < 1:
        raise ConfigError(f"{name}: must be an integer >= 1, not {value!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
