"""What writes the rows of an export to one file, and what it can know of them."""

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from json import loads
from typing import Any, Protocol, TypeVar

from batchgen.endpoints import Endpoint, parts_beside_text, whole_body
from batchgen.export.chosen_columns import ChosenColumns
from batchgen.export.columns import Columns
from batchgen.export.files import Hashed
from batchgen.export.reviewed import EDITED, as_stored, is_edited
from batchgen.export.value_type import ValueType
from batchgen.items import Recipe
from batchgen.pool import read_item
from batchgen.prompts import Renderer
from batchgen.store import AnswerDetails, ResultRow
from batchgen.text.json_text import dump_json


class Extra(StrEnum):
    """What a row can hold beside what it always holds."""

    REASONING = "reasoning"
    TOOL_CALLS = "tool_calls"
    LOGPROBS = "logprobs"
    BODY = "body"


class Content:
    """What there is about the rows of one export. `details` are those of the page that is being
    written; `recipes` are those of all rows so far, by their id; `columns` and `parsed_type`
    are complete where the format needs them. Which of it is filled, `FormatSpec` says. `chosen` are
    the columns that the user wants (None: all); with `is_guarded` no text of a table may be taken
    for a formula; `has_edits` says that people's edits stand in the rows."""

    def __init__(
        self, extras: Sequence[Extra], *, has_samples: bool, has_failed: bool,
        chosen: ChosenColumns | None = None, is_guarded: bool = True, has_edits: bool = False,
    ) -> None:  # fmt: skip
        self.extras, self.has_samples, self.has_failed = extras, has_samples, has_failed
        self.chosen, self.is_guarded, self.has_edits = chosen, is_guarded, has_edits
        self.columns = Columns()
        self.parsed_type = ValueType()
        self.details: Mapping[int, AnswerDetails] = {}
        self.recipes: dict[int, Recipe] = {}
        self._renderers: dict[int, Renderer] = {}

    def extras_of(self, row: ResultRow) -> dict[str, str | None]:
        """The extras as JSON text, by name; None for one that the answer does not have. Beside
        them, that an edit stands in the row."""
        return {**self._extras_of(row), **edit_mark(is_edited(row))}

    def _extras_of(self, row: ResultRow) -> dict[str, str | None]:
        if not self.extras:
            return {}
        details = self.details[row.id]
        found: dict[str, str | None] = {**parts_beside_text(details.body)}
        if Extra.BODY in self.extras:
            found[Extra.BODY] = self.body_of(row)
        return {name: found.get(name) for name in self.extras}

    def body_of(self, row: ResultRow, answer: str | None = None) -> str | None:
        """All that the server sent, as JSON, or the same with another `answer` in it; a body that
        is not JSON becomes a JSON text. None: the server sent nothing."""
        body = self.details[row.id].body
        if body is None:
            return None
        sent = as_stored(row)
        if sent.response != "null":
            return whole_body(body, loads(sent.response) if answer is None else answer, sent.parsed)
        return body if _is_json(body) else dump_json(body)

    def messages_of(self, row: ResultRow) -> list[dict[str, Any]] | None:
        """The messages that were sent, rendered again by the recipe of the item. None: it is a
        request line whose prompt is no list of messages."""
        given = read_item(loads(row.input), f"item {row.id}")
        return None if given.prompt is not None else self._renderer(row).messages(given)

    def endpoint_of(self, row: ResultRow) -> Endpoint:
        """The one that it was asked at."""
        return self._renderer(row).endpoint_of(read_item(loads(row.input), f"item {row.id}"))

    def _renderer(self, row: ResultRow) -> Renderer:
        return self._renderer_by(self.details[row.id].recipe_id)

    def _renderer_by(self, recipe_id: int) -> Renderer:
        renderer = self._renderers.get(recipe_id)
        if renderer is None:
            renderer = self._renderer_of(self.recipes[recipe_id])
            self._renderers[recipe_id] = renderer
        return renderer

    def _renderer_of(self, recipe: Recipe) -> Renderer:
        return Renderer(recipe)


def edit_mark(edited: bool) -> dict[str, str]:
    """What is said of a row in which an edit stands."""
    return {EDITED: "true"} if edited else {}


Row = TypeVar("Row", contravariant=True)


class Writer(Protocol[Row]):
    """Writes one file in one format. Its methods block, so they are called on a thread."""

    def write(self, rows: Sequence[Row]) -> None: ...

    def close(self) -> None:
        """Write what is still to be written. The file itself stays open."""
        return

    def abandon(self) -> None:
        """After an error, when nobody needs the file."""
        return


class LineWriter(Writer[Row]):
    """Writes a line for each row."""

    def __init__(self, line: Callable[[Row, Content], str], file: Hashed, content: Content) -> None:
        self._line, self._file, self._content = line, file, content

    def write(self, rows: Sequence[Row]) -> None:
        lines = [self._line(row, self._content) for row in rows]
        self._file.write("".join(lines).encode())


def _is_json(text: str) -> bool:
    """Whether the text is JSON, on one line."""
    try:
        loads(text)
    except (ValueError, RecursionError):
        return False
    return "\n" not in text and "\r" not in text
