"""The files that a new project starts from."""

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from batchgen.cli.terminal import print_text
from batchgen.errors import UsageError
from batchgen.installed import shipped_path


class Starter(Struct, frozen=True):
    """A small job to start from: its files, which ship in `folder`, and the commands that do it."""

    folder: str
    files: tuple[str, ...]
    commands: tuple[str, ...]


BASIC = Starter(
    "",
    (
        "config.yaml",
        "data_pool.jsonl",
        "prompts/system_prompts/default.txt",
        "prompts/user_prompts/default.txt",
    ),
    ("batchgen run data_pool.jsonl",),
)
STARTERS: Mapping[str, Starter] = {
    "basic": BASIC,
    "label": Starter(
        "starters/label",
        (
            *("config.yaml", "label.json", "prompts/system.txt", "prompts/user.txt"),
            "reviews.csv",
        ),
        ("batchgen run reviews.csv -o labels.csv",),
    ),
    "qa-judge": Starter(
        "starters/qa-judge",
        (
            *("config.yaml", "judge.yaml", "prompts/answer.txt", "prompts/judge.txt"),
            *("questions.jsonl", "score.json"),
        ),
        (
            "batchgen run questions.jsonl",
            "batchgen --config judge.yaml run results:answers -o scores.csv",
        ),
    ),
}


def copy_starter(starter: Starter, directory: Path, *, quietly: bool = False) -> None:
    """Write its files, but for those that are there, and say which; with `quietly`, only those that
    are written. Raises UsageError when one cannot be written."""
    for name in starter.files:
        _copy(shipped_path(f"{starter.folder}/{name}".lstrip("/")), directory / name, quietly)


def _copy(source: Path, target: Path, quietly: bool) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            file.write(source.read_bytes())
    except FileExistsError:
        if not quietly:
            print_text(f"kept     {target}")
    except OSError as exc:
        raise UsageError(f"{target}: cannot write it ({exc.strerror}).") from exc
    else:
        print_text(f"written  {target}")
