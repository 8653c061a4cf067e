"""batches: the provider batches, and what a person does about them."""

from collections.abc import Sequence
from typing import Any

import click
from msgspec import Struct

from batchgen.cli.group import epilog
from batchgen.cli.hints import commands
from batchgen.cli.options import json_option, only_experiment_option
from batchgen.cli.session import Session, print_json, run_async
from batchgen.cli.terminal import ask, print_text, say
from batchgen.config import Config
from batchgen.display.batches import (
    abandoned_text,
    adopted_text,
    batches_text,
    cancelled_text,
    loss_text,
    to_create_text,
)
from batchgen.jobs.batches import list_batches
from batchgen.store import open_store, read_now, read_store

_NUMBER = click.IntRange(1, 10**12)


@click.command(epilog=epilog(
    "batchgen batches",
    "batchgen batches --experiment labels --json",
    "batchgen batches --cancel 12 --cancel 13",
    "batchgen batches --cancel-all",
    "batchgen batches --abandon 12",
    "batchgen batches --adopt 14 batch_6abc00e1",
    "batchgen batches --create 14",
))  # fmt: skip
@only_experiment_option
@click.option("--all", "all_closed", is_flag=True, help="Also all that are closed; default: ten.")
@click.option(
    "--cancel", type=_NUMBER, multiple=True, metavar="N",
    help="Ask the provider to cancel batch N. What is done is kept and paid for, and collected by "
         "the next work --batch; the rest is pending again then.",
)  # fmt: skip
@click.option("--cancel-all", is_flag=True, help="The same of all that are open.")
@click.option(
    "--abandon", type=_NUMBER, multiple=True, metavar="N",
    help="Give batch N up for lost: its rows are pending again at once, each counted as sent, "
         "answer unknown. Asks first.",
)  # fmt: skip
@click.option(
    "--adopt", type=(_NUMBER, str), metavar="N ID",
    help="Batch N, of which nothing was heard, is ID at the provider, which is asked whether it "
         "is.",
)  # fmt: skip
@click.option(
    "--create", type=_NUMBER, metavar="N",
    help="Batch N, of which nothing was heard, is not at the provider: you have looked. The next "
         "work --batch makes it.",
)  # fmt: skip
@click.option("--yes", is_flag=True, help="With --abandon: do not ask.")
@json_option
@click.pass_obj
def batches(
    session: Session, experiment: str | None, all_closed: bool, cancel: tuple[int, ...],
    cancel_all: bool, abandon: tuple[int, ...], adopt: tuple[int, str] | None,
    create: int | None, yes: bool, as_json: bool,
) -> int:  # fmt: skip
    """List provider batches; cancel, give up or find one.

    Those that are not closed, and of the others the last ten; the newest first. To cancel needs the
    config, with the server and the key that it was sent with. To give one up or to find one, the
    sender (`work --batch`) is to be stopped first, if one runs.
    """
    given = {"--cancel": cancel, "--cancel-all": cancel_all, "--abandon": abandon, "--adopt": adopt,
             "--create": create}  # fmt: skip
    actions = [name for name, value in given.items() if value]
    _check(actions, experiment, all_closed=all_closed, yes=yes)
    config = session.config()
    if not actions:
        return _list(config, experiment, all_closed=all_closed, as_json=as_json)
    asked = _Asked(session, config, as_json)
    if cancel or cancel_all:
        return run_async(asked.cancel(cancel, experiment))
    if abandon:
        return run_async(asked.abandon(abandon, is_sure=yes))
    if adopt:
        return run_async(asked.adopt(*adopt))
    assert create is not None
    return run_async(asked.create(create))


def _check(actions: Sequence[str], experiment: str | None, *, all_closed: bool, yes: bool) -> None:
    """Raises UsageError for what does not go together."""
    if len(actions) > 1:
        raise click.UsageError(f"{' and '.join(actions)} do not go together; do one at a time")
    if yes and actions != ["--abandon"]:
        raise click.UsageError("--yes goes with --abandon")
    if all_closed and actions:
        raise click.UsageError(f"--all goes with the list, and not with {actions[0]}")
    if experiment is not None and actions not in ([], ["--cancel-all"]):
        raise click.UsageError(
            f"--experiment goes with the list and with --cancel-all, and not with {actions[0]}"
        )


def _list(config: Config, experiment: str | None, *, all_closed: bool, as_json: bool) -> int:
    with read_store(config.database) as store:
        found = read_now(list_batches(store, experiment, all_closed=all_closed))
    if as_json:
        print_json([one.to_json() for one in found.batches])
    else:
        print_text(batches_text(found, commands()))
    return 0


class _Asked(Struct, frozen=True):
    """What is to be done about some, and said of it."""

    session: Session
    config: Config
    as_json: bool

    async def cancel(self, numbers: Sequence[int], experiment: str | None) -> int:
        """Those of these numbers; without one, all that are open."""
        from batchgen.jobs.batch_orders import cancel, cancel_all

        async with open_store(self.config.database) as store:
            if numbers:
                result = await cancel(store, self.config, numbers)
            else:
                result = await cancel_all(store, self.config, experiment)
        self._print(result.to_json(), cancelled_text(result, commands()))
        for batch, why in result.failed:
            say(f"error: batch {batch.number} is not cancelled. {why}")
        return 1 if result.failed else 0

    async def abandon(self, numbers: Sequence[int], *, is_sure: bool) -> int:
        from batchgen.jobs.batch_orders import abandon, loss_of

        async with open_store(self.config.database) as store:
            losses = [await loss_of(store, number) for number in dict.fromkeys(numbers)]
            if not is_sure:
                say(loss_text(losses, commands()))
                ask("Give up for lost? This cannot be undone.")
            rows = {one.batch.number: await abandon(store, one.batch.number) for one in losses}
        told = "\n".join(abandoned_text(one.batch, rows[one.batch.number]) for one in losses)
        self._print({"abandoned": rows}, told)
        return 0

    async def adopt(self, number: int, batch_id: str) -> int:
        from batchgen.jobs.batch_orders import adopt

        async with open_store(self.config.database) as store:
            adopted = await adopt(store, self.config, number, batch_id)
        told = {"adopted": number, "batch_id": batch_id, "is_proven": adopted.is_proven}
        self._print(told, adopted_text(adopted, commands()))
        return 0

    async def create(self, number: int) -> int:
        from batchgen.jobs.batch_orders import let_create

        async with open_store(self.config.database) as store:
            batch = await let_create(store, self.config, number)
        self._print({"to_create": number}, to_create_text(batch, commands()))
        return 0

    def _print(self, value: dict[str, Any], text: str) -> None:
        if self.as_json:
            print_json(value)
        else:
            print_text(text)
