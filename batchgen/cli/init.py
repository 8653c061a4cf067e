"""init: the files that a project starts from."""

from pathlib import Path

import click

from batchgen.cli.group import epilog
from batchgen.cli.starter import STARTER_FILES, copy_starter_file


@click.command(epilog=epilog("batchgen init my_project"))
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False), default=".")
def init(directory: Path) -> None:
    """Write a config, prompts and a small pool to start from.

    Never overwrites: a file that is there already stays as it is.
    """
    for name in STARTER_FILES:
        copy_starter_file(name, directory)
    where = "" if directory == Path() else f"cd {directory} && "
    click.echo(
        f"\nNext: set OPENAI_API_KEY (or model.base_url to your own server), then\n"
        f"  {where}batchgen run data_pool.jsonl"
    )
