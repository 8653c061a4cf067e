"""Answers of a step that are parsed again: what their parser sees of the chain, and what follows
them by their new values."""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from batchgen.errors import ParseError
from batchgen.items import Done, Fail, Reason
from batchgen.prompts.chain_row import ChainRow
from batchgen.steps import Child, Followed
from batchgen.store import Chain, EndedAnswer, MadeOf, Store


class ReparsedChains:
    """Those of one step, a page at a time. `made` and `stale` are the rows after it that are new,
    and that were made of other values."""

    def __init__(self, store: Store, chain: Chain) -> None:
        self.made = self.stale = 0
        self._store = store
        self._chain = chain
        self._numbers = {step.experiment_id: step.number for step in chain.steps}
        self._rows: dict[int, ChainRow] = {}

    async def read(self, page: Sequence[EndedAnswer]) -> None:
        """Before they are parsed."""
        found = await self._store.links_of([one.item_id for one in page])
        self._rows = {one.item_id: self._row(one, found.get(one.item_id)) for one in page}

    def _row(self, answer: EndedAnswer, made_of: MadeOf | None) -> ChainRow:
        found = made_of or MadeOf(())
        return ChainRow.of(
            self._chain, self._numbers[answer.experiment_id], answer.item_id, answer.input,
            found.links, found.gathered,
        )  # fmt: skip

    def given(self, answer: EndedAnswer) -> Mapping[str, Any]:
        """The item and the values of the steps before, for a parser that takes them."""
        return self._rows[answer.item_id].input.given

    async def followed(self, was: EndedAnswer, now: Done | Fail) -> Done | Fail:
        """The same, with what follows it; it fails where `each` finds no list."""
        if isinstance(now, Fail):
            return now
        parsed = now.parsed_json
        if was.is_vector:
            parsed = await self._store.answer_vector(was.attempt_seq)
        try:
            followed = self._rows[was.item_id].followed(parsed, was.response)
        except ParseError as exc:
            return Fail(Reason.PARSE, str(exc))
        return replace(now, followed=followed)

    def count(self, was: EndedAnswer, now: Done | Fail, *, is_same: bool) -> None:
        if is_same:
            return
        before = _seen(self._before(was))
        after = _seen(now.followed if isinstance(now, Done) else None)
        self.made += len(after.keys() - before.keys())
        self.stale += sum(after.get(place) != seen for place, seen in before.items())

    def _before(self, was: EndedAnswer) -> Followed | None:
        if was.reason is not None:
            return None
        try:
            return self._rows[was.item_id].followed(was.parsed, was.response)
        except ParseError:
            return None


def _seen(followed: Followed | None) -> dict[tuple[int, int], tuple[bytes, Child]]:
    """What each row after it sees of it, by its place."""
    if followed is None:
        return {}
    return {
        (child.number, child.element): (followed.passed_on, child) for child in followed.children
    }
