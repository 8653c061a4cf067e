"""retry: ask again for items that failed."""

import click

from batchgen.cli.group import epilog
from batchgen.cli.hints import commands
from batchgen.cli.options import json_option, only_experiment_option, reason_choice, step_option
from batchgen.cli.parsing import update_outdated
from batchgen.cli.session import Session, counted, print_json, run_async
from batchgen.cli.terminal import print_text
from batchgen.config import Config, model_setting
from batchgen.display.status import outdated_line
from batchgen.display.steps import stale_result_text
from batchgen.items import Reason
from batchgen.jobs.lookup import chosen_experiments
from batchgen.jobs.present_parser import outdated
from batchgen.jobs.retry import RetryCost, RetryRequest
from batchgen.jobs.retry import retry as retry_items
from batchgen.jobs.retry_stale import retry_stale
from batchgen.store import Store, open_store


@click.command(epilog=epilog(
    "batchgen retry",
    "batchgen retry --reason timeout --reason server",
    "batchgen retry --message overloaded --dry-run",
    "batchgen retry --reason truncated --set max_tokens=8192",
    "batchgen retry --id 17 --done --set model=gpt-4.1",
    "batchgen retry --step critique --reason parse",
    "batchgen retry --stale --dry-run",
))  # fmt: skip
@click.option("--reason", "reasons", type=reason_choice, multiple=True)
@click.option("--message", metavar="TEXT", help="Those with TEXT in their message, in any case.")
@click.option("--id", "item_ids", metavar="ID", multiple=True)
@click.option(
    "--done", "done_too", is_flag=True,
    help="With --id: also an item that is done. It is asked again; its old answer stays in the "
         "database (batchgen show), but is not exported any more.",
)  # fmt: skip
@click.option(
    "--set", "settings", metavar="KEY=VALUE", multiple=True,
    help="Ask these items with another parameter or model, as in the config's model section; "
         "null: without it. Items whose own `params` say otherwise are skipped.",
)  # fmt: skip
@click.option(
    "--stale", is_flag=True,
    help="Instead of failed ones: rows of steps that were made of something that has been replaced "
         "since.",
)  # fmt: skip
@only_experiment_option
@step_option
@click.option("--dry-run", is_flag=True, help="Only say how many, and what it costs.")
@json_option
@click.pass_obj
def retry(
    session: Session, reasons: tuple[str, ...], message: str | None, item_ids: tuple[str, ...],
    done_too: bool, settings: tuple[str, ...], stale: bool, experiment: str | None,
    step: str | None, dry_run: bool, as_json: bool,
) -> int:  # fmt: skip
    """Put failed items back to pending, to ask again.

    They get all their tries back; what came of the old ones is kept. Without options, all failed
    ones. `batchgen work` then asks for them again. Where the parser has changed since, it reads the
    stored answers first: what it can use now is not asked again.

    With --set they get a recipe of their own and stay the same items: enqueueing their pool again
    adds nothing, and asks as the config says only for what is new.

    Where items have steps, what was made of a row that is asked again is stale: it is left out of
    the export, and asked again only by --stale, when what it is made of is done. What would see the
    same as before comes back by itself.
    """
    if stale and (reasons or message is not None or item_ids or done_too or settings):
        raise click.UsageError("--stale goes with --experiment, --step and --dry-run alone")
    request = RetryRequest(
        experiment, tuple(map(Reason, reasons)), message, item_ids, done_too,
        dict(map(model_setting, settings)), step,
    )  # fmt: skip
    config = session.config()
    if stale:
        return run_async(_retry_stale(config, experiment, step, dry_run=dry_run, as_json=as_json))

    async def job() -> int:
        async with open_store(config.database) as store:
            if request.is_at_parser:
                await _parse_first(session, store, config, request, dry_run=dry_run)
            result = await retry_items(store, request, dry_run=dry_run)
        one = "row" if result.of_steps else "item"
        if result.overridden:
            session.warn(f"not retried: {counted(result.overridden, 'item')} with params of their "
                         f"own, which win over --set {' '.join(settings)}")  # fmt: skip
        if as_json:
            print_json(result.to_json())
        else:
            went = "would go" if dry_run else "went"
            items = counted(result.retried, one if done_too else f"failed {one}")
            cost = _cost_text(result.cost) if result.cost and result.retried else ""
            print_text(f"{items} {went} back to pending{cost}.")
        if result.unmade:
            session.say(
                f"not retried: {counted(result.unmade, 'row')}, as what a step is made of is not "
                "done, or something else became of it meanwhile"
            )
        return 0

    return run_async(job())


def _cost_text(cost: RetryCost) -> str:
    """Empty where it is not known."""
    if cost.cost_usd is None:
        return ""
    said = f": {counted(cost.calls, 'call')}, about ${cost.cost_usd:,.4f}"
    return f"{said}, and what the steps after them ask" if cost.goes_on else said


async def _retry_stale(
    config: Config, experiment: str | None, step: str | None, *, dry_run: bool, as_json: bool
) -> int:
    async with open_store(config.database) as store:
        result = await retry_stale(store, experiment, step, dry_run=dry_run)
    if as_json:
        print_json(result.to_json())
    else:
        print_text(stale_result_text(result, commands()))
    return 0


async def _parse_first(
    session: Session, store: Store, config: Config, request: RetryRequest, *, dry_run: bool
) -> None:
    """What a parser that has changed since can read now is done, and costs no call. One that cannot
    be loaded keeps nobody from asking."""
    experiments = await chosen_experiments(store, request.experiment, request.step)
    if not dry_run:
        await update_outdated(session, store, config, experiments)
        return
    for old in (await outdated(store, config, experiments)).values():
        session.warn(outdated_line(old, commands()))
