"""The options that several commands share."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click
from msgspec import Struct

from batchgen.cli.completion import experiments, steps
from batchgen.items import Reason

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def gathered(
    parameter: str, kind: type[Struct], *options: Decorator, make: Callable[..., Any] | None = None
) -> Decorator:
    """A decorator that adds these options to a command, which gets them as one value in its
    `parameter`: a `kind`, or what `make` makes of them. So it gets any other option
    that has the name of a field of `kind`."""
    names = set(kind.__struct_fields__)

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(command)
        def with_value(*positional: Any, **given: Any) -> Any:
            value = (make or kind)(**{name: given.pop(name) for name in names & given.keys()})
            return command(*positional, **given, **{parameter: value})

        decorated: Callable[..., Any] = with_value
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


reason_choice = click.Choice([reason.value for reason in Reason])
LIMIT = click.IntRange(0, 10**12)  # more could not be told from none, nor be kept
experiment_option = click.option(
    "--experiment", metavar="NAME", shell_complete=experiments,
    help="Default: output_data.experiment_name of the config.",
)  # fmt: skip
only_experiment_option = click.option(
    "--experiment", metavar="NAME", shell_complete=experiments, help="Only this one; default: all."
)
step_option = click.option(
    "--step", metavar="NAME", shell_complete=steps, help="Only this step, of those that have steps."
)
prompt_option = click.option(
    "--prompt", metavar="TEXT", help="The user template itself, in place of the config's file."
)
system_option = click.option(
    "--system", metavar="TEXT", help="The system template itself; an empty one: none."
)
model_option = click.option("--model", metavar="NAME", help="In place of model.model.")
base_url_option = click.option(
    "--base-url", metavar="URL", help="The server, in place of model.base_url."
)
recipe_option = click.option(
    "--recipe", "other_recipe", type=click.Choice(["replace", "again", "add"]),
    help="When templates, model or parameters have changed: replace them for the rows that are not "
         "done, ask all again, or add each once more beside the old.",
)  # fmt: skip
skip_option = click.option(
    "--skip-invalid", "skip_path", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Append bad lines to FILE and go on.",
)  # fmt: skip
force_option = click.option(
    "--force", is_flag=True,
    help="Write over FILE though batchgen did not write it; never over a file of the project.",
)  # fmt: skip
limit_option = click.option(
    "--limit", type=click.IntRange(0), metavar="N", help="Read only the first N items."
)
samples_option = click.option(
    "--samples", type=click.IntRange(1, 1000), default=1, show_default=True, metavar="N",
    help="Ask for N answers per item, each with a seed of its own. More than before adds the rest.",
)  # fmt: skip
json_option = click.option("--json", "as_json", is_flag=True, help="For scripts.")
