"""report: what a run came to, as one file for somebody else."""

from pathlib import Path

import click

from batchgen.cli.completion import files
from batchgen.cli.group import epilog
from batchgen.cli.hints import commands
from batchgen.cli.options import LIMIT, experiment_option
from batchgen.cli.session import Session, counted
from batchgen.errors import UsageError

_MOST_ROWS = 500
_MARK_WITHIN = 4096


@click.command(epilog=epilog(
    "batchgen report -o run.html",
    "batchgen report --experiment labels --sample 50 --seed 7 -o labels.html",
    "batchgen report --lang zh -o run.html",
))  # fmt: skip
@click.option(
    "-o", "--output", metavar="FILE", required=True, shell_complete=files,
    type=click.Path(path_type=Path, dir_okay=False),
    help="An HTML file; an earlier report there is replaced.",
)  # fmt: skip
@experiment_option
@click.option("--sample", type=click.IntRange(0, _MOST_ROWS), default=20, show_default=True,
              metavar="N", help="So many done rows, drawn at random.")  # fmt: skip
@click.option("--seed", type=LIMIT, metavar="N", help="Draw the same rows as another time.")
@click.option("--lang", "language", type=click.Choice(["en", "zh"]), default="en",
              show_default=True, help="Its language.")  # fmt: skip
@click.pass_obj
def report(
    session: Session, output: Path, experiment: str | None, sample: int, seed: int | None,
    language: str,
) -> int:  # fmt: skip
    """Write what a run came to as one HTML file.

    Counts, cost, plots, steps, failures, recipes and rows drawn at random: it needs neither
    batchgen nor a network, and opens in any browser. Who gets it can read the prompts and these
    rows.
    """
    config = session.config()
    # Here: --help does without all of these.
    from batchgen.export import refuse_kept, whole_file
    from batchgen.store import read_now, read_store
    from batchgen.web import MARK, facts_of, report_html

    refuse_kept(output, config.own_files)
    _refuse_other(output, MARK)
    name = experiment or config.output_data.experiment_name
    with read_store(config.database) as store:
        facts = read_now(facts_of(store, config, name, sample, seed))
    text = report_html(facts, config, commands(), language).encode("utf-8", "replace")
    with whole_file(output) as file:
        file.write(text)
    drawn = f"{counted(len(facts.rows), 'row')} drawn with --seed {facts.drawn.seed}"
    session.say(f"{output}: {len(text) / 1000:,.0f} kB, {drawn}")
    return 0


def _refuse_other(path: Path, mark: str) -> None:
    """Only a report is replaced."""
    if path.exists() and path.stat().st_size:
        with path.open("rb") as file:
            if mark.encode() not in file.read(_MARK_WITHIN):
                raise UsageError(f"{path}: is there, and is no report; name another file.")
