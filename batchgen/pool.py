"""Reading a data pool: a stream of items, in constant memory, whatever the size of the pool.

Every reader yields `PoolItem | BadLine`: what is wrong with a line is a value, since the caller
decides whether it ends the run or is written away (`--skip-invalid`). After a `BadLine` the stream
goes on with the next line, unless it is `fatal`: then nothing follows.
"""

import codecs
import csv
import inspect
import json
import re
import reprlib
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from json import JSONDecodeError
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from batchgen.errors import InputError, UsageError
from batchgen.items import ItemInput, PoolItem, dump_json
from batchgen.userfunctions import describe, is_function_spec, load_function

MAX_ITEM_BYTES = 64 << 20  # no server takes a larger request, and one must fit in memory
CHUNK_CHARS = 1 << 20
TEXT_KEPT_CHARS = 1000  # of a line over the limit: enough to recognise it
# The longest token that can look whole, or wrong, because a chunk ends in it: \uXXXX\uXXXX.
CUT_TOKEN_CHARS = 16
_SPACE = re.compile(r"[ \t\n\r]*")  # what JSON takes for white space


@dataclass(frozen=True, slots=True)
class BadLine:
    """What cannot be an item. `text` is the line as it was read (bytes that are not UTF-8 as
    `\\xff`, only the beginning of one over the limit); `fatal` means that nothing follows."""

    where: str
    problem: str
    text: str = ""
    fatal: bool = False


Entry = PoolItem | BadLine
Entries = Generator[Entry, None, None]


def open_pool(source: str, *, stdin: BinaryIO | None = None) -> Entries:
    """The items of a file, of standard input (`-`), or of a function, one at a time. Close it when
    it is not read to its end: a file is open behind it.

    Raises UsageError at once when `source` is nothing that can be read.
    """
    if not source.strip():
        raise UsageError("the data pool's name is empty; give a file, - or module:function")
    if source == "-":
        return _json_lines(stdin or sys.stdin.buffer, "stdin")
    path = Path(source)
    reader = _READERS.get(path.suffix.lower())
    if reader is None and path.suffix.lower() != ".parquet" and is_function_spec(source):
        return _function_items(source)
    if not path.is_file() and not path.is_fifo():
        raise UsageError(f"{source}: {'is a directory' if path.is_dir() else 'no such data pool'}")
    if reader is None:
        _refuse_format(source, path.suffix.lower())
    return _file_items(path, source, reader)


def _refuse_format(source: str, suffix: str) -> NoReturn:
    if suffix == ".parquet":
        raise UsageError(f"{source}: Parquet is not supported yet; convert it to JSONL")
    raise UsageError(
        f"{source}: unknown kind of data pool; it must end in .jsonl, .json or .csv, "
        "be - (JSONL on stdin), or module:function"
    )


def read_objects(objects: Iterable[Any], name: str = "data_pool") -> Iterator[Entry]:
    """Items from Python objects. Each is copied through JSON, as it will be stored, so that an
    object that is changed later changes no item."""
    for index, obj in enumerate(objects):
        where = f"{name}[{index}]"
        try:
            text = dump_json(obj)
        except UnicodeEncodeError:
            yield BadLine(where, f"cannot be stored as JSON: {_LONE_SURROGATE}", reprlib.repr(obj))
        except (ValueError, TypeError) as exc:
            yield BadLine(where, f"cannot be stored as JSON: {exc}", reprlib.repr(obj))
        else:
            yield _entry(json.loads(text), where, text)


def read_item(obj: Any, where: str) -> ItemInput:
    """Tells the shapes of an item apart; `given` is `obj` itself.

    Raises InputError, which begins with `where`.
    """
    try:
        return _item_input(obj)
    except _ProblemError as exc:
        raise InputError(f"{where}: {exc}") from None


class _ProblemError(Exception):
    """What is wrong with an item, for a caller who knows where it is."""


def _entry(obj: Any, where: str, text: str) -> Entry:
    try:
        return PoolItem(_item_input(obj), where)
    except _ProblemError as exc:
        return BadLine(where, str(exc), text)


# --- the shapes of an item -------------------------------------------------------------------

_KWARGS = ("user_prompt_kwargs", "system_prompt_kwargs")


def _item_input(obj: Any) -> ItemInput:
    if not isinstance(obj, dict):
        raise _ProblemError(f"an item must be an object, not {_kind(obj)}")
    shapes = [name for name in ("messages", *_KWARGS) if name in obj]
    if _is_batch_line(obj):
        _refuse_mixture(["body", *shapes], len(shapes) > 0)
        return _batch_line(obj)
    _refuse_mixture(shapes, "messages" in shapes and len(shapes) > 1)
    common: dict[str, Any] = {
        "given": obj,
        "id": _item_id(obj, "id"),
        "metadata": obj.get("metadata"),
        "params": _params(obj.get("params", {}), "params"),
    }
    if "messages" in obj:
        return ItemInput(**common, messages=_messages(obj["messages"]))
    if shapes:
        user, system = (_variables(obj, name) for name in _KWARGS)
        return ItemInput(**common, user_variables=user, system_variables=system)
    return ItemInput(**common, user_variables=obj, system_variables=obj)


def _refuse_mixture(shapes: list[str], mixed: bool) -> None:
    if mixed:
        raise _ProblemError(
            f"has both {shapes[0]} and {shapes[1]}; an item has either messages or variables"
        )


def _is_batch_line(obj: dict[str, Any]) -> bool:
    """Variables may be called `body` or `url` too, so it takes more than one of these names."""
    if "custom_id" not in obj or "body" not in obj:
        return False
    return isinstance(obj["body"], dict) or ("method" in obj and "url" in obj)


def _batch_line(obj: dict[str, Any]) -> ItemInput:
    body, url, method = obj["body"], obj.get("url"), obj.get("method")
    if "id" in obj:
        raise _ProblemError("has both id and custom_id")
    if method is not None and method != "POST":
        raise _ProblemError(f"method must be POST, not {_kind(method)}")
    if url is not None and not (isinstance(url, str) and _is_chat_url(url)):
        raise _ProblemError(f"url must be that of chat completions, not {_kind(url)}")
    if not isinstance(body, dict) or "messages" not in body:
        raise _ProblemError("body must be an object with messages")
    params = {name: value for name, value in body.items() if name != "messages"}
    return ItemInput(
        given=obj,
        id=_item_id(obj, "custom_id"),
        metadata=obj.get("metadata"),
        params=_params(params | _params(obj.get("params", {}), "params"), "body"),
        messages=_messages(body["messages"]),
    )


def _is_chat_url(url: str) -> bool:
    return url.partition("?")[0].rstrip("/").endswith("/chat/completions")


def _item_id(obj: dict[str, Any], name: str) -> str | None:
    if name not in obj:
        return None
    value = obj[name]
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value:
        raise _ProblemError(f"{name} must be a text that is not empty, not {_kind(value)}")
    return value


def _params(params: Any, name: str) -> dict[str, Any]:
    """Overrides of the request's parameters; what the server makes of them is its business, but
    what batchgen sets or counts on itself is refused."""
    if not isinstance(params, dict):
        raise _ProblemError(f"{name} must be an object, not {_kind(params)}")
    if "messages" in params:
        raise _ProblemError(f"{name} must not contain messages")
    if params.get("stream"):
        raise _ProblemError(f"{name}.stream must not be set: answers are taken whole")
    if params.get("n") not in (None, 1):
        raise _ProblemError(f"{name}.n must be 1; for more answers per item use --samples")
    if params.get("extra_body") is not None:
        _params(params["extra_body"], f"{name}.extra_body")
    return params


def _variables(obj: dict[str, Any], name: str) -> dict[str, Any]:
    value = obj.get(name)
    if value is not None and not isinstance(value, dict):
        raise _ProblemError(f"{name} must be an object, not {_kind(value)}")
    return value or {}


def _messages(messages: Any) -> list[dict[str, Any]]:
    if not isinstance(messages, list) or not messages:
        raise _ProblemError(
            f"messages must be a list with at least one message, not {_kind(messages)}"
        )
    for index, message in enumerate(messages):
        _check_message(message, f"messages[{index}]")
    return messages


def _check_message(message: Any, name: str) -> None:
    if not isinstance(message, dict):
        raise _ProblemError(f"{name} must be an object, not {_kind(message)}")
    if not isinstance(message.get("role"), str):
        raise _ProblemError(f"{name}.role must be text, not {_kind(message.get('role'))}")
    content = message.get("content")
    if content is not None and not isinstance(content, str | list):
        raise _ProblemError(f"{name}.content must be text, a list or null, not {_kind(content)}")
    for index, part in enumerate(content if isinstance(content, list) else ()):
        if not isinstance(part, dict):
            raise _ProblemError(f"{name}.content[{index}] must be an object, not {_kind(part)}")


def _kind(value: Any) -> str:
    """A value, short enough for a message."""
    if isinstance(value, dict):
        return "an object" if value else "an empty object"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return reprlib.repr(value)


# --- JSON ------------------------------------------------------------------------------------


class _NotStorableError(ValueError):
    """JSON as Python reads it, but nothing that can be written as JSON again."""


def _refuse_constant(name: str) -> NoReturn:
    raise _NotStorableError(f"{name} is not JSON")


def _finite_float(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise _NotStorableError(f"the number {text[:20]} is too large")
    return number


_LONE_SURROGATE = "it has a lone surrogate (half of a \\u pair)"
_decoder = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite_float)
# Finds the end of a value that the other one refuses.
_lenient_decoder = json.JSONDecoder(parse_int=len, parse_float=len)


def _problem_of(exc: ValueError | RecursionError) -> str:
    if isinstance(exc, JSONDecodeError):
        return f"not JSON: {exc.msg} at column {exc.colno}"
    if isinstance(exc, RecursionError):
        return "not usable JSON: nested too deep"
    return f"not usable JSON: {exc}"


def _checked(value: Any, text: str) -> Any:
    """`value`, unless an escape in `text` gave it half a character: UTF-8 cannot hold that."""
    if "\\u" in text:
        try:
            dump_json(value)
        except UnicodeEncodeError:
            raise _NotStorableError(_LONE_SURROGATE) from None
    return value


@dataclass(slots=True)
class _Lines:
    """The lines of a binary file as text, counted. A line that cannot be text is a BadLine.

    Never reads more than `MAX_ITEM_BYTES` at once, however long a line is.
    """

    file: BinaryIO
    name: str
    number: int = 0

    def __iter__(self) -> Iterator[str | BadLine]:
        while raw := self.file.readline(MAX_ITEM_BYTES + 1):
            self.number += 1
            if self.number == 1:
                raw = raw.removeprefix(codecs.BOM_UTF8)
            yield self._text(raw)

    def bad(self, problem: str, text: str = "", fatal: bool = False) -> BadLine:
        return BadLine(f"{self.name}:{self.number}", problem, text, fatal)

    def _text(self, raw: bytes) -> str | BadLine:
        if len(raw) > MAX_ITEM_BYTES and not raw.endswith(b"\n"):
            self._skip_rest()
            start = raw[:TEXT_KEPT_CHARS].decode(errors="backslashreplace")
            return self.bad(f"the line is longer than {MAX_ITEM_BYTES >> 20} MB", start)
        try:
            text = raw.decode()
        except UnicodeDecodeError as exc:
            return self.bad(_not_utf8(exc), raw.decode(errors="backslashreplace"))
        if "\0" in text:
            return self.bad(f"NUL byte at column {text.index(chr(0)) + 1}", text)
        return text

    def _skip_rest(self) -> None:
        while (more := self.file.readline(CHUNK_CHARS)) and not more.endswith(b"\n"):
            pass


def _not_utf8(exc: UnicodeDecodeError) -> str:
    data = exc.object
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "not UTF-8 but UTF-16; save the file as UTF-8"
    before = data[data.rfind(b"\n", 0, exc.start) + 1 : exc.start]
    column = len(before.decode(errors="replace")) + 1
    return f"not UTF-8: byte 0x{data[exc.start]:02x} at column {column}"


def _json_lines(file: BinaryIO, name: str) -> Entries:
    lines = _Lines(file, name)
    for line in lines:
        if isinstance(line, BadLine):
            yield line
        elif not line.isspace():
            yield _json_line(line, lines)


def _json_line(line: str, lines: _Lines) -> Entry:
    text = line.rstrip("\r\n")
    try:
        obj = _checked(_decoder.decode(text), text)
    except (ValueError, RecursionError) as exc:
        hint = "; a JSON list must be in a .json file" if text.startswith("[") else ""
        return lines.bad(_problem_of(exc) + hint, text)
    return _entry(obj, f"{lines.name}:{lines.number}", text)


class _JsonList:
    """The elements of a JSON list, of which never more than one and a chunk is in memory.

    `read(n)` gives up to n more characters, "" at the end. `line` is that of `buffer[pos]`.
    """

    def __init__(self, read: Callable[[int], str], name: str, chunk: int = CHUNK_CHARS) -> None:
        self.read, self.name, self.chunk = read, name, chunk
        self.buffer, self.pos, self.line = "", 0, 1

    def __iter__(self) -> Iterator[Entry]:
        try:
            yield from self._elements()
        except _SyntaxError as exc:
            yield BadLine(f"{self.name}:{exc.line}", exc.problem, exc.text, fatal=True)

    def _elements(self) -> Iterator[Entry]:
        if self._next() != "[":
            raise self._error("not a JSON list; one object per line is .jsonl")
        self._move(self.pos + 1)
        more = self._next() != "]"
        while more:
            yield self._element()
            separator = self._next()
            if separator not in (",", "]"):
                missing = "a comma or the list's end" if separator else "the list's end, ],"
                raise self._error(f"not JSON: {missing} is missing")
            more = separator == ","
            self._move(self.pos + more)
        self._move(self.pos + 1)
        if self._next():
            raise self._error("there is more after the list's end")

    def _element(self) -> Entry:
        self._next()
        where = f"{self.name}:{self.line}"
        try:
            obj, end = self._decode(_decoder)
        except ValueError as exc:
            _, end = self._decode(_lenient_decoder)
            return BadLine(where, _problem_of(exc), self._take(end))
        text = self._take(end)
        try:
            return _entry(_checked(obj, text), where, text)
        except _NotStorableError as exc:
            return BadLine(where, _problem_of(exc), text)

    def _decode(self, decoder: json.JSONDecoder) -> tuple[Any, int]:
        """The value at `pos` and where it ends, reading on until it is whole.

        The buffer doubles with each try, so a value costs at most twice its own length.
        """
        while True:
            try:
                value, end = decoder.raw_decode(self.buffer, self.pos)
            except JSONDecodeError as exc:
                if not self._may_be_cut(exc) or not self._fill():
                    raise self._error(f"not JSON: {self._said(exc)}", exc.pos) from None
            except RecursionError as exc:
                raise self._error(_problem_of(exc)) from None
            else:
                bracketed = self.buffer[self.pos] in '{["'  # a number may go on in the next chunk
                if bracketed or end + CUT_TOKEN_CHARS < len(self.buffer) or not self._fill():
                    return value, end

    def _may_be_cut(self, exc: JSONDecodeError) -> bool:
        if exc.msg.startswith("Unterminated string"):
            return True
        return len(self.buffer[exc.pos :].strip()) < CUT_TOKEN_CHARS

    def _said(self, exc: JSONDecodeError) -> str:
        unclosed = exc.msg.startswith("Unterminated string")
        return (
            "the file ends within an item" if unclosed or exc.pos >= len(self.buffer) else exc.msg
        )

    def _next(self) -> str:
        """Moves to the next character that is no white space; "" at the end."""
        while True:
            match = _SPACE.match(self.buffer, self.pos)
            assert match is not None
            self._move(match.end())
            if self.pos < len(self.buffer):
                return self.buffer[self.pos]
            if not self._fill():
                return ""

    def _fill(self) -> bool:
        """Reads at least as much as is waiting already; False at the end, the buffer as it was."""
        rest = self.buffer[self.pos :]
        if len(rest) > MAX_ITEM_BYTES:
            raise self._error(f"an item is longer than {MAX_ITEM_BYTES >> 20} MB")
        try:
            more = self.read(max(self.chunk, len(rest)))
        except UnicodeDecodeError as exc:
            line = self.line + rest.count("\n") + exc.object[: exc.start].count(b"\n")
            raise _SyntaxError(line, _not_utf8(exc), "") from None
        if more:
            self.buffer, self.pos = rest + more, 0
        return bool(more)

    def _take(self, end: int) -> str:
        text = self.buffer[self.pos : end]
        self._move(end)
        return text

    def _move(self, pos: int) -> None:
        self.line += self.buffer.count("\n", self.pos, pos)
        self.pos = pos

    def _error(self, problem: str, pos: int | None = None) -> "_SyntaxError":
        pos = self.pos if pos is None else pos
        line = self.line + self.buffer.count("\n", self.pos, pos)
        return _SyntaxError(line, problem, self.buffer[self.pos :][:TEXT_KEPT_CHARS])


class _SyntaxError(Exception):
    """The list cannot be read on from here."""

    def __init__(self, line: int, problem: str, text: str) -> None:
        super().__init__(problem)
        self.line, self.problem, self.text = line, problem, text


def _utf8_reader(file: BinaryIO) -> Callable[[int], str]:
    decoder = codecs.getincrementaldecoder("utf-8-sig")()

    def read(count: int) -> str:
        while True:
            data = file.read(count)
            text = decoder.decode(data, final=not data)
            if text or not data:
                return text

    return read


def _json_list(file: BinaryIO, name: str) -> Iterator[Entry]:
    return iter(_JsonList(_utf8_reader(file), name))


# --- CSV -------------------------------------------------------------------------------------


class _BadLineError(Exception):
    """Takes a BadLine through csv.reader."""

    def __init__(self, line: BadLine) -> None:
        super().__init__(line.problem)
        self.line = line


class _CsvLines:
    """Lines for csv.reader, which goes on after an exception; `taken` are those of this row."""

    def __init__(self, lines: _Lines) -> None:
        self.lines, self.texts = lines, iter(lines)
        self.taken: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self.texts)
        if isinstance(line, BadLine):
            raise _BadLineError(line)
        self.taken.append(line)
        return line

    def start_row(self) -> str:
        """Begins a row; returns where it is."""
        self.taken.clear()
        return f"{self.lines.name}:{self.lines.number + 1}"

    def text(self) -> str:
        return "".join(self.taken).rstrip("\r\n")


def _csv_rows(file: BinaryIO, name: str) -> Iterator[Entry]:
    csv.field_size_limit(MAX_ITEM_BYTES)  # the csv module's own limit, 128 KB, is below a prompt
    lines = _CsvLines(_Lines(file, name))
    rows = _rows(lines)
    where, header = next(rows, ("", None))
    if header is None:
        return
    problem = header.problem if isinstance(header, BadLine) else _header_problem(header)
    if isinstance(header, BadLine) or problem:
        yield BadLine(where, problem, lines.text(), fatal=True)
        return
    names = [column.strip() for column in header]
    for where, row in rows:
        yield row if isinstance(row, BadLine) else _csv_row(names, row, where, lines.text())


def _rows(lines: _CsvLines) -> Iterator[tuple[str, list[str] | BadLine]]:
    """Every row that is not blank, and where it begins."""
    # strict: otherwise a quote that is never closed swallows the rest of the file in silence
    reader = csv.reader(lines, strict=True)
    while True:
        where = lines.start_row()
        try:
            row = next(reader)
        except StopIteration:
            return
        except _BadLineError as exc:
            yield where, exc.line
        except csv.Error as exc:
            yield where, BadLine(where, f"not CSV: {exc}", lines.text())
        else:
            if row:
                yield where, row


def _header_problem(header: list[str]) -> str:
    if len(header) == 1 and (other := next((c for c in ";\t|" if c in header[0]), None)):
        return f"the columns are separated by {other!r}; write them with commas"
    seen: set[str] = set()
    for number, name in enumerate((column.strip() for column in header), start=1):
        if not name:
            return f"column {number} of the header has no name"
        if name in seen:
            return f"the header has {name!r} twice"
        seen.add(name)
    return ""


def _csv_row(header: list[str], row: list[str], where: str, text: str) -> Entry:
    if len(row) != len(header):
        return BadLine(where, f"the row has {len(row)} cells, the header {len(header)}", text)
    item: dict[str, Any] = dict(zip(header, row, strict=True))
    for name in ("id", "params"):
        if item.get(name) == "":  # an empty cell is CSV's way of leaving it out
            del item[name]
    if "params" in item:
        try:
            item["params"] = _checked(_decoder.decode(item["params"]), item["params"])
        except (ValueError, RecursionError) as exc:
            return BadLine(where, f"params: {_problem_of(exc)}", text)
    return _entry(item, where, text)


# --- functions and files ---------------------------------------------------------------------


def _function_items(source: str) -> Entries:
    function = load_function(source)
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise UsageError(f"{source} is async; a data pool must be a plain function or generator")
    return _called(function, source)


def _called(function: Callable[[], Any], source: str) -> Entries:
    count = 0
    try:
        objects = function()
        if isinstance(objects, str | bytes | Mapping) or not isinstance(objects, Iterable):
            problem = f"returned {_kind(objects)}; it must return or yield items"
            yield BadLine(source, problem, fatal=True)
            return
        for entry in read_objects(objects, source):
            yield entry
            count += 1
    except (Exception, SystemExit) as exc:  # the user's code may raise anything
        yield BadLine(f"{source}[{count}]", f"the function raised {describe(exc)}", fatal=True)


_Reader = Callable[[BinaryIO, str], Iterator[Entry]]
_READERS: dict[str, _Reader] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json_list,
    ".csv": _csv_rows,
}


def _file_items(path: Path, name: str, reader: _Reader) -> Entries:
    try:
        with path.open("rb") as file:
            yield from reader(file, name)
    except OSError as exc:
        raise UsageError(f"{name}: {exc.strerror}") from exc
