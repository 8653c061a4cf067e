"""The batches of the simulated provider: each a task that checks its input file, answers its lines
one after another over the time that batches take, and ends in two files."""

import asyncio
import time
from array import array
from collections import Counter
from collections.abc import Callable
from itertools import islice
from random import Random
from typing import Any

from batchgen.simulate.batch import Batch, Wanted
from batchgen.simulate.batch_faults import BatchFaults
from batchgen.simulate.batch_input import Line, Problem, check, read_line
from batchgen.simulate.batch_output import write_no_reply, write_reply
from batchgen.simulate.files import Files

_AT_ONCE_S = 0.02  # before others have their turn
_GIVEN_UP_AT_ONCE = 500  # lines
_SHORTEST_S, _LONGEST_S = 0.01, 0.25  # between two looks at how many lines are due
_ASIDE = 0.1  # of a batch's time for each of validating, finalizing, cancelling
_BUSY = ("in_progress", "finalizing", "cancelling")
_CANCELLED = {
    "code": "batch_cancelled",
    "message": "This request was not executed, because the batch was cancelled.",
}
_EXPIRED = {
    "code": "batch_expired",
    "message": "This request could not be executed before the completion window expired.",
}

Replied = Callable[[Batch, Line], tuple[int, Any]]
"""The status and the body of the reply to a line."""


class Batches:
    """`seconds` is how long one takes; while `released` is not set, none goes on. The order of
    answers depends on `seed` and on how many batches came before."""

    def __init__(
        self, files: Files, replied: Replied, *, seconds: float, seed: int, released: asyncio.Event
    ) -> None:
        self._files = files
        self._replied = replied
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

    def create(self, wanted: Wanted, faults: BatchFaults) -> Batch:
        """The new batch, which is begun."""
        those = faults.take_those_of_batch()
        tokens = self.tokens_of(wanted.input_file_id)
        made = Batch(wanted, len(self._batches), tokens, those)
        self._batches[made.id] = made
        self._begin(made)
        return made

    def get(self, batch_id: str) -> Batch | None:
        return self._batches.get(batch_id)

    def newest_first(self) -> list[Batch]:
        """Those that a list has."""
        return [batch for batch in reversed(self._batches.values()) if batch.is_listed]

    def ids(self) -> list[str]:
        """Of all there are, the oldest first."""
        return list(self._batches)

    def list_all(self) -> None:
        """The list has those, too, that were to come later."""
        for batch in self._batches.values():
            batch.is_late = False

    def by_status(self) -> Counter[str]:
        return Counter(batch.status for batch in self._batches.values())

    def tokens_of(self, file_id: str) -> int:
        """About as many as the file has; 0: there is none."""
        file = self._files.get(file_id)
        return file.size // 4 if file else 0

    def open_tokens(self) -> int:
        """Those of all batches that have not ended."""
        return sum(batch.tokens for batch in self._batches.values() if not batch.has_ended)

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
            await self._released.wait()
            await step(batch)

    async def _validate(self, batch: Batch) -> None:
        await batch.pause(self._seconds * _ASIDE)
        file = self._files.get(batch.wanted.input_file_id)
        if file is None or file.purpose != "batch":
            text = "The input file does not exist, or is for no batch."
            return self._fail(batch, [Problem("invalid_input_file", text)])
        # A name of its own, since the file may be deleted while the batch goes on.
        batch.input_path = batch.input_path or self._files.second_path(file)
        bad_text = batch.faults.get("validation")
        checked = await asyncio.to_thread(check, batch.input_path, batch.wanted.endpoint, bad_text)
        if batch.status != "validating":
            return None
        batch.model = checked.model
        if problems := checked.problems or self._refusals(batch):
            return self._fail(batch, problems)
        places = list(checked.places)
        Random(f"{self._seed}:{batch.number}").shuffle(places)
        batch.places, batch.total = array("Q", places), len(places)
        batch.output_path, batch.error_path = self._files.new_path(), self._files.new_path()
        batch.move("in_progress")
        return None

    def _refusals(self, batch: Batch) -> list[Problem]:
        """Why a batch fails whose file is sound."""
        if code := batch.faults.get("failed"):
            return [Problem(code, "This batch failed.")]
        limit = batch.faults.get("token_limit")
        others = [one for one in self._batches.values() if one.status in _BUSY]
        tokens = sum(one.tokens for one in (batch, *others) if one.model == batch.model)
        if limit is None or tokens <= limit:
            return []
        text = (
            f"Enqueued token limit reached for {batch.model} in organization org-0. Limit: {limit} "
            "enqueued tokens. Please try again once some in_progress batches have been completed."
        )
        return [Problem("token_limit_exceeded", text)]

    def _fail(self, batch: Batch, problems: list[Problem]) -> None:
        if batch.status == "validating":
            batch.problems = problems
            batch.move("failed")

    async def _answer(self, batch: Batch) -> None:
        due, most = self._due(batch), self._most(batch)
        if batch.done < min(due, most):
            self._answer_some(batch, min(due, most))
            await asyncio.sleep(0)
        elif due == batch.total and "slow" not in batch.faults:
            batch.move("finalizing")
        else:
            until_next_s = self._seconds / batch.total if batch.done < most else _LONGEST_S
            await batch.pause(min(max(until_next_s, _SHORTEST_S), _LONGEST_S))

    def _due(self, batch: Batch) -> int:
        """How many lines there is time for until now."""
        lasts_s, over_s = self._seconds * (1 - 2 * _ASIDE), batch.in_status_s
        return batch.total if over_s >= lasts_s else int(batch.total * over_s / lasts_s)

    def _most(self, batch: Batch) -> int:
        """How many lines are answered at all, if nobody cancels it."""
        if "slow" in batch.faults:
            return batch.total // 2
        expired: float = batch.faults.get("expire", 0)
        return batch.total - round(batch.total * expired)

    def _answer_some(self, batch: Batch, until: int) -> None:
        """At most until so many are done."""
        assert batch.input_path is not None
        assert batch.output_path is not None
        assert batch.error_path is not None
        with (
            batch.input_path.open("rb") as lines,
            batch.output_path.open("ab") as output,
            batch.error_path.open("ab") as errors,
        ):
            began_at = time.monotonic()
            for place in islice(batch.places, batch.done, until):
                line = read_line(lines, place)
                status, body = self._replied(batch, line)
                if status < 400:
                    batch.succeeded += 1
                    _count_tokens(batch, body)
                else:
                    batch.failed += 1
                write_reply(output if status < 400 else errors, batch, line.custom_id, status, body)
                batch.done += 1
                if time.monotonic() - began_at > _AT_ONCE_S:
                    break

    async def _finish(self, batch: Batch) -> None:
        await batch.pause(self._seconds * _ASIDE)
        if batch.status != "finalizing":
            return
        is_whole = batch.done == batch.total
        await self._give_up_rest(batch, _EXPIRED)
        self._hand_out(batch)
        batch.move("completed" if is_whole else "expired")

    async def _give_up(self, batch: Batch) -> None:
        await batch.pause(self._seconds * _ASIDE)
        await self._give_up_rest(batch, _CANCELLED)
        self._hand_out(batch)
        batch.move("cancelled")

    async def _give_up_rest(self, batch: Batch, error: dict[str, str]) -> None:
        """Those lines that were not answered are in the error file, as such."""
        if batch.input_path is None or batch.error_path is None or batch.done == batch.total:
            return
        with batch.input_path.open("rb") as lines, batch.error_path.open("ab") as errors:
            for place in islice(batch.places, batch.done + batch.left, None):
                write_no_reply(errors, batch, read_line(lines, place).custom_id, error)
                batch.left += 1
                if batch.left % _GIVEN_UP_AT_ONCE == 0:
                    await asyncio.sleep(0)

    def _hand_out(self, batch: Batch) -> None:
        """The two files get their ids; one without a line is none."""
        for kind, path in (("output", batch.output_path), ("error", batch.error_path)):
            if path is None or not path.exists():
                continue
            if path.stat().st_size == 0:
                path.unlink()
            else:
                file = self._files.keep(path, f"{batch.id}_{kind}.jsonl", "batch_output")
                setattr(batch, f"{kind}_file_id", file.id)


def _count_tokens(batch: Batch, body: Any) -> None:
    usage = body.get("usage") if isinstance(body, dict) else None
    if isinstance(usage, dict):
        batch.tokens_in += usage.get("prompt_tokens") or usage.get("input_tokens") or 0
        batch.tokens_out += usage.get("completion_tokens") or usage.get("output_tokens") or 0
