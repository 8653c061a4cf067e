"""reparse: parse stored answers again."""

import click

from batchgen.cli.group import epilog
from batchgen.cli.options import json_option, only_experiment_option
from batchgen.cli.session import Session, counted, print_json, run_async
from batchgen.cli.terminal import print_text
from batchgen.jobs.reparse import ReparseRequest, ReparseResult
from batchgen.jobs.reparse import reparse as reparse_answers
from batchgen.parsers import load_parser
from batchgen.store import open_store


@click.command(epilog=epilog(
    "batchgen reparse --dry-run",
    "batchgen reparse --parser json",
    "batchgen reparse --all --parser my_parsers.py:parse_response",
    "batchgen reparse --id 17",
))  # fmt: skip
@only_experiment_option
@click.option("--parser", metavar="SPEC", help="Default: parser of the config.")
@click.option("--failed", is_flag=True, help="Items failed with reason parse; the default.")
@click.option(
    "--all", "done_too", is_flag=True,
    help="The done items too. One whose answer the parser cannot use fails then.",
)  # fmt: skip
@click.option("--id", "item_ids", metavar="ID", multiple=True, help="Only this item, done or not.")
@click.option("--dry-run", is_flag=True, help="Parse, count, show some differences, write nothing.")
@json_option
@click.pass_obj
def reparse(
    session: Session, experiment: str | None, parser: str | None, failed: bool, done_too: bool,
    item_ids: tuple[str, ...], dry_run: bool, as_json: bool,
) -> int:  # fmt: skip
    """Parse stored answers again, without asking anything.

    For when a parser was wrong or is another now. Items that it can parse become done; those that
    it cannot stay failed with reason parse, ready for `batchgen retry`. What was parsed before
    stays in the table `results`; export has the newest.

    The items' recipe names the new parser from then on, and they stay the same items: with that
    parser in the config, enqueueing their pool again adds nothing. Items that are still pending
    keep the parser they were enqueued with. An answer that was cut off at max_tokens, where the
    parser needs all of it, fails as truncated. Exit 3 when some fail.
    """
    if failed + done_too + bool(item_ids) > 1:
        raise click.UsageError("--failed, --all and --id exclude each other")
    config = session.config()

    name = parser or config.parser
    request = ReparseRequest(experiment, done_too, item_ids)

    async def job() -> int:
        loaded = load_parser(name)
        async with open_store(config.database) as store:
            timeout_s = config.work.parse_timeout_s
            result = await reparse_answers(store, request, loaded, timeout_s, dry_run=dry_run)
        if as_json:
            print_json(result.to_json())
        else:
            print_text(_text(result, name))
        if name != config.parser and result.answers and not dry_run:
            session.say(f"The config's parser is {config.parser}: write {name} there too, "
                        "for the items that are enqueued from now on.")  # fmt: skip
        return result.exit_code

    return run_async(job())


def _text(result: ReparseResult, parser: str) -> str:
    kinds = {
        "done that had failed": result.done,
        "changed": result.changed,
        "unchanged": result.unchanged,
        "failed as before": result.failing,
        "failed that were done": result.broken,
        "skipped, as something else became of them meanwhile": result.skipped,
    }
    found = ", ".join(f"{n} {kind}" for kind, n in kinds.items() if n)
    line = f"{counted(result.answers, 'answer')} parsed with {parser}"
    lines = [f"{line}: {found}." if found else f"{line}."]
    if result.dry_run:
        lines += [f"  {one.id}: {one.before} -> {one.after}" for one in result.differences]
        lines.append("Nothing was written.")
    elif result.exit_code:
        lines.append("To ask again for those that failed: batchgen retry --reason parse")
    return "\n".join(lines)
