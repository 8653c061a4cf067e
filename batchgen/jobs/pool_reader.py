"""The items of a data pool that can be enqueued: checked against the templates, and counted."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain as joined
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from batchgen.errors import InputError, Remedy, TemplateError
from batchgen.items import PoolItem, Recipe
from batchgen.parameters import PARAMETER_NAMES
from batchgen.pool import BadLine
from batchgen.prompts import LookAlike, Renderer
from batchgen.prompts.images import check_images
from batchgen.text.json_text import dump_json

if TYPE_CHECKING:  # what has no steps need not load them
    from batchgen.jobs.chain import ConfiguredChain
    from batchgen.jobs.follow import FollowResult

_NO_PARAMETERS_OF_ITEMS = {"n"}
_LOOKED_AT = 20  # entries of a pool, before anything is made for it

SkipInvalid = Callable[[BadLine], None]


class Enqueued(Struct):
    """What an enqueueing did, or has done so far: it read `read` items and made `new` rows of them,
    one for each of their `samples`; `asked_anew` rows that were there are asked with another
    recipe, and `kept` ones, of items that are not in the pool, are done with an earlier one.
    `skipped` were bad, `blank` had nothing in them; `empty`: in so many there was nothing for a
    variable that a template uses. `unused` are the variables that no template
    uses; `look_alikes` those of them that a template has in another form, which is text. `ids`
    are the items' numbers in the order of the pool, if they were asked for. `followed`: what came
    of rows that were done by other rules of their steps, of which `following` have been so far."""

    samples: int = 1
    read: int = 0
    new: int = 0
    skipped: int = 0
    blank: int = 0
    empty: Counter[str] = field(default_factory=Counter)
    asked_anew: int = 0
    kept: int = 0
    unused: set[str] = field(default_factory=set)
    look_alikes: set[LookAlike] = field(default_factory=set)
    ids: list[int] | None = None
    following: int = 0
    followed: "FollowResult | None" = None

    @property
    def so_far(self) -> str:
        """How far it is."""
        if self.following:
            return f"{self.following:,} done rows followed"
        return f"{self.read:,} items read, {self.new:,} rows new"

    def put_following(self, rows: int) -> None:
        self.following = rows

    @property
    def unused_words(self) -> str:
        """What was given and goes into no request, and why perhaps."""
        words = f"no template uses these variables: {', '.join(sorted(self.unused))}"
        if self.look_alikes:
            words += f"; {min(self.look_alikes).words}"
        elif found := sorted((self.unused & PARAMETER_NAMES) - _NO_PARAMETERS_OF_ITEMS):
            words += f". Is {found[0]} a parameter of the request? Then it belongs under params"
        return words

    @property
    def empty_words(self) -> str:
        """What goes into prompts and has nothing in it."""
        found = ", ".join(
            f"{name} in {n:,} item{'' if n == 1 else 's'}" for name, n in self.empty.most_common()
        )
        return f"empty, and used by a template: {found}; they are asked all the same"

    def to_json(self) -> dict[str, Any]:
        """As JSON; `samples` is there only if several answers are wanted of each item."""
        samples = {"samples": self.samples} if self.samples > 1 else {}
        counted = {"new": self.new, "skipped": self.skipped, "asked_anew": self.asked_anew}
        blank = {"blank": self.blank} if self.blank else {}
        empty = {"empty": dict(self.empty)} if self.empty else {}
        return {"read": self.read, **samples, **counted, **blank, **empty}


def checked_at_start(
    pool: Iterator[PoolItem | BadLine],
    recipe: Recipe,
    directory: Path,
    skip_invalid: SkipInvalid | None = None,
    chain: "ConfiguredChain | None" = None,
) -> Iterator[PoolItem | BadLine]:
    """The same pool. One that is wrong from its start, or all of whose prompts would be equal,
    raises here as it would later: before there is a database."""
    first = list(islice(pool, _LOOKED_AT))
    skip: SkipInvalid | None = None if skip_invalid is None else (lambda _: None)
    PoolReader(first, recipe, skip, Enqueued(), directory, chain).read_ahead()
    return joined(first, pool)


class PoolReader:
    """The good items of a pool; the bad ones raise, or go to `skip_invalid`. With a `chain`, whose
    first step has the `recipe`, an item must have what all its steps need."""

    def __init__(
        self,
        pool: Iterable[PoolItem | BadLine],
        recipe: Recipe,
        skip_invalid: SkipInvalid | None,
        progress: Enqueued,
        directory: Path,
        chain: "ConfiguredChain | None" = None,
    ) -> None:
        self._chain = chain
        self._pool = iter(pool)
        self._ahead: list[PoolItem] = []
        self._skip_invalid = skip_invalid
        self._progress = progress
        self._directory = directory
        first = None if chain is None else chain.renderers[0]
        self.renderer = first or Renderer(recipe)  # which learns of the items that are checked
        renderers = (self.renderer,) if chain is None else chain.renderers
        self._in_templates = frozenset[str]().union(*(one.variables for one in renderers if one))
        # The variables of an item that was looked at, and of one whose names alone say it is good.
        self._noted: tuple[str, ...] | None = None
        self._passed: tuple[str, ...] | None = None

    def read_ahead(self) -> None:
        """Find the first good item, so that a pool that is wrong from its start raises before an
        experiment is bound to a recipe that cannot work, or its rows are asked with that."""
        self._ahead += islice(self._good_items(), 1)

    def __iter__(self) -> Iterator[PoolItem]:
        while self._ahead:
            yield self._ahead.pop(0)
        yield from self._good_items()

    def _good_items(self) -> Iterator[PoolItem]:
        for entry in self._pool:
            if isinstance(entry, BadLine):
                self._take_bad(entry)
                continue
            given, names = entry.input.given, tuple(entry.input.given)
            is_as_passed = names == self._passed and entry.input.user_variables is given
            if is_as_passed or self._is_good(entry, names):
                self._progress.read += 1
                self._count_empty(entry.input.user_variables)
                yield entry

    def _count_empty(self, variables: Mapping[str, Any]) -> None:
        for name in self._in_templates:
            value = variables.get(name, name)
            if not value and (value is None or value == ""):
                self._progress.empty[name] += 1

    def _is_good(self, item: PoolItem, names: tuple[str, ...]) -> bool:
        """Of items of variables alone that have the same ones, mostly the first is looked at."""
        if bad := self._problem_of(item):
            self.refuse(bad)
            return False
        self._note_unused(item, names)
        suits = self.renderer.suits if self._chain is None else self._chain.suits
        is_enough = item.input.user_variables is item.input.given and suits({*names})
        self._passed = names if is_enough else None
        return True

    def _take_bad(self, bad: BadLine) -> None:
        if bad.blank:
            self._progress.blank += 1
        else:
            self.refuse(bad)

    def _note_unused(self, item: PoolItem, names: tuple[str, ...]) -> None:
        """Raises InputError when all items would be asked the same."""
        if item.input.user_variables is item.input.given and names == self._noted:
            return
        self._noted = names
        unused = of_first = self.renderer.unused_variables(item.input)
        if self._chain is not None:
            unused = self._chain.unused(of_first)
        if unused <= self._progress.unused:
            return
        look_alikes = self.renderer.look_alikes(item.input)
        if unused == of_first and self.renderer.uses_nothing_of(item.input):
            raise InputError(f"{item.where}: {_all_alike(sorted(unused), look_alikes)}")
        self._progress.unused |= unused
        self._progress.look_alikes.update(one for one in look_alikes if one.variable in unused)

    def refuse(self, bad: BadLine, remedy: Remedy | None = None, **facts: object) -> None:
        """Give a bad line to `skip_invalid`, or raise InputError with the remedy."""
        if self._skip_invalid is None or bad.fatal:
            raise InputError(f"{bad.where}: {bad.problem}", remedy, **facts)
        self._progress.skipped += 1
        self._skip_invalid(bad)

    def refuse_after_all(self, bad: BadLine, remedy: Remedy | None = None, **facts: object) -> None:
        """The same of an item that was read already."""
        self._progress.read -= 1
        self.refuse(bad, remedy, **facts)

    def _problem_of(self, item: PoolItem) -> BadLine | None:
        try:
            checked = self.renderer.check if self._chain is None else self._chain.check_item
            checked(item.input, item.where)
            if messages := self.renderer.messages_given(item.input):
                check_images(messages, self._directory)
        except InputError as exc:
            problem = str(exc).removeprefix(f"{item.where}: ")
            return BadLine(item.where, problem, dump_json(item.input.given))
        except TemplateError as exc:
            problem = str(exc).removeprefix(f"{item.where}: ")
            if self._skip_invalid is None:
                raise
            return BadLine(item.where, problem, dump_json(item.input.given))
        return None


def _all_alike(names: list[str], look_alikes: list[LookAlike]) -> str:
    problem = (
        f"no variable of the item ({', '.join(names)}) goes into any template, so all prompts "
        "would be equal"
    )
    if look_alikes:
        return f"{problem}: {look_alikes[0].words}, or let the file's name end in .j2 for Jinja2"
    return (
        f"{problem}; write {{{names[0]}}} in the template. For several answers to one prompt, ask "
        "for samples"
    )
