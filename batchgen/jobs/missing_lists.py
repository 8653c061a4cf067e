"""Rows that failed as a step with `each` found no list in their values. When the rules of the steps
are other ones, they are read again, without a call."""

from collections.abc import AsyncIterator, Mapping, Sequence

from batchgen.items import Reason
from batchgen.jobs.reparsing import Reparsing
from batchgen.parsers import Parser, StepFunction
from batchgen.steps import NO_LIST
from batchgen.store import AnswerChoice, Chain, ChainStep, EndedAnswer, EndedItem, Store
from batchgen.worker.requests import PresentParser

Readers = Mapping[str, Parser | StepFunction]
"""What makes the values of steps, by their names."""


async def count_without_list(store: Store, chain: Chain) -> int:
    found = 0
    for step in chain.steps:
        async for page in _failed(store, step):
            found += len(page)
    return found


async def read_again_without_list(
    store: Store, chain: Chain, readers: Readers, timeout_s: float
) -> int:
    """How many of them are done by the rules of the chain, or are run again by their function."""
    found = 0
    for step in chain.steps:
        reader = readers.get(step.name)
        if step.runs_code:
            async for page in _failed(store, step):
                found += await store.reopen(page)
        elif isinstance(reader, Parser):
            present = PresentParser(await store.parsers.number(reader.version), reader)
            reparsing = Reparsing(store, present, timeout_s, chain=chain)
            found += (await reparsing.run(_answers(store, step))).done
    return found


async def _failed(store: Store, step: ChainStep) -> AsyncIterator[Sequence[EndedItem]]:
    after = 0
    while page := await store.failed_page(step.experiment_id, Reason.PARSE, NO_LIST, after):
        after = page[-1].item_id
        yield page


async def _answers(store: Store, step: ChainStep) -> AsyncIterator[Sequence[EndedAnswer]]:
    after = 0
    while page := await store.parsers.answer_page(step.experiment_id, AnswerChoice(), after):
        after = page[-1].item_id
        if found := [one for one in page if NO_LIST in (one.error or "")]:
            yield found
