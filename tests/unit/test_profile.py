"""What a sample of values looks like, field by field."""

import json
from typing import Any

import pytest

from batchgen.jobs import profile
from batchgen.jobs.profile import FieldProfile, Spread, profile_of
from batchgen.where import Where, literal_text, path_text

HOSTILE = [
    'it\'s "so"',
    "a\\b\n\tc",
    "</script>",
    "\u202eevil",
    "\ud800",
    "😀 好",
    "",
    "\x00",
    "{x}",
]
KEYS = ["label", "a b", "in", "ﬁeld", "名", "", 'q"uo\\te', "0", "\u202e", "__class__", "\ud800"]


def field(found: profile.Profile, *keys: str) -> FieldProfile:
    (one,) = [one for one in found.fields if one.keys == keys]
    return one


def test_fields_have_types_shares_and_ranges() -> None:
    values: list[Any] = [
        {"label": "a", "score": 1, "by": {"name": "Ann"}, "tags": ["x"]},
        {"label": "a", "score": 1.0, "by": {"name": None}, "tags": []},
        {"label": "b", "score": 2.5, "by": {}, "ok": True},
        {"label": None, "score": "high"},
    ]
    found = profile_of(values)
    assert (found.rows, found.duplicates, found.is_cut) == (4, 0, False)
    assert [".".join(one.keys) for one in found.fields] == [
        "label", "score", "by", "by.name", "tags", "ok",
    ]  # fmt: skip
    label = field(found, "label")
    assert (label.missing, label.nulls, label.distinct, label.duplicates) == (0, 1, 2, 1)
    assert label.types == (("text", 3),)
    assert label.lengths == Spread(1, 1, 1)
    assert [(one.shown, one.n, one.where) for one in label.top] == [
        ("a", 2, 'parsed.label == "a"'), ("b", 1, 'parsed.label == "b"'),
    ]  # fmt: skip
    score = field(found, "score")
    assert score.types == (("number", 3), ("text", 1))
    assert score.numbers == Spread(1, 1, 2.5)
    assert score.top[0].n == 2  # 1 is 1.0
    name = field(found, "by", "name")
    assert (name.missing, name.nulls, name.path) == (2, 1, "parsed.by.name")
    assert field(found, "tags").elements == Spread(0, 0.5, 1)
    assert {one.where for one in field(found, "tags").top} == {
        'parsed.tags == ["x"]', "parsed.tags == []",
    }  # fmt: skip
    assert field(found, "ok").types == (("boolean", 1),)


def test_a_value_that_is_no_object_is_a_field_itself() -> None:
    found = profile_of(["yes", "no", "yes", {"a": 1}])
    assert found.duplicates == 1
    own = field(found)
    assert own.path == "parsed"
    assert own.types == (("text", 3), ("object", 1))
    assert own.top[0].where == 'parsed == "yes"'


def test_values_that_are_nearly_all_different_have_no_most_frequent_one() -> None:
    found = profile_of([f"text {n}" for n in range(20)] + ["text 3"])
    assert [(one.shown, one.n) for one in field(found).top] == [("text 3", 2)]
    assert (field(found).distinct, field(found).duplicates) == (20, 1)


def test_nothing_is_a_profile_too() -> None:
    assert profile_of([]) == profile.Profile(0, 0, ())


def holds(where: Where, value: dict[str, Any]) -> bool:
    return where.holds(lambda _: value)


@pytest.mark.parametrize(
    "value",
    [*HOSTILE, 0, -1, 1.5, -0.25, 1e300, 10**400, True, False, None, [], [1, "a", [None, -2.5]]],
    ids=repr,
)
def test_a_condition_finds_the_value_again_and_no_other(value: Any) -> None:
    for key in KEYS:
        where = Where(f"{path_text('parsed', ['in', key])} == {literal_text(value)}")
        assert holds(where, {"in": {key: value}})
        assert not holds(where, {"in": {key: "another"}})
        assert where.text.isprintable()


@pytest.mark.parametrize("value", [{}, [{"a": 1}], float("inf"), float("nan"), ["a", {}]])
def test_what_a_condition_cannot_have_has_no_literal(value: Any) -> None:
    assert literal_text(value) is None


def test_a_long_value_has_its_beginning_and_no_condition() -> None:
    long = "x" * 100_000
    (top,) = field(profile_of([long, long])).top
    assert top.n == 2
    assert len(top.shown) < 200
    assert top.where is None


def test_memory_is_bounded_whatever_the_values_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "_MOST_DISTINCT", 5)
    monkeypatch.setattr(profile, "_MOST_FIELDS", 3)
    monkeypatch.setattr(profile, "_MOST_MEASURED", 4)
    deep: Any = 1
    for _ in range(50):
        deep = {"in": deep}
    found = profile_of([*({f"f{n}": n, "n": n} for n in range(9)), deep])
    assert found.is_cut
    assert len(found.fields) == 3
    own = field(found, "n")
    assert (own.distinct, own.is_cut) == (5, True)
    assert own.numbers == Spread(0, 1.5, 8)  # the median is of the first ones


def test_a_number_that_no_float_can_have_is_a_value_all_the_same() -> None:
    found = field(profile_of([json.loads("1" + "0" * 400), 2]))
    assert (found.distinct, found.numbers) == (2, Spread(2, 2, 2))


def test_the_median_of_numbers_near_the_largest_is_one() -> None:
    assert field(profile_of([1e308, 1e308])).numbers == Spread(1e308, 1e308, 1e308)
    assert field(profile_of([-1e308, 1e308])).numbers == Spread(-1e308, 0.0, 1e308)
