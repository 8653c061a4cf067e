"""After the run: retry, export, verify."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchgen.cli.lookup import items_called, open_experiments
from batchgen.cli.options import (
    epilog,
    experiment_option,
    json_option,
    only_experiment_option,
    reason_choice,
)
from batchgen.cli.session import Session, counted, run_async
from batchgen.cli.steps import export_to
from batchgen.errors import UsageError

if TYPE_CHECKING:
    from batchgen.store import Store


@click.command(epilog=epilog(
    "batchgen retry", "batchgen retry --reason timeout --reason server", "batchgen retry --id 17"
))  # fmt: skip
@click.option("--reason", "reasons", type=reason_choice, multiple=True)
@click.option("--id", "item_ids", metavar="ID", multiple=True)
@only_experiment_option
@click.option("--dry-run", is_flag=True, help="Only say how many.")
@json_option
@click.pass_obj
def retry(
    session: Session, reasons: tuple[str, ...], item_ids: tuple[str, ...], experiment: str | None,
    dry_run: bool, as_json: bool,
) -> int:  # fmt: skip
    """Put failed items back to pending, to ask again.

    They get all their tries back; what came of the old ones is kept. Without options, all failed
    ones. `batchgen work` then asks for them again.
    """
    config = session.config()

    async def job() -> int:
        async with open_experiments(config, experiment) as (store, chosen):
            if item_ids:
                only = chosen[0].id if experiment else None
                n = await _retry_ids(store, item_ids, reasons, only, dry_run)
            else:
                n = sum([await _retry_all(store, e.id, reasons, dry_run) for e in chosen])
        if as_json:
            click.echo(json.dumps({"retried": n, "dry_run": dry_run}))
        else:
            went = "would go" if dry_run else "went"
            click.echo(f"{counted(n, 'failed item')} {went} back to pending.")
        return 0

    return run_async(job())


async def _retry_all(
    store: "Store", experiment_id: int, reasons: tuple[str, ...], dry_run: bool
) -> int:
    n = 0
    for reason in reasons or (None,):
        after = 0
        while page := await store.failed_page(experiment_id, reason, after):
            after = page[-1][0]
            n += len(page) if dry_run else await store.reopen(page)
    return n


async def _retry_ids(
    store: "Store", item_ids: tuple[str, ...], reasons: tuple[str, ...],
    experiment_id: int | None, dry_run: bool,
) -> int:  # fmt: skip
    failed = []
    for given in item_ids:
        for number in await items_called(store, given, experiment_id):
            found = await store.failed_item(number)
            if found is None:
                raise UsageError(f"item {given} is not failed, so there is nothing to retry.")
            if not reasons or found[2] in reasons:
                failed.append(found)
    return len(failed) if dry_run else await store.reopen(failed)


@click.command(epilog=epilog("batchgen export", "batchgen export -o - | jq .parsed"))
@experiment_option
@click.option(
    "-o", "--output", metavar="FILE", help="Default: in output_data.output_dir; - is stdout."
)
@click.option("--failed", is_flag=True, help="The failed items instead, with reason and error.")
@json_option
@click.pass_obj
def export(
    session: Session, experiment: str | None, output: str | None, failed: bool, as_json: bool
) -> int:
    """Write the finished rows as JSON lines.

    In the order of the pool. The file appears whole or not at all.
    """
    from batchgen.items import State

    config = session.config(experiment_name=experiment)
    state = State.FAILED if failed else State.DONE

    async def job() -> int:
        async with open_experiments(config, config.output_data.experiment_name) as (store, chosen):
            path = Path(output) if output else None
            await export_to(session, store, config, chosen[0], path, state, as_json=as_json)
        return 0

    return run_async(job())


@click.command(epilog=epilog("batchgen verify"))
@json_option
@click.pass_obj
def verify(session: Session, as_json: bool) -> int:
    """Prove that the database is whole.

    Counts add up, no id is there twice, every done item has its answer. Exported files that are
    still there are compared too. Exit 1, and the list, if something is wrong.
    """
    config = session.config()

    async def job() -> int:
        from batchgen.export import check_export
        from batchgen.store import open_store

        async with open_store(config.database) as store:
            problems = await store.verify()
            if not problems:
                checks = [await check_export(store, record) for record in await store.exports()]
                problems = [problem for problem in checks if problem]
            counts = await store.counts()
        if as_json:
            click.echo(json.dumps({"ok": not problems, "problems": problems}, ensure_ascii=False))
        elif problems:
            click.echo("\n".join(problems))
        else:
            items = counted(counts.total, "item")
            click.echo(f"All is well: {items}, {counts.done} done, each with its answer.")
        return 1 if problems else 0

    return run_async(job())
