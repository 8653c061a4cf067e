"""Reading a data pool: a stream of items, in constant memory, whatever the size of the pool.

This is the door. Behind it:

    jsonl, json_list, csv_rows, parquet_rows, texts   a reader for each kind of file
    objects              Python objects, and the functions that yield them
    frames, plain        tables of other libraries, and their values as JSON has them
    lines, strict_json   what the readers share: text out of bytes, values out of text
    shapes               what an item may look like

Every reader yields `PoolItem | BadLine`: a bad line is a value, since the caller decides whether it
ends the run or is set aside (`--skip-invalid`). After a `BadLine` the stream goes on with the next
line, unless it is `fatal`: then nothing follows. What `jobs/results_pool.py` reads, the results of
another experiment, is a pool too.
"""

import gzip
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from batchgen.errors import UsageError
from batchgen.installed import load_pyarrow
from batchgen.pool.csv_rows import read_csv_rows, read_tsv_rows
from batchgen.pool.frames import rows_of_frame
from batchgen.pool.json_list import read_json_list
from batchgen.pool.jsonl import read_json_lines
from batchgen.pool.lines import MAX_ITEM_BYTES
from batchgen.pool.objects import read_function, read_objects
from batchgen.pool.parquet_rows import read_parquet_rows
from batchgen.pool.shapes import BadLine, Entries, Entry, entry_of, read_item
from batchgen.pool.texts import read_directory, read_text_lines
from batchgen.userfunctions import is_function_spec

__all__ = [
    "MAX_ITEM_BYTES", "BadLine", "Entries", "Entry", "entry_of", "open_pool", "read_item",
    "read_objects", "rows_of_frame",
]  # fmt: skip

_SHOWN_CHARS = 60
_KINDS = (
    "it must end in .jsonl, .json, .csv, .tsv, .txt (each also .gz) or .parquet, be a directory of "
    "text files, - (JSONL on stdin), module:function, or results:EXPERIMENT"
)


def open_pool(source: str, *, stdin: BinaryIO | None = None) -> Entries:
    """The items of a file or a directory, of standard input (`-`), or of a function, one at a time.
    Close the generator if it is not read to its end, as it holds a file open.

    Raises UsageError at once when `source` cannot be read.
    """
    if not source.strip():
        raise UsageError("the data pool's name is empty; give a file, - or module:function")
    if source == "-":
        return read_json_lines(stdin or sys.stdin.buffer, "stdin")
    path = Path(source)
    if _is_directory(path):
        return _entries(read_directory(path), source)
    packed = path.suffix.lower() == ".gz"
    reader = _READERS.get(Path(path.stem if packed else path.name).suffix.lower())
    if reader is None and is_function_spec(source):
        return read_function(source)
    if not path.is_file() and not path.is_fifo():
        raise UsageError(f"{source}: no such data pool")
    if reader is None:
        hint = " (a sheet of Excel: save it as CSV UTF-8)" if ".xls" in path.suffix.lower() else ""
        raise UsageError(f"{source}: unknown kind of data pool; {_KINDS}{hint}")
    if reader is read_parquet_rows:
        load_pyarrow()  # raises
        if packed or path.is_fifo():
            what = "is packed" if packed else "is a pipe"
            raise UsageError(f"{source}: {what}; Parquet is read from its end, so from a file")
    return _file_items(path, source, reader, packed=packed)


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError as exc:  # such as a text that is longer than a name can be
        raise UsageError(
            f"{str(path)[:_SHOWN_CHARS]}...: no such data pool ({exc.strerror})"
        ) from exc


_Reader = Callable[[BinaryIO, str], Iterator[Entry]]
_READERS: dict[str, _Reader] = {
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".json": read_json_list,
    ".csv": read_csv_rows,
    ".tsv": read_tsv_rows,
    ".txt": read_text_lines,
    ".parquet": read_parquet_rows,
}


def _file_items(path: Path, name: str, reader: _Reader, *, packed: bool) -> Entries:
    try:
        with path.open("rb") as file:
            if packed:
                with gzip.open(file) as unpacked:
                    yield from reader(cast("BinaryIO", unpacked), name)
            else:
                yield from reader(file, name)
    except (gzip.BadGzipFile, zlib.error, EOFError) as exc:
        yield BadLine(name, f"cannot be unpacked from here on: {exc}", fatal=True)
    except OSError as exc:
        raise UsageError(f"{name}: {exc.strerror}") from exc


def _entries(entries: Iterator[Entry], name: str) -> Entries:
    try:
        yield from entries
    except OSError as exc:
        raise UsageError(f"{name}: {exc.strerror}") from exc
