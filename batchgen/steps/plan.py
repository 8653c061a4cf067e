"""The rules of a chain, as they are stored: by content, as recipes are."""

from functools import cached_property
from typing import Literal

from msgspec import Struct, to_builtins
from msgspec.json import decode

from batchgen.text.json_text import canonical_json
from batchgen.where import Path, Where

ITEM_NAMES = ("id", "input", "metadata")
"""What conditions and paths may name besides the steps: of the item, as in the export."""
RESULT_NAMES = ("parsed", "response")
"""What a step's `value` may name: of its own answer."""
NO_LIST = "has a row for each of"
"""What is said of a row in which `each` finds no list."""


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

    @property
    def names(self) -> tuple[str, ...]:
        """What those after it may name because of it: itself first."""
        element = (self.each[0],) if self.each else ()
        return (self.name, *element, *((self.gather,) if self.gather else ()))


class Conditions(Struct, frozen=True):
    """What of a rule is an expression, compiled."""

    value: Path
    when: Where | None
    each: Path | None


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

    def number_of(self, name: str) -> int:
        """Raises KeyError for a name that no step has."""
        return self._numbers[name]

    def gathered_by(self, number: int) -> int | None:
        """The step that gathers the rows of step `number`; None: there is none."""
        after = number + 1
        is_gathered = after < len(self.steps) and self.steps[after].gather is not None
        return after if is_gathered else None

    def gathering_before(self, number: int) -> int:
        """The last gathering step before step `number`; -1: there is none."""
        return next((n for n in range(number - 1, -1, -1) if self.steps[n].gather), -1)

    @property
    def names(self) -> frozenset[str]:
        """All that templates may name because of the steps; items may have no variable of them."""
        return frozenset(name for rule in self.steps for name in rule.names)

    def names_before(self, number: int) -> tuple[str, ...]:
        """What conditions and paths of step `number` may name, besides the item's: the steps before
        it, the elements that these are made for, and the lists that they have gathered."""
        return self._names_before[number]

    def names_in(self, number: int) -> tuple[str, ...]:
        """What templates of step `number` may name, besides the item's variables: its own element,
        or list, too."""
        own = self.steps[number].names[1:]
        return (*self.names_before(number), *own)

    def looks_at_values(self, number: int) -> bool:
        """Whether what is made of a row of step `number` depends on values: its own, or those of
        the item or of the steps before."""
        return self._looks_at_values[number]

    def conditions(self, number: int) -> Conditions:
        """Raises UsageError, after `when: `, `value: ` or `each: `, for one that cannot be read."""
        found = self._conditions.get(number)
        if found is None:
            found = self._conditions[number] = self._compiled(number)
        return found

    def _compiled(self, number: int) -> Conditions:
        rule, names = self.steps[number], (*ITEM_NAMES, *self.names_before(number))
        return Conditions(
            Path(rule.value, RESULT_NAMES, label="value: "),
            None if rule.when is None else Where(rule.when, names, label="when: "),
            None if rule.each is None else Path(rule.each[1], names, label="each: "),
        )

    @cached_property
    def _names_before(self) -> list[tuple[str, ...]]:
        """By number; the last ones are those in a line of the export."""
        found: list[tuple[str, ...]] = [()]
        for rule in self.steps:
            found.append(tuple(dict.fromkeys((*found[-1], *rule.names))))
        return found

    @cached_property
    def _looks_at_values(self) -> list[bool]:
        """By number. No condition is looked at beyond a step without one."""
        return [
            after.gather is None and (after.when is not None or after.each is not None)
            for after in self.steps[1:]
        ] + [False]

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {rule.name: number for number, rule in enumerate(self.steps)}

    @cached_property
    def _conditions(self) -> dict[int, Conditions]:
        return {}
