"""What is printed, and the only place that prints: data to stdout, talk to stderr.

Text is for people, so it is made visible first (`display.visible`), wherever it goes: a pipe often
ends on a terminal too. JSON and exports are for programs, and stay as they are but on a terminal.
A stream that cannot encode a character gets another in its place.
"""

import codecs
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, TextIO, cast

import click

from batchgen.display.visible import visible, visible_json, visible_line
from batchgen.errors import BatchgenError

_ERASE_LINE = "\r\x1b[K"


class _ProgressLine:
    """Whether there is one now; a thread writes it."""

    is_shown = False
    lock = threading.RLock()


_progress = _ProgressLine()


def print_text(text: str) -> None:
    """What was asked for, to stdout. Raises BatchgenError when that cannot be written."""
    with writing_to_stdout():
        _print(sys.stdout, visible(text))


def print_json(value: Any) -> None:
    """What a script reads: one line on stdout. Raises BatchgenError when that cannot be written."""
    import json

    text = json.dumps(value, ensure_ascii=False)
    if not _can_encode(sys.stdout, text):
        text = json.dumps(value)
    with writing_to_stdout():
        _print(sys.stdout, visible_json(text) if is_terminal(sys.stdout) else text)


@contextmanager
def writing_to_stdout() -> Iterator[None]:
    """Raises BatchgenError when it cannot be written, and BrokenPipeError when nobody reads it."""
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as exc:
        raise BatchgenError(f"stdout: cannot be written ({exc.strerror}).") from exc


def say(text: str) -> None:
    """Talk, to stderr. Where that cannot be written nobody listens, which stops no work."""
    with suppress(OSError):
        _print(sys.stderr, visible(text))


def ask(question: str) -> None:
    """Go on if the answer is yes. Raises click.Abort."""
    click.confirm(visible(question), abort=True, err=True)  # noqa: TID251  made visible


def show_progress(text: str) -> None:
    """Write a line on stderr, over the last one; empty: only remove that. To a terminal only."""
    from shutil import get_terminal_size  # here, as json: --help does without

    columns = get_terminal_size().columns
    with _progress.lock:
        if not text and not _progress.is_shown:
            return
        _write(sys.stderr, _ERASE_LINE + visible_line(text)[: columns - 1])
        _progress.is_shown = bool(text)


def is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


def data_file(*, is_json: bool) -> IO[bytes]:
    """Where an export to stdout is written to, as UTF-8."""
    if is_terminal(sys.stdout):
        return cast("IO[bytes]", _TerminalFile(sys.stdout, is_json=is_json))
    return sys.stdout.buffer


class _TerminalFile:
    """A terminal as a binary file: it gets the text as people may see it, in its own encoding."""

    def __init__(self, terminal: TextIO, *, is_json: bool) -> None:
        self._terminal = terminal
        self._make_visible = visible_json if is_json else visible
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")

    def write(self, data: bytes) -> int:
        _write(self._terminal, self._make_visible(self._decoder.decode(data)))
        return len(data)

    def flush(self) -> None:
        self._terminal.flush()


def _print(stream: TextIO | None, text: str) -> None:
    with _progress.lock:
        if _progress.is_shown:
            show_progress("")
        _write(stream, f"{text}\n")


def _write(stream: TextIO | None, text: str) -> None:
    if stream is None:  # closed before we began: `2>&-`
        return
    if not _can_encode(stream, text):
        errors = "replace" if stream.errors == "strict" else str(stream.errors)
        text = text.encode(stream.encoding, errors).decode(stream.encoding)
    stream.write(text)
    stream.flush()


def _can_encode(stream: TextIO | None, text: str) -> bool:
    try:
        text.encode((stream and stream.encoding) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True
