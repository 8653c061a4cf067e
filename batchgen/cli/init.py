"""init: the files that a project starts from."""

import shlex
from pathlib import Path

import click

from batchgen.cli.group import epilog
from batchgen.cli.starter import STARTERS, copy_starter
from batchgen.cli.terminal import print_text


@click.command(epilog=epilog(
    "batchgen init my_project",
    "batchgen init --template label reviews",
    "batchgen init --template qa-judge passages",
))  # fmt: skip
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False), default=".")
@click.option(
    "--template", type=click.Choice(list(STARTERS)), default="basic", show_default=True,
    help="basic: a text for each item. label: one label of a fixed set for each row of a table. "
         "With steps: draft-critique-revise: texts, and a second version of the weak ones. "
         "qa-judge: questions and answers out of passages, and a judge. gate: a cheap model says "
         "what a dear one reads. best-of-n: several answers, and the best of them.",
)  # fmt: skip
def init(directory: Path, template: str) -> None:
    """Write a config, prompts and a small pool to start from.

    Never overwrites: a file that is there already stays as it is.
    """
    starter = STARTERS[template]
    copy_starter(starter, directory)
    print_text("\nNext: set OPENAI_API_KEY (or model.base_url to your own server), then")
    for command in ([] if directory == Path() else [f"cd {shlex.quote(str(directory))}"]) + [
        *starter.commands
    ]:
        print_text(f"  {command}")
