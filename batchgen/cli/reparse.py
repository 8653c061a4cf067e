"""reparse: parse stored answers again."""

from collections.abc import Sequence

import click

from batchgen.cli.group import epilog
from batchgen.cli.hints import batchgen, of_experiment
from batchgen.cli.options import json_option, only_experiment_option, step_option
from batchgen.cli.parsing import reparsed_text
from batchgen.cli.progress import Latest, showing_progress
from batchgen.cli.session import Session, run_async
from batchgen.cli.terminal import print_json, print_text
from batchgen.config import Config
from batchgen.jobs.present_parser import present_spec
from batchgen.jobs.reparse import ReparsedExperiment, ReparseRequest
from batchgen.jobs.reparse import reparse as reparse_answers
from batchgen.jobs.reparsing import ReparseResult
from batchgen.parsers import shown_spec
from batchgen.store import Store, open_store


@click.command(epilog=epilog(
    "batchgen reparse --dry-run",
    "batchgen reparse --parser json",
    "batchgen reparse --all --parser my_parsers.py:parse_response",
    "batchgen reparse --id 17",
    "batchgen reparse --step critique --all --dry-run",
))  # fmt: skip
@only_experiment_option
@step_option
@click.option("--parser", metavar="SPEC", help="Default: the one that they have.")
@click.option("--failed", is_flag=True, help="Items failed at their parser; the default.")
@click.option(
    "--all", "done_too", is_flag=True,
    help="The done items too. One whose answer the parser cannot use fails then.",
)  # fmt: skip
@click.option("--id", "item_ids", metavar="ID", multiple=True, help="Only this item, done or not.")
@click.option("--dry-run", is_flag=True, help="Parse, count, show some differences, write nothing.")
@json_option
@click.pass_obj
def reparse(
    session: Session, experiment: str | None, step: str | None, parser: str | None, failed: bool,
    done_too: bool, item_ids: tuple[str, ...], dry_run: bool, as_json: bool,
) -> int:  # fmt: skip
    """Parse stored answers again, without asking anything.

    For when a parser was wrong or is another now. Without --parser, the config's experiment is
    parsed by the config's parser, if it names one, and others by theirs. Items that it can parse
    become done; those that it cannot are failed with reason parse, ready for `batchgen retry`. What
    was parsed before stays in the table `results`; export has the newest.

    `batchgen work` and `batchgen run` do the same before they go on, for all that the present
    parser has not read. An answer that was cut off at max_tokens, where the parser needs all of it,
    fails as truncated. Exit 3 when some fail.

    Of a step, rows after it are made of what it can parse now, and where its value is another one,
    what was made of the old value is stale. --dry-run says how many.
    """
    if failed + done_too + bool(item_ids) > 1:
        raise click.UsageError("--failed, --all and --id exclude each other")
    config = session.config()
    named = None
    if parser:  # as in a config without steps, each of which would have a parser of its own
        named = session.config(parser=parser, steps=(), result=()).parser
    request, parsed = ReparseRequest(experiment, done_too, item_ids, step), Latest(0)

    async def job() -> int:
        async with open_store(config.database) as store:
            with showing_progress(session, lambda: f"{parsed.value:,} answers parsed"):
                found = await reparse_answers(
                    store, config, request, named, dry_run=dry_run,
                    progress=lambda n, _: parsed.put(n), say=session.warn,
                )  # fmt: skip
            total = ReparseResult.sum_of([one.result for one in found], dry_run=dry_run)
            if as_json:
                print_json(total.to_json())
            else:
                print_text(_text(found, total, parser or config.parser))
            for one in found if parser and not dry_run else ():
                await _say_what_work_does(session, store, config, one)
        return total.exit_code

    return run_async(job())


async def _say_what_work_does(
    session: Session, store: Store, config: Config, one: ReparsedExperiment
) -> None:
    """Where the experiment's parser is another one than that which was given."""
    present = await present_spec(store, config, one.experiment)
    if one.result.answers and present != one.spec:
        session.say(
            f"The parser of {one.experiment.own_name} is {shown_spec(present)}: work and run will "
            f"parse these answers with that again, unless you write {shown_spec(one.spec)} into "
            "the config."
        )


def _text(found: Sequence[ReparsedExperiment], total: ReparseResult, named: str) -> str:
    several = len(found) > 1
    lines = [
        (f"{one.experiment.own_name}: " if several else "") + reparsed_text(one.result, one.spec)
        for one in found
    ] or [reparsed_text(total, named)]
    if total.dry_run:
        lines += [f"  {one.id}: {one.before} -> {one.after}" for one in total.differences]
        lines.append("Nothing was written.")
    elif total.exit_code:
        see = f"{batchgen()} failures{of_experiment()}"
        lines.append(f"See why they failed, and what to do about each: {see}")
    return "\n".join(lines)
