"""What an answer has beside its text, as JSON text by name: `--with`."""

from collections.abc import Mapping, Sequence
from json import loads

from batchgen.export.request import Extra
from batchgen.json_text import dump_json
from batchgen.llm.responses import parts_beside_text, with_text
from batchgen.store import AnswerDetails, ResultRow


class Extras:
    """Reads the extras of rows; `details` holds those of the page that is being written."""

    def __init__(self, names: Sequence[Extra], details: Mapping[int, AnswerDetails]) -> None:
        self.names = names
        self._details = details

    def of(self, row: ResultRow) -> dict[str, str | None]:
        """The extras by name; None for one that the answer does not have."""
        if not self.names:
            return {}
        details = self._details[row.id]
        found: dict[str, str | None] = {**parts_beside_text(details.body)}
        if Extra.BODY in self.names:
            found[Extra.BODY] = whole_body(row, details)
        return {name: found.get(name) for name in self.names}


def whole_body(row: ResultRow, details: AnswerDetails) -> str | None:
    """All that the server sent, as JSON; a body that is not JSON becomes a JSON text. None: the
    server sent nothing."""
    body = details.body
    if body is None:
        return None
    if row.response != "null":
        return with_text(body, loads(row.response))
    return body if _is_json(body) else dump_json(body)


def _is_json(text: str) -> bool:
    """Whether the text is JSON, on one line."""
    try:
        loads(text)
    except (ValueError, RecursionError):
        return False
    return "\n" not in text and "\r" not in text
