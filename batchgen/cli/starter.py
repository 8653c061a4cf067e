"""The files that a new project starts from."""

from pathlib import Path

import click

from batchgen.errors import UsageError
from batchgen.shipped import shipped_path

STARTER_FILES = (
    "config.yaml",
    "data_pool.jsonl",
    "prompts/system_prompts/default.txt",
    "prompts/user_prompts/default.txt",
)


def copy_starter_file(name: str, directory: Path) -> None:
    """Write it, unless it is there, and say which. Raises UsageError when it cannot be written."""
    target = directory / name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            file.write(shipped_path(name).read_bytes())
    except FileExistsError:
        click.echo(f"kept     {target}")
    except OSError as exc:
        raise UsageError(f"{target}: cannot write it ({exc.strerror}).") from exc
    else:
        click.echo(f"written  {target}")
