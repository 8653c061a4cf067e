"""export: the finished rows as a file."""

from pathlib import Path

import click
from msgspec import Struct

from batchgen.cli.completion import files
from batchgen.cli.exporting import export_to, follow_to
from batchgen.cli.group import epilog
from batchgen.cli.options import (
    experiment_option,
    force_option,
    gathered,
    json_option,
    step_option,
)
from batchgen.cli.session import Session, run_async
from batchgen.errors import UsageError
from batchgen.export import (
    FORMATS,
    MOST_SHARDS,
    ExportRequest,
    Extra,
    Reviewed,
    column_names,
    format_of,
)
from batchgen.items import State
from batchgen.jobs.export import Exportable, exportable
from batchgen.store import open_store
from batchgen.where import Where

_SUFFIXES = ", ".join(f".{name}" for name, spec in FORMATS.items() if spec.suffix == f".{name}")
_TRAINING = ", ".join(name for name, spec in FORMATS.items() if spec.is_for_training)


class _Asked(Struct, frozen=True):
    """What is to be in the file, and how, by the names of the options."""

    format_name: str | None
    failed: bool
    failed_too: bool
    where: str | None
    columns: str | None
    no_guard: bool
    shards: int
    summary: Path | None
    extras: tuple[str, ...]
    group: bool
    reviewed: str | None

    def request(self, path: Path | None, of: Exportable) -> ExportRequest:
        of_sheet = self.columns is not None or self.no_guard
        return ExportRequest(
            format_of(path, self.format_name, of_sheet=of_sheet),
            State.FAILED if self.failed else State.DONE,
            None if self.where is None else Where(self.where, of.where_names),
            self.shards,
            self.summary,
            tuple(map(Extra, dict.fromkeys(self.extras))),
            self.group,
            self.failed_too,
            () if self.columns is None else column_names(self.columns),
            not self.no_guard,
            of.step,
            of.groups,
            None if self.reviewed is None else Reviewed(self.reviewed),
            of.review_names,
        )

    def check(self, *, step: str | None, follow: bool) -> None:
        """Raises UsageError for options that do not go together."""
        if self.failed and self.failed_too:
            raise click.UsageError("--failed and --all exclude each other")
        if follow:
            self._refuse_with_follow(step)

    def _refuse_with_follow(self, step: str | None) -> None:
        """What cannot be had in lines that are written while items finish."""
        name = self.format_name
        refused = {
            "--step": step is not None,
            "--failed": self.failed,
            "--all": self.failed_too,
            "--where": self.where is not None,
            "--reviewed": self.reviewed is not None,
            "--columns": self.columns is not None,
            "--no-guard": self.no_guard,
            "--shards": self.shards > 1,
            "--summary": self.summary is not None,
            "--with": bool(self.extras),
            "--group": self.group,
            f"--format {name}": name is not None and not FORMATS[name].is_export_line,
        }
        given = ", ".join(option for option, is_given in refused.items() if is_given)
        if given:
            raise UsageError(
                f"--follow writes all that is done as JSON lines, so it does not go with {given}; "
                "export that when the work is done."
            )


_asked = gathered(
    "asked",
    _Asked,
    click.option(
        "--format", "format_name", type=click.Choice(list(FORMATS)),
        help=f"Default: by the suffix of FILE ({_SUFFIXES}), or jsonl. For fine-tuning: "
             f"{_TRAINING}.",
    ),
    click.option("--failed", is_flag=True, help="The failed items instead, with reason and error."),
    click.option(
        "--all", "failed_too", is_flag=True,
        help="The failed items too, in their places: parsed null, with reason and error.",
    ),
    click.option(
        "--where", metavar="EXPR",
        help="Only the rows for which this holds, such as 'parsed.label == \"positive\"'. Names: "
             "id, input, metadata, response, parsed, steps, and review, note, edited; ==, !=, <, "
             "<=, >, >=, in, and, or, not.",
    ),
    click.option(
        "--reviewed", type=click.Choice([one.value for one in Reviewed]),
        help="Only the rows that people accepted, or all but those that they rejected "
             "(batchgen review); their edits stand in place of the parsed values.",
    ),
    click.option(
        "--columns", metavar="NAME,...",
        help="Of a CSV only these, in this order, such as id,input.text,parsed.label,parsed[0].",
    ),
    click.option(
        "--no-guard", is_flag=True,
        help="Leave a text of a CSV that begins with =, +, - or @ as it is, which a spreadsheet "
             "takes for a formula; without this it gets a ' before it.",
    ),
    click.option(
        "--shards", type=click.IntRange(1, MOST_SHARDS), default=1, metavar="N",
        help="Split into N files, NAME-00001-of-0000N.EXT, in the order of the pool.",
    ),
    click.option(
        "--summary",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Write counts, tokens, cost, recipes and hashes of the export there, as JSON.",
    ),
    click.option(
        "--with", "extras", type=click.Choice([one.value for one in Extra]), multiple=True,
        help="Put this of each answer into its row too; may be given again. body is all that the "
             "server sent.",
    ),
    click.option(
        "--group", is_flag=True,
        help="A line for each item, with its done samples (enqueue --samples), or its chains, in a "
             "list. JSONL only.",
    ),
)  # fmt: skip


@click.command(epilog=epilog(
    "batchgen export",
    "batchgen export -o - | jq .parsed",
    "batchgen export --all -o results.csv",
    "batchgen export --columns id,input.text,parsed.label -o labels.csv",
    "batchgen export --format messages --where 'parsed.score >= 4' -o train.jsonl",
    "batchgen export -o data.parquet --shards 8 --summary data.json",
    "batchgen export --with reasoning --with tool_calls -o results.jsonl",
    "batchgen export --group -o samples.jsonl",
    "batchgen export --reviewed accepted -o gold.jsonl",
    "batchgen export --step answer --where 'judge.score >= 4' --format messages -o train.jsonl",
    "batchgen export --follow -o - | jq .parsed",
))  # fmt: skip
@experiment_option
@step_option
@click.option(
    "-o", "--output", metavar="FILE", shell_complete=files,
    help="Default: in output_data.output_dir; - is stdout.",
)  # fmt: skip
@_asked
@click.option(
    "--follow", is_flag=True,
    help="Go on until nothing is pending or running: JSON lines, in finishing order, each once, "
         "also when it is stopped or killed and run again.",
)  # fmt: skip
@force_option
@json_option
@click.pass_obj
def export(
    session: Session, experiment: str | None, step: str | None, output: str | None, asked: _Asked,
    follow: bool, force: bool, as_json: bool,
) -> int:  # fmt: skip
    """Write the finished rows as lines, a table or conversations.

    In the order of the pool. A file appears whole or not at all; only with --follow it grows.
    """
    path = Path(output) if output else None
    asked.check(step=step, follow=follow)
    config = session.config()  # of which the parser is for its own experiment
    name = experiment or config.output_data.experiment_name

    async def job() -> int:
        async with open_store(config.database) as store:
            of = await exportable(store, name, step)
            if follow:
                await follow_to(
                    session, store, config, of.experiment, path, force=force, as_json=as_json
                )
                return 0
            request = asked.request(path, of)
            await export_to(
                session, store, config, of.experiment, path, request, force=force, as_json=as_json
            )
        return 0

    return run_async(job())
