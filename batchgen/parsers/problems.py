"""What is wrong with a value, and where in it, in one short line."""

import re
from collections.abc import Iterable, Sequence
from itertools import islice

from batchgen.text.json_text import dump_json, storable

MAX_PROBLEMS = 3  # more than that are better seen in the answer
_MAX_CHARS = 160
_MAX_KEY_CHARS = 60
_PLAIN_KEY = re.compile(r"[^\W\d][\w-]*")


def place(path: Iterable[str | int]) -> str:
    """A path as text: `pages[2].title`; a key that is not a name is quoted: `pages["the last"]`."""
    text = ""
    for part in path:
        if isinstance(part, str) and _PLAIN_KEY.fullmatch(part):
            text += f".{_cut(part, _MAX_KEY_CHARS)}"
        else:
            key = storable(_cut(part, _MAX_KEY_CHARS)) if isinstance(part, str) else part
            text += f"[{dump_json(key)}]"
    return text.removeprefix(".")


def listed(problems: Iterable[tuple[Sequence[str | int], str]]) -> str:
    """The first of `problems`, each a path and what is wrong there; reads only as many as it
    shows."""
    first = list(islice(problems, MAX_PROBLEMS + 1))
    lines = []
    for path, problem in first[:MAX_PROBLEMS]:
        where = place(path)
        lines.append(f"{where}: {_short(problem)}" if where else _short(problem))
    if len(first) > MAX_PROBLEMS:
        lines.append("and more")
    return "; ".join(lines)


def _short(problem: str) -> str:
    return storable(_cut(" ".join(problem.split()), _MAX_CHARS))


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}..."
