"""What the provider says of the batches of a run: one look at its list for all of them."""

from collections.abc import Sequence
from contextlib import suppress

from batchgen.batches.collecting import Collector
from batchgen.batches.place import Ground, Place
from batchgen.batches.sending import Sender, is_of, since
from batchgen.clock import now_ms
from batchgen.items import Failure, Reason
from batchgen.llm.batches import BatchServerError, Seen, Standing
from batchgen.store import BatchState, ProviderBatch, Store
from batchgen.worker.halts import refused
from batchgen.worker.stats import Halt, HaltKind

# Such a failure may be of the list alone: a gateway has none for some providers.
_OF_THE_LIST = (Reason.SERVER, Reason.REJECTED, Reason.BAD_RESPONSE)
_LATE_FILE_MS = 600_000  # some tell later which file has the answers
_LATE_MS = 6 * 3_600_000  # after its time a batch may still be ended in order
_NEWEST = 100  # batches of ours, of which one may have been made twice
_DAY_MS = 24 * 3_600_000
_PARTS = {"h": 3_600_000, "d": _DAY_MS, "m": 60_000}


class Watcher:
    """Looks for one run."""

    def __init__(self, ground: Ground, store: Store, sender: Sender, collector: Collector) -> None:
        self._ground = ground
        self._store = store
        self._sender = sender
        self._collector = collector
        self._trouble_since: dict[object, int] = {}  # by what cannot be asked for
        self._told: set[object] = set()  # so that it is told once
        self.late: set[int] = set()  # batches past their time

    async def look(self) -> list[ProviderBatch]:
        """At all that is not closed: what is over is collected. Those that are left."""
        unfinished = await self._store.batches.unfinished()
        for place in self._ground.places:
            if of_place := [one for one in unfinished if one.server == place.key]:
                await self._look_at(of_place, place)
        self._tell_of_others(unfinished)
        return await self._store.batches.unfinished()

    async def look_for_twins(self) -> None:
        """In the end: of batches that were asked for a second time one may have turned up."""
        for place in self._ground.places:
            if asked_twice := [one for one in self._sender.asked_twice if one.server == place.key]:
                with suppress(BatchServerError):
                    await self._cancel_twins(
                        await place.server.recent(since(asked_twice)) or (), place
                    )

    async def delete_files(self) -> None:
        """Those at the provider of batches that are closed, as far as it can be done."""
        for batch in await self._store.batches.with_files():
            place = self._ground.place(batch.server)
            files = [batch.input_file, batch.output_file, batch.error_file]
            if place and await place.server.forget([one for one in files if one]):
                await self._store.batches.files_gone(batch.number)

    async def _look_at(self, batches: Sequence[ProviderBatch], place: Place) -> None:
        made = [one for one in batches if one.state is not BatchState.CREATING]
        try:
            seen = await place.server.recent(since(batches))
        except BatchServerError as exc:
            goes_without = await self._goes_without_list(made, place, exc.failure)
            if goes_without and len(made) == len(batches):
                self._is_back(place)
            else:
                self._is_away(exc.failure, place)
            return
        self._is_back(place)
        by_id = {one.batch_id: one for one in seen or ()}
        await self._cancel_twins(seen or (), place)
        for batch in batches:
            if batch.state is BatchState.CREATING:
                await self._sender.go_on(batch, place, seen)
                continue
            try:
                found = by_id.get(batch.batch_id or "") or await self._asked(batch, place)
            except BatchServerError as exc:
                self._is_away(exc.failure, place, of=batch.number)
            else:
                await self._follow(batch, found, place)

    async def _goes_without_list(
        self, made: Sequence[ProviderBatch], place: Place, failure: Failure
    ) -> bool:
        """Where it is the list alone that the provider fails to tell, each batch that it has made
        can be asked for."""
        if failure.halt is not None or failure.reason not in _OF_THE_LIST:
            return False
        try:
            for batch in made:
                await self._follow(batch, await self._asked(batch, place), place)
        except BatchServerError:
            return False
        return True

    async def _asked(self, batch: ProviderBatch, place: Place) -> Seen | None:
        assert batch.batch_id is not None
        seen = await place.server.get(batch.batch_id)
        self._trouble_since.pop(batch.number, None)
        return seen

    async def _follow(self, batch: ProviderBatch, seen: Seen | None, place: Place) -> None:
        """One that the provider has made, as it shows it (None: it knows of none)."""
        if seen is None:
            self._ground.halt(Halt(
                f"batch {batch.number}: {batch.batch_id} is not known under this key at "
                f"{place.spec.shown_url}. It goes on where it was made: set the key, project and "
                "URL that it was sent with."
            ))  # fmt: skip
            return
        if not seen.standing.is_over:
            await self._store.batches.note(
                batch.number, status=seen.status, answered=seen.answered, failed=seen.failed,
                expires_at=seen.expires_at,
            )  # fmt: skip
            self._watch_the_time(batch, seen)
        else:
            await self._end(batch, seen)
            if not self._waits_for_file(batch, seen):
                await self._collect(batch, seen, place)

    async def _end(self, batch: ProviderBatch, seen: Seen) -> None:
        problem = seen.problems[0].message if seen.problems else None
        await self._store.batches.end(
            batch.number, status=seen.status, output_file=seen.output_file,
            error_file=seen.error_file, answered=seen.answered, failed=seen.failed, error=problem,
        )  # fmt: skip
        self.late.discard(batch.number)

    async def _collect(self, batch: ProviderBatch, seen: Seen, place: Place) -> None:
        trouble = await self._collector.collect(batch, seen, place)
        if trouble is None:
            self._ground.say(
                f"batch {batch.number}: {seen.status}, {seen.answered:,} answered, "
                f"{seen.failed:,} failed"
            )
        else:
            self._is_away(trouble, place, of=batch.batch_id)

    def _waits_for_file(self, batch: ProviderBatch, seen: Seen) -> bool:
        """Whether a batch with answers names no file that has them, and may still. That it is over
        was noted, so the time goes on from one process to the next."""
        if seen.output_file or not (seen.answered or (seen.failed and not seen.error_file)):
            return False
        is_early = now_ms() - (batch.ended_at or now_ms()) < _LATE_FILE_MS
        if is_early and self._is_new(("file", batch.number)):
            self._ground.say(
                f"batch {batch.number}: {seen.status}, {seen.answered:,} answered, and the "
                "provider names no file that has these answers. It may do so yet, and is asked "
                f"for {_LATE_FILE_MS // 60_000} minutes."
            )
        return is_early

    async def _cancel_twins(self, seen: Sequence[Seen], place: Place) -> None:
        """Batches that were made of the same file as one of ours, also of one that is closed by
        now: their answers are paid for, and nobody waits for them."""
        newest = await self._store.batches.newest(_NEWEST)
        known = [one for one in newest if one.state is not BatchState.CREATING]
        for twin in seen:
            batch = next((one for one in known if is_of(twin, one)), None)
            if batch is None or _is_the_same(batch, twin, seen):
                continue
            if twin.standing is Standing.RUNNING:
                try:
                    await place.server.cancel(twin.batch_id)
                except BatchServerError as exc:
                    self._is_away(exc.failure, place)
            self._tell_of_twin(batch, twin)

    def _tell_of_twin(self, batch: ProviderBatch, twin: Seen) -> None:
        """When it is seen, and when it is over and what it has answered is known."""
        was = "the provider had made it already, as {1}, though its list did not have it"
        if twin.standing.is_over and self._is_new((twin.batch_id, "is over")):
            then = "{2:,} of its requests were answered there, and are billed twice."
        elif not twin.standing.is_over and self._is_new(twin.batch_id):
            then = "That one is cancelled; what it has answered by then is billed twice."
        else:
            return
        words = f"batch {{0}}: {was}. {then}"
        self._ground.warn(words.format(batch.number, twin.batch_id, twin.answered))

    def _watch_the_time(self, batch: ProviderBatch, seen: Seen) -> None:
        created_at = seen.created_at or batch.created_at or batch.sealed_at
        window_ms = _window_ms(self._ground.config.completion_window)
        expires_at = seen.expires_at or created_at + window_ms
        if now_ms() < expires_at + _LATE_MS:
            return
        self.late.add(batch.number)
        if self._is_new(("late", batch.number)):
            advice = (
                "cancel it, and what it has answered is kept; if that is of no use, abandon it."
            )
            if "cancel" in seen.status.lower():
                advice = "that it was cancelled was of no use, so abandon it."
            self._ground.warn(
                f"batch {batch.number} ({batch.batch_id}) should have ended "
                f"{(now_ms() - expires_at) / 3_600_000:.0f} hours ago, and the provider still says "
                f"{seen.status}. It is never sent again by itself: {advice}"
            )

    def _is_back(self, place: Place) -> None:
        if self._trouble_since.pop(place.key, None) is not None:
            self._ground.say("the provider can be asked about its batches again.")

    def _is_away(self, failure: Failure, place: Place, of: object = None) -> None:
        """`of`: what it could not be asked for, if not for all."""
        now, of = now_ms(), of or place.key
        if failure.halt is not None:
            self._ground.halt(refused(failure, place.spec))
            return
        since_ms = self._trouble_since.setdefault(of, now)
        if self._is_new(("away", of, since_ms)):
            self._ground.warn(
                f"the provider cannot be asked about its batches: {failure.message}. They go on "
                "there, and it is asked again."
            )
        elif now - since_ms > 1000 * self._ground.spec.stall_s:
            words = f"the provider could not be asked for {self._ground.spec.stall_s:g} s "
            words += f"(work.stall_s): {failure.message}. Its batches go on there."
            self._ground.halt(Halt(words, kind=HaltKind.STALLED))

    def _tell_of_others(self, unfinished: Sequence[ProviderBatch]) -> None:
        known = {place.key for place in self._ground.places}
        for batch in unfinished:
            if batch.server not in known and self._is_new(("elsewhere", batch.number)):
                self._ground.warn(
                    f"batch {batch.number} was sent to {batch.base_url}, which is no server of "
                    "this config: it is left to whoever has that config."
                )

    def _is_new(self, what: object) -> bool:
        if what in self._told:
            return False
        self._told.add(what)
        return True


def _is_the_same(batch: ProviderBatch, one: Seen, listed: Sequence[Seen]) -> bool:
    """Whether that is the batch itself, or may be: by another name, as LiteLLM has two for each,
    where the list does not have it by its own."""
    if one.batch_id == batch.batch_id:
        return True
    has_own = any(other.batch_id == batch.batch_id for other in listed)
    times = {one.created_at, batch.created_at}
    return not has_own and (len(times) == 1 or None in times)


def _window_ms(window: str) -> int:
    """A window as providers write it (24h, 7d); one that they alone can read is a day."""
    number, unit = window[:-1], window[-1:]
    return int(number) * _PARTS[unit] if number.isdigit() and unit in _PARTS else _DAY_MS
