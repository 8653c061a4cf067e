"""The options that several commands share."""

from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from math import isfinite
from pathlib import Path
from typing import Any

import click

from batchgen.items import Reason

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def gathered(parameter: str, kind: type[Any], *options: Decorator) -> Decorator:
    """A decorator that adds these options to a command, which gets them as one value: a `kind`, a
    dataclass, in its `parameter`. So it gets any other option that has the name of a field."""
    names = {field.name for field in fields(kind)}

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(command)
        def with_value(*positional: Any, **given: Any) -> Any:
            value = kind(**{name: given.pop(name) for name in names & given.keys()})
            return command(*positional, **given, **{parameter: value})

        decorated: Callable[..., Any] = with_value
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


reason_choice = click.Choice([reason.value for reason in Reason])
experiment_option = click.option(
    "--experiment", metavar="NAME", help="Default: output_data.experiment_name of the config."
)
only_experiment_option = click.option(
    "--experiment", metavar="NAME", help="Only this one; default: all."
)
slots_option = click.option(
    "-c", "--concurrency", "slots", type=click.IntRange(1, 10_000),
    help="Calls in flight at once, of all processes together; default: work.concurrency of the "
         "config.",
)  # fmt: skip
rpm_option = click.option(
    "--rpm", type=click.IntRange(0),
    help="Requests a minute, of all workers together; 0: no limit. Default: model.rate_limit.",
)  # fmt: skip
tpm_option = click.option(
    "--tpm", type=click.IntRange(0),
    help="Tokens a minute, in and out, of all workers together; 0: no limit. Default: "
         "model.token_limit.",
)  # fmt: skip
adaptive_option = click.option(
    "--adaptive/--no-adaptive", default=None,
    help="Find out how many requests the server takes, and send no more. With --rpm and --tpm: "
         "never more than these. Default: work.adaptive.",
)  # fmt: skip
processes_option = click.option(
    "--processes", type=click.IntRange(1, 256), default=1, metavar="P",
    help="Worker processes that share the slots, for more than one core can send.",
)  # fmt: skip


def _finite(_: click.Context, __: click.Parameter, value: float | None) -> float | None:
    if value is not None and not isfinite(value):
        raise click.BadParameter("must be a finite number.")
    return value


max_cost_option = click.option(
    "--max-cost", "max_cost_usd", type=click.FloatRange(0, min_open=True), metavar="USD",
    callback=_finite,
    help="Halt before the experiment's calls, those of earlier runs included, can cost more.",
)  # fmt: skip
max_tokens_option = click.option(
    "--max-tokens-total", "max_tokens", type=click.IntRange(1), metavar="N",
    help="The same in tokens, in and out.",
)  # fmt: skip
until_option = click.option(
    "--until", type=click.IntRange(1), metavar="N",
    help="Stop when N items are done, those of earlier runs and other workers included; never more "
         "than N, and whatever fails on the way.",
)  # fmt: skip
hedge_option = click.option(
    "--hedge", is_flag=True,
    help="Send a call that takes over three times as long as nearly all others once more, when a "
         "slot is free, and take the first answer. Both may be charged.",
)  # fmt: skip
grace_option = click.option(
    "--grace", "grace_s", type=click.FloatRange(0), metavar="SECONDS",
    help="How long a stop waits for calls in flight; default: work.grace_s of the config.",
)  # fmt: skip
recipe_option = click.option(
    "--recipe", "other_recipe", type=click.Choice(["add", "replace"]),
    help="When the experiment has another recipe: mix both, or drop the old one's unfinished "
         "items.",
)  # fmt: skip
skip_option = click.option(
    "--skip-invalid", "skip_path", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Append bad lines to FILE and go on.",
)  # fmt: skip
limit_option = click.option(
    "--limit", type=click.IntRange(0), metavar="N", help="Read only the first N items."
)
samples_option = click.option(
    "--samples", type=click.IntRange(1, 1000), default=1, show_default=True, metavar="N",
    help="Ask for N answers per item, each with a seed of its own. More than before adds the rest.",
)  # fmt: skip
json_option = click.option("--json", "as_json", is_flag=True, help="For scripts.")
