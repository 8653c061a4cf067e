"""JSON lines: an item on each line."""

from typing import BinaryIO

from msgspec.structs import replace

from batchgen.pool.lines import Lines
from batchgen.pool.shapes import BadLine, Entries, entry_of
from batchgen.pool.strict_json import problem_of, read_json


def read_json_lines(file: BinaryIO, name: str) -> Entries:
    lines = Lines(file, name)
    for line in lines:
        if isinstance(line, BadLine):
            yield line
        elif line and not line.isspace():
            text = line.rstrip("\r")
            try:
                obj = read_json(text)
            except (ValueError, RecursionError) as exc:
                yield lines.bad(problem_of(exc) + _hint(text), text)
                continue
            entry = entry_of(obj, f"{name}:{lines.number}", text, is_json=True)
            if type(obj) is not dict:
                assert isinstance(entry, BadLine)
                entry = replace(entry, problem=entry.problem + _hint(text))
            yield entry


def _hint(text: str) -> str:
    """What to do about a file that is not JSON lines at all."""
    if text.startswith("["):
        return "; a JSON list must be in a .json file"
    if text.strip() == "{":
        return "; an object must stand on one line (jq -c . does that)"
    return ""
