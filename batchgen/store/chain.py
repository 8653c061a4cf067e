"""The steps of chains, as the store knows them while it writes: which belong together, and what a
row was made of. Pure."""

from collections.abc import Iterable
from hashlib import blake2b
from typing import NamedTuple

from batchgen.items import Item
from batchgen.store.deltas import CounterDeltas

_HASH_BYTES = 8
_NO_HASH = bytes(_HASH_BYTES)


class StepRow(NamedTuple):
    """A step of a chain: an experiment. `plan_id` is that of its chain by now; `gathered_by` the
    experiment that gathers its rows."""

    first_id: int
    plan_id: int
    experiment_id: int
    number: int
    recipe_id: int
    runs_code: int
    gathered_by: int | None


class Steps:
    """Those of some chains."""

    def __init__(self, rows: Iterable[StepRow] = ()) -> None:
        self._by_experiment: dict[int, StepRow] = {}
        self._by_number: dict[tuple[int, int], StepRow] = {}
        self.add(rows)

    def add(self, rows: Iterable[StepRow]) -> None:
        for row in rows:
            self._by_experiment[row.experiment_id] = row
            self._by_number[row.first_id, row.number] = row

    def __contains__(self, experiment_id: int) -> bool:
        return experiment_id in self._by_experiment

    def plan_id(self, experiment_id: int) -> int | None:
        """None: the experiment has no steps."""
        step = self._by_experiment.get(experiment_id)
        return None if step is None else step.plan_id

    def of(self, experiment_id: int) -> StepRow:
        return self._by_experiment[experiment_id]

    def beside(self, experiment_id: int, number: int) -> StepRow:
        """Another step of its chain."""
        return self._by_number[self._by_experiment[experiment_id].first_id, number]

    def find_beside(self, experiment_id: int, number: int) -> StepRow | None:
        """The same; None: the chain has no such step yet."""
        return self._by_number.get((self._by_experiment[experiment_id].first_id, number))

    def count(
        self, deltas: CounterDeltas, experiment_id: int, children: int, passed_over: int, sign: int
    ) -> None:
        """One more row (`sign` -1: one less) is done of which so many were made."""
        step = self._by_experiment[experiment_id]
        if children == 0 and step.gathered_by is None:
            deltas.end_chains(experiment_id, sign)
        for number in range(step.number + 1, step.number + 1 + passed_over):
            deltas.pass_over(self.beside(experiment_id, number).experiment_id, sign)


def made_of_parent(passed_on: bytes | None, input_json: str) -> bytes:
    """The hash of what a row sees that was made of one whose result passes this on."""
    content = (passed_on or _NO_HASH) + input_json.encode()
    return blake2b(content, digest_size=_HASH_BYTES).digest()


def made_of_gathered(passed_on: Iterable[bytes | None]) -> bytes:
    """The same of a row that gathers results which pass these on."""
    return blake2b(b"".join(one or _NO_HASH for one in passed_on), digest_size=_HASH_BYTES).digest()


def made_of_item(item: Item) -> bytes | None:
    """Of a row as it was claimed; None: it is the user's."""
    if item.gathered:
        return made_of_gathered(chain[-1].passed_on for chain in item.gathered)
    return made_of_parent(item.links[-1].passed_on, item.input_json) if item.links else None
