"""The rules of a chain, as they are stored: by content, as recipes are."""

from functools import cached_property
from typing import Literal

from msgspec import Struct, to_builtins
from msgspec.json import decode

from batchgen.text.json_text import canonical_json


class StepRule(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How rows of a step come to be, and what they are called by.

    `value` is a path into {parsed, response}. Where `when` does not hold the chain ends there or,
    with `otherwise: skip`, goes on with the step after. `each` is a name and the path of a list: a
    row for each of its elements, known by that name. `gather`: one row for all rows of the step
    before, known as the list of that name. `conversation`: its messages begin with those of its
    parent, and the answer. `runs_code`: it is the user's function, and makes no call.
    """

    name: str
    value: str = "parsed"
    when: str | None = None
    otherwise: Literal["end", "skip"] = "end"
    each: tuple[str, str] | None = None
    gather: str | None = None
    conversation: bool = False
    runs_code: bool = False


class Plan(Struct, frozen=True, dict=True):
    """The steps of a chain, and whose value is the line's `parsed`: the first of `result` that is
    there."""

    steps: tuple[StepRule, ...]
    result: tuple[str, ...]

    def to_json(self) -> str:
        """The stored form; `digest` is its hash."""
        return canonical_json(to_builtins(self))

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        return decode(text, type=cls)

    def digest(self) -> bytes:
        import hashlib  # here: OpenSSL takes a while to load, and who only reads has no use for it

        return hashlib.sha256(self.to_json().encode()).digest()

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {rule.name: number for number, rule in enumerate(self.steps)}

    def number_of(self, name: str) -> int:
        """Raises KeyError for a name that no step has."""
        return self._numbers[name]

    def gathered_by(self, number: int) -> int | None:
        """The step that gathers the rows of step `number`; None: there is none."""
        after = number + 1
        is_gathered = after < len(self.steps) and self.steps[after].gather is not None
        return after if is_gathered else None
