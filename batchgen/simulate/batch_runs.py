"""The batches of the simulated provider: each a task that checks its input file, answers its lines
one after another over the time that batches take, and ends in two files."""

import asyncio
import json
import time
from array import array
from collections.abc import Callable, Mapping
from itertools import islice
from random import Random
from typing import IO, Any

from batchgen.simulate.batch import Batch
from batchgen.simulate.batch_input import Line, Problem, check, read_line
from batchgen.simulate.files import Files

_AT_ONCE = 50  # lines, before others have their turn
_SHORTEST_S, _LONGEST_S = 0.01, 0.25  # between two looks at how many lines are due
_ASIDE = 0.1  # of a batch's time for each of validating, finalizing, cancelling
_CANCELLED = "This request was not executed, because the batch was cancelled."

Answered = Callable[[str, Line], tuple[int, Any]]
"""The status and the body of the reply to a line of the batch with this id."""


class Batches:
    """Newest last. `seconds` is how long one takes; while `released` is not set, none goes on. The
    order of answers depends on `seed` and on how many batches came before."""

    def __init__(
        self,
        files: Files,
        answered: Answered,
        *,
        seconds: float,
        seed: int,
        released: asyncio.Event,
    ) -> None:
        self._files = files
        self._answered = answered
        self._seconds = seconds
        self._seed = seed
        self._released = released
        self._batches: dict[str, Batch] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._steps = {
            "validating": self._validate,
            "in_progress": self._answer,
            "finalizing": self._finish,
            "cancelling": self._give_up,
        }

    def create(
        self, input_file_id: str, endpoint: str, window: str, window_s: int,
        metadata: Mapping[str, str] | None,
    ) -> Batch:  # fmt: skip
        """The new batch, which is begun."""
        number = len(self._batches)
        made = Batch(input_file_id, endpoint, window, window_s, metadata, number)
        self._batches[made.id] = made
        self._begin(made)
        return made

    def get(self, batch_id: str) -> Batch | None:
        return self._batches.get(batch_id)

    def newest_first(self) -> list[Batch]:
        return list(reversed(self._batches.values()))

    def resume(self) -> None:
        """Go on with what `stop` left."""
        for batch in self._batches.values():
            if not batch.has_ended:
                self._begin(batch)

    async def stop(self) -> None:
        tasks, self._tasks = self._tasks, set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, batch: Batch) -> None:
        task = asyncio.create_task(self._run(batch))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, batch: Batch) -> None:
        while step := self._steps.get(batch.status):
            await step(batch)

    async def _validate(self, batch: Batch) -> None:
        await self._released.wait()
        await batch.pause(self._seconds * _ASIDE)
        file = self._files.get(batch.input_file_id)
        if file is None or file.purpose != "batch":
            text = f"The input file {batch.input_file_id!r} does not exist, or is for no batch."
            return self._fail(batch, [Problem("invalid_input_file", text)])
        checked = await asyncio.to_thread(check, file.path, batch.endpoint)
        if batch.status != "validating":
            return None
        if checked.problems:
            return self._fail(batch, checked.problems)
        places = list(checked.places)
        Random(f"{self._seed}:{batch.number}").shuffle(places)
        batch.places, batch.model = array("Q", places), checked.model
        batch.input_path = file.path
        batch.output_path, batch.error_path = self._files.new_path(), self._files.new_path()
        batch.move("in_progress")
        batch.began_at = batch.moved_at
        return None

    def _fail(self, batch: Batch, problems: list[Problem]) -> None:
        if batch.status == "validating":
            batch.problems = problems
            batch.move("failed")

    async def _answer(self, batch: Batch) -> None:
        await self._released.wait()
        due = self._due(batch)
        if due > batch.done:
            self._answer_some(batch, min(due - batch.done, _AT_ONCE))
            await asyncio.sleep(0)
        elif batch.done == len(batch.places):
            batch.move("finalizing")
        else:
            a_line_s = self._seconds / len(batch.places)
            await batch.pause(min(max(a_line_s, _SHORTEST_S), _LONGEST_S))

    def _due(self, batch: Batch) -> int:
        """How many lines are answered by now."""
        total, lasts_s = len(batch.places), self._seconds * (1 - 2 * _ASIDE)
        over_s = time.monotonic() - batch.began_at
        return total if over_s >= lasts_s else int(total * over_s / lasts_s)

    def _answer_some(self, batch: Batch, n: int) -> None:
        assert batch.input_path is not None
        assert batch.output_path is not None
        assert batch.error_path is not None
        with (
            batch.input_path.open("rb") as lines,
            batch.output_path.open("ab") as output,
            batch.error_path.open("ab") as errors,
        ):
            for place in islice(batch.places, batch.done, batch.done + n):
                line = read_line(lines, place)
                status, body = self._answered(batch.id, line)
                if status < 400:
                    batch.succeeded += 1
                    _count_tokens(batch, body)
                else:
                    batch.failed += 1
                response = {"status_code": status, "request_id": _request_id(batch), "body": body}
                _write(output if status < 400 else errors, batch, line.custom_id, response, None)
                batch.done += 1

    async def _finish(self, batch: Batch) -> None:
        await batch.pause(self._seconds * _ASIDE)
        if batch.status == "finalizing":
            self._hand_out(batch)
            batch.move("completed")

    async def _give_up(self, batch: Batch) -> None:
        await self._released.wait()
        await batch.pause(self._seconds * _ASIDE)
        await self._leave_rest(batch, "batch_cancelled", _CANCELLED)
        self._hand_out(batch)
        batch.move("cancelled")

    async def _leave_rest(self, batch: Batch, code: str, message: str) -> None:
        """Those lines that were not answered are in the error file, as such."""
        if batch.input_path is None or batch.error_path is None:
            return
        error = {"code": code, "message": message}
        with batch.input_path.open("rb") as lines, batch.error_path.open("ab") as errors:
            for n, place in enumerate(islice(batch.places, batch.done, None)):
                _write(errors, batch, read_line(lines, place).custom_id, None, error)
                if n % (10 * _AT_ONCE) == 0:
                    await asyncio.sleep(0)

    def _hand_out(self, batch: Batch) -> None:
        """The two files get their ids; one without a line is none."""
        for kind, path in (("output", batch.output_path), ("error", batch.error_path)):
            if path is not None and path.exists() and path.stat().st_size:
                file = self._files.keep(path, f"{batch.id}_{kind}.jsonl", "batch_output")
                setattr(batch, f"{kind}_file_id", file.id)


def _count_tokens(batch: Batch, body: Any) -> None:
    usage = body.get("usage") if isinstance(body, dict) else None
    if isinstance(usage, dict):
        batch.tokens_in += usage.get("prompt_tokens") or usage.get("input_tokens") or 0
        batch.tokens_out += usage.get("completion_tokens") or usage.get("output_tokens") or 0


def _request_id(batch: Batch) -> str:
    return f"{batch.id.removeprefix('batch_')}{batch.done:08x}"


def _write(file: IO[bytes], batch: Batch, custom_id: str, response: Any, error: Any) -> None:
    value = {
        "id": f"batch_req_{_request_id(batch)}", "custom_id": custom_id, "response": response,
        "error": error,
    }  # fmt: skip
    file.write(_line(value))


def _line(value: object) -> bytes:
    """A line of JSON as providers write it, with every character as it is, if it is one."""
    try:
        return json.dumps(value, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # half a character
        return json.dumps(value).encode() + b"\n"
