"""The lines of a batch that is over become outcomes of its rows, and the batch is closed.

Each chunk of lines is one transaction, and a line counts only while its row is still claimed by the
batch: so to read the files again, after a crash or a download that broke off, changes nothing. What
the user's code is to parse goes back to pending with its answer, durable, for whoever parses it.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager

from msgspec.structs import replace

from batchgen.batches.judging import Judged, LineJudge, Others
from batchgen.batches.outages import Outages
from batchgen.batches.place import Ground, Place
from batchgen.batches.refused import RefusedBatches
from batchgen.batches.spool import claim_in
from batchgen.clock import clock_ms
from batchgen.endpoints import ENDPOINTS
from batchgen.errors import ConfigError, InputError, StoreError, TemplateError
from batchgen.items import (
    Answer,
    Decision,
    Fail,
    Failure,
    Item,
    KeepAnswer,
    Outcome,
    ParseLater,
    Reason,
    Release,
    Retry,
)
from batchgen.llm.batches import BatchLine, BatchServerError, Seen, Standing
from batchgen.llm.replies import read_reply
from batchgen.shutdown import uninterrupted
from batchgen.store import Claim, ProviderBatch, Reserved, Spent, Store, claim_of
from batchgen.text.sentences import as_sentence
from batchgen.userfunctions import text_of
from batchgen.worker.budget import WorstCases
from batchgen.worker.fallback import internal_error
from batchgen.worker.parsing import AnswerParser
from batchgen.worker.requests import Prepared, Requests
from batchgen.worker.stats import Halt, HaltKind

_CHUNK_LINES, _CHUNK_BYTES = 500, 4 << 20
_PAGE = 500
_MANY = 5  # requests of a batch, of which none was answered: that tells


class Collector:
    """Collects for one run."""

    def __init__(
        self, ground: Ground, store: Store, requests: Requests, judge: LineJudge,
        parser: AnswerParser,
    ) -> None:  # fmt: skip
        self._ground = ground
        self._store = store
        self._requests = requests
        self._judge = judge
        self._parser = parser
        self.refused = RefusedBatches(ground, store, self._write)
        self.outages = Outages(ground.config.poll_s)

    async def collect(self, batch: ProviderBatch, seen: Seen, place: Place) -> Failure | None:
        """All that the files of a batch have, and what follows for the rows that they do not
        name. None: it is closed; else why the files could not be read to their ends."""
        if seen.standing is Standing.FAILED:
            await self.refused.give_back(batch, seen, place)
            return None
        reading = _Reading(batch, place, await self._others(batch, seen))
        try:
            async with (
                aclosing(place.server.lines(seen)) as lines,
                self._writing(batch) as write,
            ):
                async for chunk in _chunks(lines):
                    await write(await self._outcomes(reading, chunk))
        except BatchServerError as exc:
            return exc.failure
        self.refused.is_at_limit = False
        self._tell_of_strays(reading)
        await self._settle_unnamed(reading, seen)
        await self._store.batches.close(batch.number)
        self._heed(reading, seen)
        return None

    async def _others(self, batch: ProviderBatch, seen: Seen) -> Others:
        nobody = seen.standing is Standing.COMPLETED and not seen.answered
        if not nobody or seen.failed < _MANY:
            return Others()
        counts = await self._store.counts([batch.experiment_id])
        # Who says how many may fail wants them to fail.
        is_first = not counts.done and self._ground.spec.max_failures is None
        return Others(nobody=True, is_first=is_first)

    def _heed(self, reading: "_Reading", seen: Seen) -> None:
        """That nobody was answered, or somebody."""
        spec, now, server = self._ground.spec, clock_ms(), reading.batch.server
        stats = self._ground.context.stats
        if seen.answered:
            self.outages.answered(server)
            stats.trouble = ""
        elif reading.spared:
            stats.trouble = reading.spared
            words = f"none of the {seen.failed:,} requests of batch {reading.batch.number} was "
            words += f"answered: {as_sentence(reading.spared)}"
            rest_s = self.outages.not_answered(server, now)
            if (lasts_s := self.outages.lasts_s(server, now)) > spec.stall_s:
                words += f" So it has been for {lasts_s:,.0f} s (work.stall_s: {spec.stall_s:g})."
                self._ground.halt(Halt(words, kind=HaltKind.STALLED))
                return
            self._ground.warn(
                f"{words} That costs no row a try that was never in trouble before. The next batch "
                f"goes to {reading.place.spec.shown_url} in {rest_s:g} s, and so on for "
                f"{spec.stall_s:g} s (work.stall_s) at most."
            )

    async def _outcomes(
        self, reading: "_Reading", lines: Sequence[BatchLine]
    ) -> list[Outcome]:  # fmt: skip
        claims = reading.new_claims(lines)
        ids = [item_id for item_id, _ in claims]
        held = {
            claim_of(item): item
            for item in await self._store.batches.claims(reading.batch.number, ids)
        }
        return [
            await self._outcome(held[claim], line, reading)
            for claim, line in claims.items()
            if claim in held
        ]

    async def _outcome(self, item: Item, line: BatchLine, reading: "_Reading") -> Outcome:
        """What a line makes of its row. A bug costs one row, and not what its call brought."""
        judged: Judged | None = None
        verdict = None if line.reply is None else read_reply(line.reply, reading.endpoint)
        try:
            # Who knows that requests of this kind are answered need not know this one's.
            is_asked = reading.others.answered and isinstance(verdict, Answer)
            prepared = await self._requests.prepare(item, is_asked=is_asked)
            if item.parser_id != prepared.parser_id:
                item = replace(item, parser_id=prepared.parser_id)
            judged = self._judge.judge(
                item, prepared, line, verdict, reading.batch, reading.place, reading.others
            )
            reading.observe(judged)
            if judged.halt is not None:
                self._ground.halt(judged.halt)
            decision = await self._decide(item, prepared, judged)
        except (TemplateError, InputError) as exc:
            decision = Fail(Reason.REJECTED, text_of(exc))
        except (ConfigError, StoreError):
            raise
        except Exception as exc:
            self._ground.bug(item, exc)
            decision = internal_error(exc, has_answer=_has_answer(judged))
        attempts = () if judged is None or judged.attempt is None else (judged.attempt,)
        return Outcome(item, attempts, decision)

    async def _decide(self, item: Item, prepared: Prepared, judged: Judged) -> Decision:
        attempt, decision = judged.attempt, judged.decision
        if not isinstance(decision, KeepAnswer) or attempt is None:
            return decision
        if prepared.parser.kind != "inline":
            return ParseLater()
        text = attempt.response or ""
        return await self._parser.parse(item, prepared, text, attempt.vector)

    async def _settle_unnamed(self, reading: "_Reading", seen: Seen) -> None:
        """Of rows that no line was of: what was cancelled was not asked, as far as the files have
        the answers that the provider has counted; else it may have been."""
        batch, after, unheard = reading.batch, 0, 0
        is_cancelled = seen.standing is Standing.CANCELLED
        lost = await self._lost(reading, seen) if is_cancelled else batch.requests
        while items := await self._store.batches.open_claims(batch.number, after, _PAGE):
            after = items[-1].id
            sent = items[: lost - unheard]
            unheard += len(sent)
            decide = self._judge.lost if is_cancelled else self._judge.unheard
            outcomes = [
                *map(decide, sent), *(Outcome(item, (), Release()) for item in items[len(sent) :])
            ]  # fmt: skip
            await self._write(batch, outcomes, await self._most(sent, reading.place))
        if unheard:
            self._ground.warn(
                f"batch {batch.number}: its files have no line for {unheard:,} of the rows that "
                "were asked: as many are counted as sent, answer unknown."
            )

    async def _lost(self, reading: "_Reading", seen: Seen) -> int:
        """How many answers there are that no file has, but for those that an earlier process has
        written down."""
        now = await self._store.batches.batch(reading.batch.number)
        assert now is not None
        written = reading.batch.requests - reading.lines - now.unsettled
        return max(0, seen.answered - reading.answered - written)

    async def _most(self, items: Sequence[Item], place: Place) -> dict[Claim, Reserved]:
        """The most that each can have cost, where there is a budget."""
        if self._ground.spec.budget is None:
            return {}
        worst_cases = WorstCases(self._ground.spec.budget, lambda _: place.prices)
        found = {}
        for item in items:
            worst = worst_cases.of(item, await self._requests.prepare(item))
            most = Spent(worst.tokens, worst.cost_usd or 0.0)
            found[claim_of(item)] = Reserved(most, worst.tokens)
        return found

    @asynccontextmanager
    async def _writing(
        self, batch: ProviderBatch
    ) -> AsyncIterator[Callable[[Sequence[Outcome]], Awaitable[None]]]:
        """While one chunk is being written the next is judged; on leaving all are durable."""
        last: asyncio.Future[None] | None = None

        async def write(outcomes: Sequence[Outcome]) -> None:
            nonlocal last
            if last is not None:
                await last
            last = asyncio.ensure_future(self._write(batch, outcomes))

        try:
            yield write
        finally:
            if last is not None:
                await uninterrupted(_result_of(last))

    async def _write(
        self, batch: ProviderBatch, outcomes: Sequence[Outcome],
        reserved: Mapping[Claim, Reserved] | None = None,
    ) -> None:  # fmt: skip
        if not outcomes:
            return
        await self._store.batches.collect(batch.number, outcomes, reserved or {})
        stats, log = self._ground.context.stats, self._ground.context.log
        for outcome in outcomes:
            stats.calls += len(outcome.attempts)
            if outcome.attempt is not None:
                log.attempt(outcome.item, outcome.attempt, outcome.decision)

    def _tell_of_strays(self, reading: "_Reading") -> None:
        number = reading.batch.number
        if reading.foreign:
            self._ground.warn(
                f"batch {number}: {reading.foreign} lines of its files are of no request of it, "
                f"and are passed over; the first: {reading.first_foreign!r}"
            )
        if reading.repeated:
            self._ground.warn(
                f"batch {number}: {reading.repeated} requests have more than one line in its "
                "files; the first one counts."
            )


class _Reading:
    """What is known of one pass over the files of a batch."""

    def __init__(self, batch: ProviderBatch, place: Place, others: Others) -> None:
        self.batch = batch
        self.place = place
        self.others = others
        self.spared = ""  # what was said to a row that is not charged for it
        self.endpoint = ENDPOINTS[batch.endpoint]
        self.foreign = self.repeated = self.answered = 0
        self.first_foreign = ""
        self._read: set[Claim] = set()

    def new_claims(self, lines: Sequence[BatchLine]) -> dict[Claim, BatchLine]:
        """Those that no line before was of."""
        found: dict[Claim, BatchLine] = {}
        for line in lines:
            claim = claim_in(line.custom_id, self.batch.token)
            if claim is None:
                self.foreign += 1
                self.first_foreign = self.first_foreign or line.custom_id or line.error_message
            elif claim in self._read:
                self.repeated += 1
            else:
                self._read.add(claim)
                self.answered += line.reply is not None and line.reply.status == 200
                found[claim] = line
        return found

    @property
    def lines(self) -> int:
        """Of how many requests there was a line."""
        return len(self._read)

    def observe(self, judged: Judged) -> None:
        if _has_answer(judged):
            self.others = Others(answered=True)
        if isinstance(judged.decision, Retry) and not judged.decision.charged:
            self.spared = self.spared or (judged.attempt and judged.attempt.error) or ""


def _has_answer(judged: Judged | None) -> bool:
    return judged is not None and judged.attempt is not None and judged.attempt.response is not None


async def _result_of(future: asyncio.Future[None]) -> None:
    await future


async def _chunks(lines: AsyncIterator[BatchLine]) -> AsyncIterator[list[BatchLine]]:
    chunk, size = list[BatchLine](), 0
    async for line in lines:
        chunk.append(line)
        size += len(line.reply.body or "") if line.reply else 0
        if len(chunk) >= _CHUNK_LINES or size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
