"""One row with all that came of it, as a page has it: long texts are cut, and the rest is there as
a file."""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from batchgen.endpoints import ENDPOINTS, parts_beside_text
from batchgen.errors import UsageError
from batchgen.jobs.batches import InBatch, batch_of
from batchgen.jobs.lookup import name_of_item
from batchgen.jobs.row_names import RowName, row_names
from batchgen.jobs.sent import Sent, SentReader
from batchgen.jobs.show import ShownPrompt, StepPlace, chains_of_row
from batchgen.store import (
    ChainRow,
    Experiment,
    FormerResult,
    PageRow,
    ReadStore,
    Sample,
    ShownAttempt,
    StoredItem,
)

LISTED_ROWS = 20  # of each step
NO_INPUT = "{}"  # what a row of a later step has, unless it is for an element of a list


class AttemptPage(Struct, frozen=True):
    """A call. `reasoning`, `tool_calls` and `logprobs` are JSON text, by these names, in `beside`:
    those that came with the answer, if its body is not too long."""

    attempt: ShownAttempt
    beside: Mapping[str, str]


class ChainPart(Struct, frozen=True):
    """A row of the item's chains: where it stands in these, as a table shows it, and the whole
    `value` that its answer has, as JSON; None while it has none."""

    place: StepPlace
    row: PageRow
    value: str | None


class ItemPage(Struct, frozen=True):
    """A row. `prompt` and `settings` are what is sent for it, and may have secrets; or a `function`
    ends it without a call, or there is a `problem` for which nothing can be sent. `name` is what
    `show` takes it by, and `called` what lists call it. `former` are results that it has no more,
    the newest first. `chain` are rows of its chains, and `left_out` how many more there are, by
    step and state; `first` is the row of the first step that it comes from, None of such a row.
    `in_batch`: where it is, if a provider batch holds it."""

    item: StoredItem
    experiment: Experiment
    name: str
    called: RowName
    endpoint: str
    prompt: ShownPrompt
    settings: dict[str, Any]
    function: str | None
    problem: str | None
    attempts: tuple[AttemptPage, ...]
    samples: tuple[Sample, ...]
    former: tuple[FormerResult, ...]
    chain: tuple[ChainPart, ...] = ()
    left_out: Mapping[str, Counter[str]] = {}
    first: StoredItem | None = None
    in_batch: InBatch | None = None

    @property
    def value(self) -> str | None:
        """What the parser made of the answer, as JSON; None of a row that is not done."""
        item = self.item
        return _value(item.parsed, item.response) if item.state == "done" else None

    @property
    def inputs(self) -> list[tuple[int, str]]:
        """What its item was given and, where it is made for an element of a list, that: each with
        the number of the row that has it."""
        first = [] if self.first is None else [self.first]
        own = [] if first and self.item.input == NO_INPUT else [self.item]
        return [(one.id, one.input) for one in (*first, *own)]

    @property
    def own_name(self) -> str:
        """Of its experiment, without its step."""
        step = self.experiment.step
        whole = self.experiment.name
        return whole.removesuffix(f"/{step}") if step and self.experiment.number else whole


async def item_page(store: ReadStore, number: int) -> ItemPage:
    """The row of this number. Raises UsageError where there is none."""
    item = await store.item(number)
    if item is None:
        raise UsageError(f"there is no item {number}.")
    by_name = {one.name: one for one in await store.experiments()}
    experiment, sent, problem = by_name[item.experiment], None, None
    try:
        reader = SentReader(store)
        sent = await reader.sent(item.experiment, item.id, item.recipe_id, item.input, item.sample)
    except UsageError as exc:  # its template does not go with what is there
        recipe = await store.recipe(item.recipe_id)
        sent, problem = Sent({}, ENDPOINTS[recipe.endpoint]), str(exc)
    prompt = ShownPrompt.of(sent.endpoint, sent.request)
    rest = {name: one for name, one in sent.request.items() if name not in prompt.members}
    attempts = [AttemptPage(one, _beside(one)) for one in await store.pages.attempts(number)]
    chain, left_out = await _chain(store, experiment, number)
    first = chain[0].row.id if chain else number
    names = await row_names(store, [number])
    return ItemPage(
        item, experiment, await name_of_item(store, number), names[number], sent.endpoint.name,
        prompt, rest, sent.function, problem, tuple(attempts),
        tuple(await store.pages.samples(number)),
        tuple(await store.pages.former_results(number)), chain, left_out,
        None if first == number else await store.item(first), await batch_of(store, item),
    )  # fmt: skip


async def _chain(
    store: ReadStore, experiment: Experiment, number: int
) -> tuple[tuple[ChainPart, ...], Mapping[str, Counter[str]]]:
    if experiment.step is None:
        return (), {}
    found = await chains_of_row(store, number, LISTED_ROWS)
    rows = {row.id: row for row in await store.pages.rows([row.id for row, _ in found.rows])}
    parts = (
        ChainPart(place, rows[row.id], _value_of(row))
        for row, place in found.rows
        if row.id in rows
    )
    return tuple(parts), found.left_out


def _value_of(row: ChainRow) -> str | None:
    result = row.result
    if result is None or row.state != "done":
        return None
    return result.response if result.parsed is None else result.parsed  # both are JSON


def _value(parsed: str | None, response: str | None) -> str:
    return json.dumps(response, ensure_ascii=False) if parsed is None else parsed


def _beside(one: ShownAttempt) -> dict[str, str]:
    if one.body is None or one.outcome != "answered":
        return {}
    is_whole = len(one.body.encode(errors="surrogatepass")) == one.body_bytes
    return parts_beside_text(one.body) if is_whole else {}
