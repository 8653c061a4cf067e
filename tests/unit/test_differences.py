"""What is different between two texts, and between two values."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.text.differences import Kind, text_difference, value_difference

FAR = float("inf")


def marked(old: str, new: str) -> str:
    """As one line: what is gone in [-...-], what is new in {+...+}."""
    marks = {Kind.SAME: "{}", Kind.GONE: "[-{}-]", Kind.NEW: "{{+{}+}}"}
    pieces = text_difference(old, new, FAR).pieces
    return "".join(marks[piece.kind].format(piece.text) for piece in pieces)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("a b c", "a b c", "a b c"),
        ("the red cat", "the blue cat", "the [-red-]{+blue+} cat"),
        ("", "new", "{+new+}"),
        ("old", "", "[-old-]"),
        ("One. Two. Three.", "One. 2. Three.", "One. [-Two-]{+2+}. Three."),
        ("今天天气很好。", "今天天气不好。", "今天天气[-很-]{+不+}好。"),
        ("我喜欢 Python。", "我喜欢 Rust。", "我喜欢 [-Python-]{+Rust+}。"),
        ("ありがとう", "ありがたい", "ありが[-とう-]{+たい+}"),
        ("one two, three", "four five, six", "[-one two, three-]{+four five, six+}"),
        ("a\nb\nc\n", "a\nc\n", "a\n[-b\n-]c\n"),
    ],
)
def test_words_and_characters_that_are_different(old: str, new: str, expected: str) -> None:
    assert marked(old, new) == expected


@given(st.text(alphabet="ab中 .\n", max_size=60), st.text(alphabet="ab中 .\n", max_size=60))
def test_both_texts_are_whole_in_the_pieces(old: str, new: str) -> None:
    pieces = text_difference(old, new, FAR).pieces
    assert "".join(one.text for one in pieces if one.kind is not Kind.NEW) == old
    assert "".join(one.text for one in pieces if one.kind is not Kind.GONE) == new


def test_after_the_deadline_a_part_is_taken_for_changed_as_a_whole() -> None:
    found = text_difference("a b c. d", "a x c. d", time.monotonic() - 1)
    assert found.is_rough
    assert [piece.kind for piece in found.pieces] == [Kind.GONE, Kind.NEW, Kind.SAME]


def test_very_long_texts_that_have_nothing_in_common_take_a_moment() -> None:
    old, new = "a b " * 50_000, "c d " * 50_000
    begun_s = time.monotonic()
    found = text_difference(old, new, begun_s + 2)
    assert found.is_rough
    assert time.monotonic() - begun_s < 10


@pytest.mark.parametrize(
    ("old", "new", "places"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"a": 2}, [("a", "1", "2")]),
        ({"a": "x"}, {"b": "x"}, [("a", "x", None), ("b", None, "x")]),
        ({"a": [1, 2]}, {"a": [1, 3, 4]}, [("a[1]", "2", "3"), ("a[2]", None, "4")]),
        ({"a": {"b c": 1}}, {"a": {"b c": 2}}, [('a["b c"]', "1", "2")]),
        ({"a": "1"}, {"a": 1}, [("a", '"1"', "1")]),
        ([], {}, [("", "[]", "{}")]),
        ({"a": None}, {}, [("a", "null", None)]),
        ("x", "y", [("", "x", "y")]),
        ({"a": "中"}, {"a": "文"}, [("a", "中", "文")]),
    ],
)
def test_places_that_are_different(old: Any, new: Any, places: list[Any]) -> None:
    found = value_difference(old, new)
    assert [(one.path, one.gone, one.new) for one in found.places] == places


def test_what_is_the_same_is_counted_and_what_is_too_much_told() -> None:
    found = value_difference({"same": 1, "list": [0] * 3000}, {"same": 1, "list": [1] * 3000})
    assert (found.same, len(found.places), found.left_out) == (1, 2000, 1000)


def test_a_value_nested_very_deep_is_compared_as_text_in_the_end() -> None:
    old: Any = 1
    new: Any = 2
    for _ in range(200):
        old, new = [old], [new]
    (place,) = value_difference(old, new).places
    assert place.path == "[0]" * 50
