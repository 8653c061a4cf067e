"""What requests to files and batches say, what of it is refused, and pages of lists. Pure."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from batchgen.endpoints import ENDPOINTS
from batchgen.simulate.batch import Wanted
from batchgen.simulate.behaviours import Behaviour, error_object

_ENDPOINTS = [f"/v1{one.path}" for one in ENDPOINTS.values()]
_WINDOW = re.compile(r"([1-9]\d{0,3})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_MOST_PAIRS, _LONGEST_KEY, _LONGEST_VALUE = 16, 64, 512


class RefusedError(Exception):
    """A request that gets an error."""

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = error_object(status, message, code, param)
        self.headers: Mapping[str, str] = {"Content-Type": "application/json"}

    @classmethod
    def by(cls, behaviour: Behaviour) -> "RefusedError":
        made = cls(behaviour.status, f"simulated {behaviour.status}")
        if behaviour.body is not None:
            body = behaviour.body
            made.body = body if isinstance(body, bytes) else body.encode("utf-8", "surrogatepass")
        made.headers = {**made.headers, **behaviour.headers}
        return made


def read_wanted(raw: bytes) -> Wanted:
    """The body of POST /batches. Raises RefusedError."""
    body = object_in(raw)
    for name in ("input_file_id", "endpoint", "completion_window"):
        if not isinstance(body.get(name), str):
            text = f"Missing required parameter: '{name}'."
            raise RefusedError(400, text, name, "missing_required_parameter")
    endpoint, window = endpoint_in(body), body["completion_window"]
    found = _WINDOW.fullmatch(window)
    if found is None:
        text = f"Invalid value: {window!r}. A supported value is '24h'."
        raise RefusedError(400, text, "completion_window", "invalid_value")
    window_s = int(found[1]) * _SECONDS[found[2]]
    return Wanted(body["input_file_id"], endpoint, window, window_s, metadata_in(body))


def page_of(
    objects: Sequence[dict[str, Any]], query: Mapping[str, str], default: int, most: int
) -> dict[str, Any]:
    """A list of those after the one that the query names, as many as it says, by default
    `default`. Raises RefusedError."""
    limit = query.get("limit", str(default))
    if not limit.isdecimal() or not 1 <= int(limit) <= most:
        raise RefusedError(400, f"limit must be from 1 to {most}", "limit", "invalid_value")
    begin = 0
    if after := query.get("after"):
        begin = next((at + 1 for at, one in enumerate(objects) if one["id"] == after), -1)
        if begin < 0:
            raise RefusedError(400, f"there is no {after!r}", "after", "invalid_value")
    page = objects[begin : begin + int(limit)]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": begin + len(page) < len(objects),
    }


def object_in(raw: bytes) -> dict[str, Any]:
    """The body of a request. Raises RefusedError."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise RefusedError(400, "the body must be a JSON object")
    return value


def endpoint_in(body: Mapping[str, Any]) -> str:
    """Raises RefusedError."""
    endpoint = body.get("endpoint")
    if endpoint not in _ENDPOINTS:
        text = f"Invalid value: {endpoint!r}. Supported values are: {', '.join(_ENDPOINTS)}."
        raise RefusedError(400, text, "endpoint", "invalid_value")
    return str(endpoint)


def metadata_in(body: Mapping[str, Any]) -> dict[str, str] | None:
    """Raises RefusedError."""
    value = body.get("metadata")
    if value is None:
        return None
    is_one = isinstance(value, dict) and all(isinstance(one, str) for one in value.values())
    if not is_one:
        raise RefusedError(400, "metadata must be an object of texts", "metadata", "invalid_type")
    if len(value) > _MOST_PAIRS:
        raise RefusedError(400, f"metadata may have {_MOST_PAIRS} pairs", "metadata")
    for key, text in value.items():
        if len(key) > _LONGEST_KEY or len(text) > _LONGEST_VALUE:
            raise RefusedError(
                400, f"metadata may have keys of {_LONGEST_KEY} characters and values of "
                f"{_LONGEST_VALUE}", "metadata", "string_above_max_length",
            )  # fmt: skip
    return {**value}
