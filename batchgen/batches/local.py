"""Rows that need no call: functions of steps, and stored answers that wait for their parser. They
are the sender's as they would be any worker's, so one that takes the process along is found out."""

import asyncio

from msgspec.structs import replace

from batchgen.batches.place import Ground
from batchgen.errors import ConfigError, InputError, StoreError, TemplateError
from batchgen.items import Fail, Item, Outcome, Reason
from batchgen.shutdown import unless
from batchgen.userfunctions import text_of
from batchgen.worker.fallback import internal_error
from batchgen.worker.parsing import AnswerParser
from batchgen.worker.requests import Requests


def needs_call(item: Item) -> bool:
    return not item.runs_code and item.answer_seq is None


class LocalWork:
    """For one run: as many rows at once as a worker would do."""

    def __init__(self, ground: Ground, requests: Requests, parser: AnswerParser) -> None:
        self._ground = ground
        self._requests = requests
        self._parser = parser
        self._slots = asyncio.Semaphore(ground.spec.concurrency)

    async def outcome(self, item: Item) -> Outcome | None:
        """What became of a row; None: it was stopped before. Raises ConfigError when its code
        cannot be loaded."""
        async with self._slots:
            if self._ground.is_stopped:
                return None
            return await unless(self._ground.no_patience, self._outcome(item))

    async def _outcome(self, item: Item) -> Outcome:
        try:
            if item.runs_code:
                return await self._run_code(item)
            return await self._parse(item)
        except (TemplateError, InputError) as exc:
            return Outcome(item, (), Fail(Reason.REJECTED, text_of(exc)))
        except (ConfigError, StoreError):
            raise
        except Exception as exc:  # a bug costs one row
            self._ground.bug(item, exc)
            waits = item.answer_seq is not None
            return Outcome(item, (), internal_error(exc, has_answer=waits))

    async def _run_code(self, item: Item) -> Outcome:
        prepared = await self._requests.prepare_code(item)
        item = replace(item, parser_id=prepared.present.id)
        return Outcome(item, (), await self._parser.run(prepared))

    async def _parse(self, item: Item) -> Outcome:
        prepared = await self._requests.prepare(item)
        item = replace(item, parser_id=prepared.parser_id)
        assert item.answer_seq is not None
        vector = await self._requests.vector_of(prepared, item.answer_seq)
        text = item.answer_text or ""
        return Outcome(item, (), await self._parser.parse(item, prepared, text, vector))
