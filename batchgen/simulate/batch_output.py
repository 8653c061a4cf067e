"""The lines of the two files that a batch ends in, and what may be wrong with them."""

import json
from collections.abc import Mapping
from typing import IO, Any

from batchgen.simulate.batch import Batch


def write_reply(file: IO[bytes], batch: Batch, custom_id: str, status: int, body: Any) -> None:
    """The line of the reply to the request that is answered next."""
    faults = batch.faults
    if "text_body" in faults:
        body = json.dumps(body, ensure_ascii=False)
    response = {"status_code": status, "request_id": _number(batch, batch.done), "body": body}
    if batch.done < faults.get("foreign_line", 0):
        _write(file, batch, f"foreign-{batch.done}", response=response, error=None)
    if batch.done < (without := faults.get("no_line", 0)):
        return
    is_twice = batch.done < without + faults.get("twice_line", 0)
    for _ in range(2 if is_twice else 1):
        _write(file, batch, custom_id, response=response, error=None)


def write_no_reply(file: IO[bytes], batch: Batch, custom_id: str, error: Mapping[str, str]) -> None:
    """The line of a request that was not answered."""
    _write(file, batch, custom_id, response=None, error=error)


def _write(file: IO[bytes], batch: Batch, custom_id: str, *, response: Any, error: Any) -> None:
    line_id = f"batch_req_{_number(batch, batch.done + batch.left)}"
    value = {"id": line_id, "custom_id": custom_id, "response": response, "error": error}
    file.write(_json_line(value))


def _number(batch: Batch, place: int) -> str:
    return f"{batch.id.removeprefix('batch_')}{place:08x}"


def _json_line(value: object) -> bytes:
    """As providers write it: each character as it is, if it is one."""
    try:
        return json.dumps(value, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # half a character
        return json.dumps(value).encode() + b"\n"
