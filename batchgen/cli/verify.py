"""verify: prove that the database is whole."""

import json

import click

from batchgen.cli.group import epilog
from batchgen.cli.options import json_option
from batchgen.cli.session import Session, counted, run_async
from batchgen.export import check_export, check_live_file
from batchgen.store import open_store


@click.command(epilog=epilog("batchgen verify"))
@json_option
@click.pass_obj
def verify(session: Session, as_json: bool) -> int:
    """Prove that the database is whole.

    Counts add up, no id is there twice, every done item has its answer. Exported files that are
    still there are compared too: with the table or, where that cannot be, by their hash; those
    that work -o and --follow keep up to date by their end. Exit 1, and the list, if something is
    wrong.
    """
    config = session.config()

    async def job() -> int:
        async with open_store(config.database) as store:
            problems = await store.verify()
            if not problems:
                checks = [await check_export(store, record) for record in await store.exports()]
                checks += [await check_live_file(store, one) for one in await store.live_files()]
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
