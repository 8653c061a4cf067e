"""A batch that the provider refused: nothing of it ran, and its rows go back."""

from collections.abc import Awaitable, Callable, Mapping, Sequence

from batchgen.batches.place import Ground, Place
from batchgen.batches.sizes import REFUSED_WHOLE
from batchgen.batches.spool import claim_in
from batchgen.items import Fail, Failure, Outcome, Reason
from batchgen.llm.batches import BatchServerError, LineProblem, Seen
from batchgen.store import BatchState, ProviderBatch, Store, claim_of
from batchgen.worker.halts import refused

_TOKEN_LIMIT = ("token_limit", "enqueued")
_OF_ALL_LINES = ("model", "endpoint", "url", "api_key")


class RefusedBatches:
    """Of one run; `write` writes what became of rows of a batch. `is_at_limit`: what is at the
    provider is all that it takes at a time, until some of it has ended."""

    def __init__(
        self, ground: Ground, store: Store,
        write: Callable[[ProviderBatch, Sequence[Outcome]], Awaitable[None]],
    ) -> None:  # fmt: skip
        self._ground = ground
        self._store = store
        self._write = write
        self.is_at_limit = False

    async def give_back(self, batch: ProviderBatch, seen: Seen, place: Place) -> None:
        """The lines that are to blame cost their own rows only;
        where none is named, the next file is half as large."""
        said = seen.problems[0].message if seen.problems else f"the provider says {seen.status}"
        of_lines = {one.line: one for one in seen.problems if one.line is not None}
        if any(_names(one, _TOKEN_LIMIT) for one in seen.problems):
            self.is_at_limit = await self._are_others_at(place)
            await self._release(batch, said if self.is_at_limit else f"{REFUSED_WHOLE}{said}")
        elif any(_blames_all(one) for one in seen.problems):
            await self._release(batch, said)
            failure = Failure(Reason.REJECTED, said, halt="the provider refuses the batch.")
            self._ground.halt(refused(failure, place.spec))
        elif of_lines and (to_blame := await self._rows_of(batch, of_lines, place)):
            await self._write(batch, to_blame)
            await self._release(batch, f"{len(to_blame)} of its requests were refused: {said}")
        elif batch.requests == 1:
            items = await self._store.batches.open_claims(batch.number, 0, 1)
            fail = Fail(Reason.REJECTED, f"the provider refuses a batch of this alone: {said}")
            await self._write(batch, [Outcome(item, (), fail) for item in items])
            await self._release(batch, said)
        else:
            await self._release(batch, f"{REFUSED_WHOLE}{said}")

    async def _are_others_at(self, place: Place) -> bool:
        return any(
            one.server == place.key and one.state is BatchState.OPEN
            for one in await self._store.batches.unfinished()
        )

    async def _release(self, batch: ProviderBatch, why: str) -> None:
        rows = await self._store.batches.release(batch.number, why)
        self._ground.warn(
            f"batch {batch.number} was refused by the provider: {why}. Nothing of it ran; "
            f"{rows:,} rows are pending again."
        )

    async def _rows_of(
        self, batch: ProviderBatch, problems: Mapping[int, LineProblem], place: Place
    ) -> list[Outcome]:
        """The rows of these lines of the input file; none where that cannot be read any more."""
        try:
            ids = await place.server.custom_ids(batch.input_file, problems.keys())
        except BatchServerError:
            return []
        claims = {
            claim: problems[line]
            for line, custom_id in ids.items()
            if (claim := claim_in(custom_id, batch.token)) is not None
        }
        items = await self._store.batches.claims(batch.number, [item_id for item_id, _ in claims])
        return [
            Outcome(item, (), Fail(Reason.REJECTED, _words(claims[claim_of(item)])))
            for item in items
            if claim_of(item) in claims
        ]


def _names(problem: LineProblem, words: Sequence[str]) -> bool:
    said = f"{problem.code} {problem.message}".lower()
    return any(word in said for word in words)


def _blames_all(problem: LineProblem) -> bool:
    """Whether it is of what all lines have in common. Of one line only the code tells: its message
    may speak of what this one has, as the URL of an image."""
    said = problem if problem.line is None else problem._replace(message="")
    return _names(said, _OF_ALL_LINES)


def _words(problem: LineProblem) -> str:
    return f"the provider refused the request: {problem.code}: {problem.message}"
