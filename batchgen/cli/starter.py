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
    "draft-critique-revise": Starter(
        "starters/draft-critique-revise",
        (
            *("config.yaml", "critique.json", "topics.jsonl"),
            *("prompts/draft.txt", "prompts/critique.j2", "prompts/revise.j2"),
        ),
        (
            "batchgen run topics.jsonl",
            "batchgen export --where 'critique.score >= 8' -o good_at_once.jsonl",
        ),
    ),
    "qa-judge": Starter(
        "starters/qa-judge",
        (
            *("config.yaml", "questions.json", "judge.json", "passages.csv"),
            *("prompts/questions.txt", "prompts/answer.txt", "prompts/judge.txt"),
        ),
        (
            "batchgen run passages.csv",
            "batchgen export --where 'judge.score >= 4' -o good.csv",
        ),
    ),
    "gate": Starter(
        "starters/gate",
        (
            *("config.yaml", "order.json", "messages.csv"),
            *("prompts/is_order.txt", "prompts/order.txt", "prompts/check.txt"),
        ),
        (
            "batchgen run messages.csv",
            "batchgen export --step checked -o orders.jsonl",
        ),
    ),
    "best-of-n": Starter(
        "starters/best-of-n",
        (
            *("config.yaml", "best.py", "score.json", "questions.jsonl"),
            *("prompts/answer.txt", "prompts/score.txt"),
        ),
        ("batchgen run questions.jsonl --samples 4",),
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
