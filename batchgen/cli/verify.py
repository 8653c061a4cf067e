"""verify: prove that the database is whole."""

import click

from batchgen.cli.group import epilog
from batchgen.cli.hints import commands
from batchgen.cli.options import json_option
from batchgen.cli.progress import Latest, showing_progress
from batchgen.cli.session import Session, counted, print_json, run_async
from batchgen.cli.terminal import print_text
from batchgen.display.status import moved_line, outdated_line
from batchgen.jobs.verify import VerifyResult
from batchgen.jobs.verify import verify as verify_all
from batchgen.store import open_store


@click.command(epilog=epilog("batchgen verify"))
@json_option
@click.pass_obj
def verify(session: Session, as_json: bool) -> int:
    """Prove that the database is whole.

    Counts add up, no id is there twice, every done item has its answer, and every row of a step
    what it was made of. Exported files that are
    still there are compared too: with the table or, where that cannot be, by their hash, as are
    those that work -o and --follow keep up to date. Exit 1, and the list, if something is wrong.
    """
    config = session.config()

    looked_at = Latest("the tables")

    async def job() -> int:
        async with open_store(config.database) as store:
            with showing_progress(session, lambda: f"checking {looked_at.value}"):
                result = await verify_all(store, config, looked_at.put)
        if as_json:
            print_json(result.to_json())
            return 0 if result.ok else 1
        if result.moved_to:
            print_text(moved_line(result.moved_to))
        if not result.ok:
            print_text("\n".join(result.problems))
        else:
            print_text(_well_line(result))
            for one in result.outdated:
                print_text(outdated_line(one, commands()))
        return 0 if result.ok else 1

    return run_async(job())


def _well_line(result: VerifyResult) -> str:
    items, counts = counted(result.items, "item"), result.counts
    if counts.total != result.items:
        items += f" with {counted(counts.total, 'row')} of their steps"
    line = f"All is well: {items}, {counts.done} done, each with its answer"
    if not counts.stale:
        return f"{line}."
    stale = f"{counted(counts.stale, 'row')} {'is' if counts.stale == 1 else 'are'} stale"
    how = "made by the steps no more" if result.stays_stale else commands().retry_stale
    return f"{line}; {stale} ({how})."
