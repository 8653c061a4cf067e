"""failures: what failed, grouped."""

from collections.abc import Sequence
from typing import Any

import click

from batchgen.cli.group import epilog
from batchgen.cli.hints import commands, failure_hint
from batchgen.cli.options import json_option, only_experiment_option, reason_choice, step_option
from batchgen.cli.session import Session, print_json
from batchgen.cli.terminal import print_text
from batchgen.display.items import failures_text
from batchgen.jobs.failures import Failures, failures_of
from batchgen.jobs.lookup import chosen_experiments
from batchgen.store import Experiment, read_now, read_store


@click.command(epilog=epilog(
    "batchgen failures",
    "batchgen failures --reason parse --json",
    "batchgen failures --step judge",
))  # fmt: skip
@click.option("--reason", type=reason_choice)
@only_experiment_option
@step_option
@json_option
@click.pass_obj
def failures(
    session: Session, reason: str | None, experiment: str | None, step: str | None, as_json: bool
) -> int:
    """Group the failed items by reason and message.

    Each group with its count, the number of an example to show, and what fits: a command that
    parses again, asks again, or asks with something changed. Ids and digits in a message make no
    group of their own.
    """
    config = session.config()

    with read_store(config.database) as store:
        chosen = read_now(chosen_experiments(store, experiment, step))
        found = read_now(failures_of(store, chosen, reason))
    # What is typed about a group must be about no other experiment.
    is_named = len(found) > 1 or experiment is not None or step is not None
    if as_json:
        print_json([row for one in found for row in _rows(one, is_named)])
    else:
        print_text("\n".join(_text(one, is_named) for one in _worth_saying(found, chosen)))
    return 0


def _worth_saying(found: Sequence[Failures], chosen: Sequence[Experiment]) -> list[Failures]:
    """Where nothing failed at any step, that is said once."""
    said: list[Failures] = []
    for one, experiment in zip(found, chosen, strict=True):
        of_chain = [
            failures
            for failures, other in zip(found, chosen, strict=True)
            if (other.first_id or other.id) == (experiment.first_id or experiment.id)
        ]
        if one.is_clean and len(of_chain) > 1:
            if one is of_chain[0] and all(failures.is_clean for failures in of_chain):
                said.append(Failures(experiment.name, ()))
        else:
            said.append(one)
    return said


def _text(failures: Failures, is_named: bool) -> str:
    name = failures.experiment if is_named else None
    return failures_text(failures, commands(), lambda one: failure_hint(one, name))


def _rows(failures: Failures, is_named: bool) -> list[dict[str, Any]]:
    name = failures.experiment if is_named else None
    return [
        {**row, "hint": failure_hint(one, name)}
        for row, one in zip(failures.to_json(), failures.groups, strict=True)
    ]
