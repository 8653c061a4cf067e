"""What the items of a chunk of a pool are: told from those that are known. Nothing is written."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from msgspec import Struct

from batchgen.items import NewItem
from batchgen.store.keys import key_of_copy, key_of_sample
from batchgen.store.values import Intake
from batchgen.text.json_text import same_content

_FIRST_UNNUMBERED = 1 << 62  # above all numbers of rows; those that are new stand in their order


class KnownKeys(Protocol):
    """What a pass over a pool must know of the rows that there are, its own included."""

    def look_up(self, keys: Sequence[bytes]) -> dict[bytes, int]:
        """Those of the keys that are known, with their items."""

    def count_met(self, item_ids: Iterable[int]) -> dict[int, int]:
        """How many copies the pass has met of each of the items, as far as was noted."""


class NewRow(Struct, gc=False):
    key: bytes
    item: NewItem
    sample: int | None = None
    sample_of: int | None = None


class Told(NamedTuple):
    """What the items of a chunk are: the number of each; the rows that are new; and how often the
    pass has met each content by now, by the number of its item."""

    ids: list[int]
    new: list[NewRow]
    met: dict[int, int]

    def numbered(self, first: int) -> "Told":
        """Once the new rows have the numbers from `first` on."""
        back = _FIRST_UNNUMBERED - first
        ids = [id_ if id_ < _FIRST_UNNUMBERED else id_ - back for id_ in self.ids]
        for row in self.new if self.new and self.new[0].sample is not None else ():
            if row.sample_of is not None and row.sample_of >= _FIRST_UNNUMBERED:
                row.sample_of -= back
        met = self.met and {
            id_ if id_ < _FIRST_UNNUMBERED else id_ - back: n for id_, n in self.met.items()
        }
        return Told(ids, self.new, met)


def first_conflict(
    items: Sequence[NewItem], known: Mapping[bytes, int],
    changed: Callable[[Mapping[int, NewItem]], set[int]],
) -> int | None:  # fmt: skip
    """The place of the first item whose id belongs to one with other content. `changed` tells the
    places of those that have not the content that is stored."""
    named = [(place, item) for place, item in enumerate(items) if item.custom_id is not None]
    if not named:
        return None
    stored = {place: item for place, item in named if item.key in known}
    others = changed(stored) if stored else ()
    first: dict[bytes, NewItem] = {}
    for place, item in named:
        before = first.setdefault(item.key, item)
        if place in others or not same_content(before.input_json, item.input_json):
            return place
    return None


def tell(
    keys_known: KnownKeys, intake: Intake, items: Sequence[NewItem], known: dict[bytes, int]
) -> Told:
    """`known` has those of the items' keys that are. What is new has no numbers yet."""
    first = _FIRST_UNNUMBERED
    own = {item.key for item in items}
    if intake.samples == 1 and len(own) == len(items):
        if not known:
            ids = list(range(first, first + len(items)))  # as in most pools that are new
            return Told(ids, [NewRow(item.key, item) for item in items], {})
        if own and own <= known.keys() and (told := _all_known(keys_known, intake, items, known)):
            return told
    copies = _copies_before(keys_known, intake, items, known)
    keys = _own_keys(items, copies)
    others = [key for key, item in zip(keys, items, strict=True) if key is not item.key]
    samples = range(2, intake.samples + 1)
    others += [key_of_sample(key, sample) for sample in samples for key in keys]
    numbers = known | keys_known.look_up(others) if others else known.copy()
    ids, new = list[int](), list[NewRow]()
    for key, item in zip(keys, items, strict=True):
        number = numbers.get(key)
        if number is None:
            number = numbers[key] = first + len(new)
            new.append(NewRow(key, item, 1 if samples else None))
        ids.append(number)
        for sample in samples:
            sample_key = key_of_sample(key, sample)
            if numbers.setdefault(sample_key, first + len(new)) == first + len(new):
                new.append(NewRow(sample_key, item, sample, number))
    by_item = zip(map(numbers.__getitem__, copies), copies.values(), strict=True)
    return Told(ids, new, {id_: n for id_, n in by_item if n > 1 or id_ < intake.first})


def _all_known(
    keys_known: KnownKeys, intake: Intake, items: Sequence[NewItem], known: Mapping[bytes, int]
) -> Told | None:
    """What the items are, if all are known, and this pass meets each for the first time, as it does
    mostly then."""
    ids = [known[item.key] for item in items]
    of_content = [id_ for id_, item in zip(ids, items, strict=True) if item.custom_id is None]
    if max(ids) >= intake.first or keys_known.count_met(of_content):
        return None
    return Told(ids, [], dict.fromkeys(of_content, 1))


def _copies_before(
    keys_known: KnownKeys, intake: Intake, items: Sequence[NewItem], known: Mapping[bytes, int]
) -> dict[bytes, int]:
    """How often this pass has met the contents that it has met, by their keys. What it has made,
    once at least."""
    if not known:
        return {}
    contents = {known[item.key]: item.key for item in items
                if item.custom_id is None and item.key in known}  # fmt: skip
    made = {id_: 1 for id_ in contents if id_ >= intake.first}
    met = made | keys_known.count_met(contents)
    return {contents[id_]: n for id_, n in met.items()}


def _own_keys(items: Sequence[NewItem], copies: dict[bytes, int]) -> list[bytes]:
    """The key of each; of copies of a content, which are counted, each has one of its own."""
    keys = [item.key for item in items]
    if not copies and len(set(keys)) == len(keys):  # as in a pool that is known
        copies |= dict.fromkeys([item.key for item in items if item.custom_id is None], 1)
        return keys
    for place, item in enumerate(items):
        if item.custom_id is None:
            copies[item.key] = number = copies.get(item.key, 0) + 1
            if number > 1:
                keys[place] = key_of_copy(item.key, number)
    return keys
