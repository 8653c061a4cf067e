"""Plain text: an item in each line of a file, or in each file of a directory."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from batchgen.pool.lines import MAX_ITEM_BYTES, Lines
from batchgen.pool.shapes import BadLine, Entry, entry_of
from batchgen.text.encoding import UTF16_BOMS, utf8_problem
from batchgen.text.json_text import is_storable, storable

_BOM = "\ufeff"


def read_text_lines(file: BinaryIO, name: str) -> Iterator[Entry]:
    """An item `{text}` for each line that is not blank."""
    lines = Lines(file, name)
    for line in lines:
        if isinstance(line, BadLine):
            yield line
            continue
        text = line.rstrip("\r")
        if text.strip():
            yield entry_of({"text": text}, f"{name}:{lines.number}", text)
        elif text:
            yield BadLine(f"{name}:{lines.number}", "the line is blank", text, blank=True)


def read_directory(directory: Path) -> Iterator[Entry]:
    """An item `{id, path, text}` for each file in the directory and those below it, in the order of
    their paths; hidden ones are left out. The id is the path from the directory on."""
    for path in _files(directory):
        name = path.relative_to(directory).as_posix()
        where = storable(str(path))
        if not is_storable(name):
            yield BadLine(where, "the file's name is not valid Unicode", where)
            continue
        yield _file_item(path, name, where)


def _files(directory: Path) -> Iterator[Path]:
    """In the order of their paths, one folder in memory at a time."""
    with os.scandir(directory) as entries:
        found = sorted((one for one in entries if not one.name.startswith(".")), key=_name)
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            yield from _files(Path(entry.path))
        elif entry.is_file():
            yield Path(entry.path)


def _name(entry: "os.DirEntry[str]") -> str:
    return entry.name


def _file_item(path: Path, name: str, where: str) -> Entry:
    """The item of one file; of a bad one its path is kept, in place of the line."""

    def bad(problem: str) -> BadLine:
        return BadLine(where, problem, where)

    try:
        with path.open("rb") as file:
            data = file.read(MAX_ITEM_BYTES + 1)
    except OSError as exc:
        return bad(f"cannot be read: {exc.strerror}")
    if len(data) > MAX_ITEM_BYTES:
        return bad(f"is larger than {MAX_ITEM_BYTES >> 20} MB")
    if b"\0" in data and not data.startswith(UTF16_BOMS):
        return bad("is not text: it has a NUL byte; keep it out of the directory")
    try:
        text = data.decode()
    except UnicodeDecodeError as exc:
        return bad(utf8_problem(exc))
    text = text.removeprefix(_BOM).removesuffix("\n").removesuffix("\r")
    if not text.strip():
        return BadLine(where, "the file is blank", blank=True)
    return entry_of({"id": name, "path": name, "text": text}, where, text)
