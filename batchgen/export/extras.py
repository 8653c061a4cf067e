"""What an answer had beside its text, as JSON text by name: `--with`."""

from collections.abc import Mapping, Sequence
from json import loads

from batchgen.export.wanted import Extra
from batchgen.json_text import dump_json
from batchgen.llm.responses import parts_beside_text, with_text
from batchgen.store import AnswerDetails, ResultRow


class Extras:
    """Of rows whose `details` are there at that moment."""

    def __init__(self, names: Sequence[Extra], details: Mapping[int, AnswerDetails]) -> None:
        self.names = names
        self._details = details

    def of(self, row: ResultRow) -> dict[str, str | None]:
        """None for what the answer had not."""
        if not self.names:
            return {}
        details = self._details[row.id]
        found: dict[str, str | None] = {**parts_beside_text(details.body)}
        if Extra.BODY in self.names:
            found[Extra.BODY] = whole_body(row, details)
        return {name: found.get(name) for name in self.names}


def whole_body(row: ResultRow, details: AnswerDetails) -> str | None:
    """All that the server sent, as JSON; what was no JSON is a text. None if it sent nothing."""
    body = details.body
    if body is None:
        return None
    if row.response != "null":
        return with_text(body, loads(row.response))
    return body if _is_json(body) else dump_json(body)


def _is_json(text: str) -> bool:
    """And of one line."""
    try:
        loads(text)
    except (ValueError, RecursionError):
        return False
    return "\n" not in text and "\r" not in text
