"""The input file of a batch: what is wrong with it, and its lines. All or nothing, as OpenAI does:
one bad line fails the batch."""

import json
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from msgspec import Struct

MOST_LINES = 50_000
MOST_BYTES = 200 * 1024 * 1024
_MOST_PROBLEMS = 100
_MUST = {"custom_id": str, "method": str, "url": str, "body": dict}


class Problem(Struct, frozen=True):
    """Why a batch fails. `line` counts from 1; None: the file as a whole."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


class Line(Struct, frozen=True):
    custom_id: str
    url: str
    body: dict[str, Any]


class Checked(Struct, frozen=True):
    """A file that was looked at. `places` are where its lines begin; without `problems` it is
    sound."""

    places: "array[int]"
    model: str | None
    problems: list[Problem]


def check(path: Path, endpoint: str, bad_text: str | None = None) -> Checked:
    """Reads the file line by line. `endpoint` is the batch's. Lines with `bad_text` in their body
    are bad ones, or the first line if it is empty."""
    places = array("Q")
    reader = _Reader(endpoint, bad_text)
    if path.stat().st_size > MOST_BYTES:
        text = f"The input file is larger than the {MOST_BYTES} bytes that a batch may have."
        return Checked(places, None, [Problem("file_too_large", text)])
    place = 0
    with path.open("rb") as file:
        for raw in file:
            if len(places) == MOST_LINES:
                text = f"The batch has more than the {MOST_LINES} requests that it may have."
                return Checked(places, None, [Problem("too_many_tasks", text)])
            places.append(place)
            place += len(raw)
            reader.read(raw, len(places))
            if len(reader.problems) >= _MOST_PROBLEMS:
                break
    if not places:
        reader.problems.append(Problem("empty_file", "The input file is empty."))
    return Checked(places, reader.model, reader.problems)


def read_line(file: IO[bytes], place: int) -> Line:
    """A line of a file that `check` found sound."""
    file.seek(place)
    value = json.loads(file.readline())
    return Line(value["custom_id"], value["url"], value["body"])


class _Reader:
    def __init__(self, endpoint: str, bad_text: str | None) -> None:
        self._endpoint = endpoint
        self._bad_text = bad_text
        self._ids: set[str] = set()
        self.model: str | None = None
        self.problems: list[Problem] = []

    def read(self, raw: bytes, line: int) -> None:
        self.problems += self._wrong_with(raw, line)

    def _wrong_with(self, raw: bytes, line: int) -> Iterator[Problem]:
        try:
            value = json.loads(raw)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            yield Problem("invalid_json_line", "This line is not parseable as valid JSON.", line)
            return
        for name, kind in _MUST.items():
            if not isinstance(value.get(name), kind):
                yield _missing(name, line)
                return
        custom_id, body = value["custom_id"], value["body"]
        if custom_id in self._ids:
            text = f"The custom_id for this request is a duplicate: {custom_id!r}."
            yield Problem("duplicate_custom_id", text, line, "custom_id")
        self._ids.add(custom_id)
        if value["method"] != "POST":
            yield Problem("invalid_method", "The method of a request must be POST.", line, "method")
        if value["url"] != self._endpoint:
            text = f"The URL of this request is not the batch's endpoint, {self._endpoint}."
            yield Problem("url_mismatch", text, line, "url")
        model = body.get("model")
        if not isinstance(model, str):
            yield _missing("model", line)
            return
        self.model = self.model or model
        if model != self.model:
            text = f"The model {model!r} is not that of the lines before, {self.model!r}."
            yield Problem("model_mismatch", text, line, "model")
        if self._is_bad(body, line):
            yield Problem("invalid_request", "This request is not valid.", line, "body")

    def _is_bad(self, body: dict[str, Any], line: int) -> bool:
        if not self._bad_text:
            return self._bad_text == "" and line == 1
        return self._bad_text in json.dumps(body, ensure_ascii=False)


def _missing(name: str, line: int) -> Problem:
    text = f"Missing required parameter: '{name}'."
    return Problem("missing_required_parameter", text, line, name)
