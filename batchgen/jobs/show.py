"""One item with all that was sent and came back."""

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from msgspec import Struct
from msgspec.structs import asdict, replace

from batchgen.clock import timestamp
from batchgen.endpoints import ENDPOINTS, Endpoint
from batchgen.errors import UsageError
from batchgen.jobs.batches import InBatch, batch_of
from batchgen.jobs.sent import Sent, SentReader
from batchgen.store import ChainRow, Experiment, ReadStore, StoredAttempt, StoredItem

_PAGE = 250


class ShownPrompt(NamedTuple):
    """The members of a request that hold its prompt; `conversation` is the one that may be a list
    of messages."""

    members: dict[str, Any]
    conversation: str | None

    @classmethod
    def of(cls, endpoint: Endpoint, request: Mapping[str, Any]) -> "ShownPrompt":
        names = [name for name in endpoint.prompt_members if name in request]
        return cls({name: request[name] for name in names}, endpoint.conversation)

    def to_json(self, messages: str, members: str) -> dict[str, Any]:
        """By the first name the messages of a chat completion, by the other what there is else."""
        if self.conversation == "messages":
            return {messages: self.members["messages"]}
        return {members: self.members}


class StepPlace(Struct, frozen=True):
    """Which row of its chain it is: of which step, made of which row, and of which element of its
    list; a gathering step's row of the rows that are `gathered`."""

    name: str
    number: int
    parent_id: int | None = None
    element: int | None = None
    gathered: tuple[int, ...] = ()


class ItemDetails(Struct, frozen=True):
    """`request` is what its recipe makes of it, as it is sent to `endpoint`; or a `function` ends
    it without one. `problem`: why no request can be made of it. `attempts` are in the order in
    which they ended, each with its raw answer or error. `in_batch`: where it is, if a provider
    batch holds it."""

    item: StoredItem
    endpoint: Endpoint
    request: dict[str, Any]
    attempts: tuple[StoredAttempt, ...]
    step: StepPlace | None = None
    function: str | None = None
    problem: str | None = None
    in_batch: InBatch | None = None

    @property
    def id(self) -> str | int:
        """The user's id or, without one, the item's number."""
        return self.item.custom_id or self.item.id

    @property
    def prompt(self) -> ShownPrompt:
        return ShownPrompt.of(self.endpoint, self.request)

    @property
    def cost_usd(self) -> float:
        return sum(one.cost_usd or 0.0 for one in self.attempts)

    @property
    def settings(self) -> dict[str, Any]:
        """The model and the parameters: the rest of the request."""
        members = self.prompt.members
        return {name: value for name, value in self.request.items() if name not in members}

    @property
    def input(self) -> Any:
        """As it was given."""
        return json.loads(self.item.input)

    @property
    def parsed(self) -> Any:
        """What the parser made of the answer; None of an item that is not done."""
        if self.item.state != "done":
            return None
        return self.item.response if self.item.parsed is None else json.loads(self.item.parsed)

    def to_json(self) -> dict[str, Any]:
        """The object of `show --json`."""
        item = self.item
        return {
            "id": self.id,
            "number": item.id,
            **({} if item.sample is None else {"sample": item.sample}),
            "experiment": item.experiment,
            "state": item.state,
            "reason": item.reason,
            "error": item.error,
            **({} if self.in_batch is None else {"batch": self.in_batch.to_json()}),
            "input": self.input,
            **self._asked_json(),
            "parsed": self.parsed,
            "parser": item.parser,
            "finished_at": None if item.finished_at is None else timestamp(item.finished_at),
            "attempts": [
                {**asdict(call), "finished_at": timestamp(call.finished_at)}
                for call in self.attempts
            ],
        }

    def _asked_json(self) -> dict[str, Any]:
        if self.function is not None:
            return {"function": self.function}
        if self.problem is not None:
            return {"endpoint": self.endpoint.name, "problem": self.problem}
        prompt = self.prompt.to_json("messages", "prompt")
        return {"endpoint": self.endpoint.name, **prompt, "settings": self.settings}

    def step_json(self) -> dict[str, Any]:
        """The same, of one row of a chain."""
        assert self.step is not None
        place: dict[str, Any] = {"step": self.step.name, "parent": self.step.parent_id}
        if self.step.element is not None:
            place["element"] = self.step.element
        if self.step.gathered:
            place["gathered"] = list(self.step.gathered)
        own = self.to_json()
        del own["id"]
        return {**place, **own}


class ChainDetails(Struct, frozen=True):
    """An item that has steps, and the rows that are looked at, those of each sample one after
    another; each is followed by what was made of it. Of all its chains those of the row `of_row`;
    None: all. `left_out` are how many more rows steps have, by their names and states."""

    item: StoredItem
    rows: tuple[ItemDetails, ...]
    of_row: int | None = None
    left_out: Mapping[str, Counter[str]] = {}

    @property
    def id(self) -> str | int:
        """The user's id or, without one, the item's number."""
        return self.item.custom_id or self.item.id

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "number": self.item.id,
            "experiment": self.item.experiment,
            "input": json.loads(self.item.input),
            "steps": [row.step_json() for row in self.rows],
            **({"left_out": self.left_out} if self.left_out else {}),
        }


async def details_of(
    store: ReadStore, numbers: Sequence[int], step: str | None = None, limit: int | None = None
) -> list[ItemDetails | ChainDetails]:
    """Items by their numbers; of those that have steps, all rows of their chains or, with `step`,
    those of one step, and with a `limit` the first ones of each step. The number of a row of a
    later step stands for the chain that it is in: what it was made of, and what was made of it."""
    links = await store.links_of(numbers)
    firsts = [links[one].links[0].item_id if one in links else one for one in numbers]
    experiments = {one.name: one for one in await store.experiments()}
    found, reader = list[ItemDetails | ChainDetails](), SentReader(store)
    chained = dict[tuple[str, str | None], list[int]]()  # samples of an item belong together
    for number in dict.fromkeys(firsts):
        item = await store.item(number)
        if item is None:
            continue
        if experiments[item.experiment].step is None:
            found.append(await _item_details(store, reader, item))
        else:
            own = item.custom_id or str(number)
            chained.setdefault((item.experiment, own), []).append(number)
    for ids in chained.values():
        chosen = {number for number in numbers if number in links} if len(ids) == 1 else set[int]()
        by_id = {one.id: one for one in experiments.values()}
        first = await store.item(ids[0])
        found_rows = await _rows_of_chains(store, ids, by_id, step, chosen)
        if first is None or not found_rows.rows:
            continue
        rows, left_out = found_rows.first_ones(limit)
        details = await _step_details(store, reader, rows)
        of_row = None if found_rows.is_all else next(iter(chosen))
        found.append(ChainDetails(first, details, of_row, left_out))
    return found


class ChainPlaces(NamedTuple):
    """Rows of an item's chains with their places in these, the first ones of each step; `left_out`
    are how many more rows steps have, by their names and states."""

    rows: list[tuple[ChainRow, StepPlace]]
    left_out: Mapping[str, Counter[str]]


async def chains_of_row(store: ReadStore, number: int, limit: int) -> ChainPlaces:
    """Of a first step's row all rows of its chains, of another one those of the chain that it is
    in; `limit` of each step."""
    links = await store.links_of([number])
    first = links[number].links[0].item_id if number in links else number
    by_id = {one.id: one for one in await store.experiments()}
    chosen = {number} if number in links else set[int]()
    found = await _rows_of_chains(store, [first], by_id, None, chosen)
    return ChainPlaces(*found.first_ones(limit))


class _ChainRows(NamedTuple):
    """Rows of chains with their places in these; whether these are all that there are."""

    rows: list[tuple[ChainRow, StepPlace]]
    is_all: bool

    def first_ones(
        self, limit: int | None
    ) -> tuple[list[tuple[ChainRow, StepPlace]], dict[str, Counter[str]]]:
        """Of each step, and of the others how many there are, by their states."""
        kept, seen, left_out = [], Counter[str](), dict[str, Counter[str]]()
        for row, place in self.rows:
            seen[place.name] += 1
            if limit is None or seen[place.name] <= limit:
                kept.append((row, place))
            else:
                left_out.setdefault(place.name, Counter())[row.state] += 1
        return kept, left_out


async def _rows_of_chains(
    store: ReadStore, first_ids: Sequence[int], by_id: Mapping[int, Experiment],
    step: str | None, chosen: Collection[int],
) -> _ChainRows:  # fmt: skip
    """Of the chains that the `chosen` rows are in; of all, if there are none."""
    rows = await store.chain_rows_below(first_ids)
    chain = await store.chain_of(rows[0].experiment_id)
    assert chain is not None
    by_seq = {row.result_seq: row.id for row in rows}
    found = []
    of_chosen = _in_chains_of(chosen, rows, by_seq) if chosen else rows
    for row in of_chosen:
        name = by_id[row.experiment_id].step or ""
        if step is not None and name != step:
            continue
        has_list = chain.plan.steps[row.number].each is not None
        gathered = tuple(by_seq[seq] for seq in row.gathered if seq in by_seq)
        element = row.element if has_list else None
        found.append((row, StepPlace(name, row.number, row.parent_id, element, gathered)))
    return _ChainRows(found, len(of_chosen) == len(rows))


async def _step_details(
    store: ReadStore, reader: SentReader, rows: Sequence[tuple[ChainRow, StepPlace]]
) -> tuple[ItemDetails, ...]:
    found = list[ItemDetails]()
    for start in range(0, len(rows), _PAGE):
        page = rows[start : start + _PAGE]
        await reader.read_links([row.id for row, _ in page])
        for row, place in page:
            if (item := await store.item(row.id)) is not None:
                found.append(replace(await _item_details(store, reader, item), step=place))
    return tuple(found)


def _in_chains_of(
    chosen: Collection[int], rows: Sequence[ChainRow], by_seq: Mapping[int | None, int]
) -> list[ChainRow]:
    """These rows, what they were made of, and what was made of them."""
    made_of = {
        row.id: {row.parent_id, *(by_seq[seq] for seq in row.gathered if seq in by_seq)}
        for row in rows
    }
    above, below, level = set(chosen), set(chosen), set(chosen)
    while level := {one for row in level for one in made_of.get(row, ()) if one} - above:
        above |= level
    for row in sorted(rows, key=lambda row: row.number):
        if not below.isdisjoint(made_of[row.id]):
            below.add(row.id)
    return [row for row in rows if row.id in above | below]


async def _item_details(store: ReadStore, reader: SentReader, item: StoredItem) -> ItemDetails:
    attempts = await store.attempts_of(item.id)
    problem = None
    try:
        sent = await reader.sent(item.experiment, item.id, item.recipe_id, item.input, item.sample)
    except UsageError as exc:  # of a step: its template does not go with what was there
        recipe = await store.recipe(item.recipe_id)
        sent, problem = Sent({}, ENDPOINTS[recipe.endpoint]), str(exc)
    return ItemDetails(
        item, sent.endpoint, sent.request, tuple(attempts), None, sent.function, problem,
        await batch_of(store, item),
    )  # fmt: skip
