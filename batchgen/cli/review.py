"""review: what people say of answers."""

import click
from msgspec import UNSET

from batchgen.cli.completion import experiments
from batchgen.cli.group import epilog
from batchgen.cli.options import json_option, step_option
from batchgen.cli.session import Session, print_json, run_async
from batchgen.cli.terminal import print_text
from batchgen.display.reviews import reviews_text, said_text
from batchgen.jobs.review import (
    STATES,
    Said,
    edit_json,
    filter_of,
    list_reviews,
    said_of,
    say_of,
    take_back,
)
from batchgen.store import ReviewChange, Verdict, read_now, read_store

_LISTED = 50


@click.command(epilog=epilog(
    "batchgen review",
    "batchgen review r17 --accept",
    "batchgen review r18 --reject --note 'names no place'",
    "batchgen review r19 --accept --edit '{\"label\": \"mixed\"}'",
    "batchgen review r18 --undo",
    "batchgen review --state rejected --json",
    "batchgen export --reviewed accepted -o gold.jsonl",
))  # fmt: skip
@click.argument("item_id", metavar="[ID]", required=False)
@click.option("--accept", "verdict", flag_value=Verdict.ACCEPTED.value, help="The answer is good.")
@click.option("--reject", "verdict", flag_value=Verdict.REJECTED.value, help="It is not.")
@click.option("--note", metavar="TEXT", help="Say why; an empty one removes it.")
@click.option("--edit", metavar="JSON",
              help="What stands in place of the parsed value (parser raw: of the answer, in "
                   "quotes) in an export that heeds reviews; an empty one removes it.")  # fmt: skip
@click.option("--undo", is_flag=True, help="Take back the last that was said of it.")
@click.option("--experiment", metavar="NAME", shell_complete=experiments,
              help="Default: output_data.experiment_name of the config; "
                   "of an ID, all.")  # fmt: skip
@step_option
@click.option("--state", type=click.Choice(STATES),
              help="List only these; earlier: of answers that their items "
                   "have no more.")  # fmt: skip
@json_option
@click.pass_obj
def review(
    session: Session, item_id: str | None, verdict: str | None, note: str | None, edit: str | None,
    undo: bool, experiment: str | None, step: str | None, state: str | None, as_json: bool,
) -> int:  # fmt: skip
    """Accept, reject or edit answers; or list what was said.

    What is said is of one answer: once the item has another one (retry, reparse) it is kept, and
    does not count. Answers and results never change by it, and neither do live files; `export
    --reviewed`, and --where with the names review, note and edited, go by it.
    """
    says = verdict is not None or note is not None or edit is not None
    if item_id is None and (says or undo):
        raise click.UsageError("say of which item: its id, or its number")
    if undo and says:
        raise click.UsageError("--undo goes with nothing else that is said")
    if item_id is not None and state is not None:
        raise click.UsageError("--state is for the list, without an ID")
    config = session.config()

    if item_id is None:
        name = experiment or config.output_data.experiment_name
        limit = None if as_json else _LISTED
        with read_store(config.database) as store:
            listed = read_now(list_reviews(store, name, step, filter_of(state), limit))
        if as_json:
            print_json(listed.to_json())
        else:
            print_text(reviews_text(listed))
            if listed.left_out:
                session.say(f"The first {_LISTED} of them; all: --json")
        return 0
    if not says and not undo:
        with read_store(config.database) as store:
            _print(read_now(said_of(store, item_id, experiment, step)), as_json=as_json)
        return 0
    change = ReviewChange(
        UNSET if verdict is None else Verdict(verdict),
        UNSET if note is None else note,
        UNSET if edit is None else edit_json(edit) if edit else None,
    )

    from batchgen.store import open_store  # here: to list takes less

    async def job() -> int:
        async with open_store(config.database) as store:
            if undo:
                said = await take_back(store, item_id, experiment, step)
            else:
                said = await say_of(store, item_id, experiment, step, change)
        _print(said, as_json=as_json)
        return 0

    return run_async(job())


def _print(said: Said, *, as_json: bool) -> None:
    if as_json:
        print_json(said.to_json())
    else:
        print_text(said_text(said))
