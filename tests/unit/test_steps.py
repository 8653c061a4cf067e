"""The rules of a chain: what follows a row that is done, and what each row sees."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from batchgen.errors import ParseError, UsageError
from batchgen.steps import Child, Followed, Link, Lists, Plan, StepRule, chain_values, follow
from batchgen.store.chain import made_of_parent
from batchgen.where import Path, Where

ITEM = {"id": "a-1", "input": {"topic": "tea", "words": ["x"]}, "metadata": {"lang": "en"}}
REVISED = Plan(
    (
        StepRule(name="draft", value="parsed[0]"),
        StepRule(name="critique"),
        StepRule(name="revise", when="critique.score < 8", value="parsed[0]"),
    ),
    ("revise", "draft"),
)
JUDGED = Plan(
    (
        StepRule(name="questions"),
        StepRule(name="answer", each=("question", "questions"), value="response"),
        StepRule(name="judge", when="answer != 'none'", otherwise="end"),
        StepRule(name="summary", gather="judged"),
        StepRule(name="titles", value="parsed.titles"),
        StepRule(name="title", each=("one", "titles")),
        StepRule(name="best", gather="found"),
    ),
    ("best",),
)


def link(number: int, parsed: Any = None, **rest: Any) -> Link:
    """A row that is done, of step `number`; `row` tells it from others of this step."""
    passed_on = rest.pop("passed_on", bytes([number] * 8))
    item_id = number + 1 + 100 * rest.pop("row", 0)
    return Link(item_id, 1, number, 1, number + 1, rest.pop("input_json", "{}"),
                json.dumps(parsed), rest.pop("response", "raw"), passed_on, **rest)  # fmt: skip


def followed(
    plan: Plan, number: int, parsed: Any, links: tuple[Link, ...] = (), **rest: Any
) -> Any:
    return follow_row(plan, number, links, json.dumps(parsed), "raw", **rest)


def follow_row(
    plan: Plan, number: int, links: tuple[Link, ...], parsed_json: str | None,
    response: str | None, *, input_json: str = "{}", gathered: Any = (),
) -> Followed:  # fmt: skip
    """As a worker does."""
    seen = chain_values(plan, number, links, gathered) | json.loads(input_json)
    return follow(plan, 7, number, links, ITEM, seen, parsed_json, response,
                  input_json=input_json, gathered=gathered)  # fmt: skip


def test_a_step_follows_the_one_before() -> None:
    found = followed(REVISED, 0, ["Tea is", "more"])
    assert found == Followed(7, (Child(1),), 0, found.passed_on)
    assert len(found.passed_on) == 8


@pytest.mark.parametrize(("score", "children", "passed_over"), [(6, (Child(2),), 0), (8, (), 1)])
def test_when_says_whether_the_chain_goes_on(
    score: int, children: tuple[Child, ...], passed_over: int
) -> None:
    found = followed(REVISED, 1, {"score": score}, (link(0, ["d"]),))
    assert (found.children, found.passed_over) == (children, passed_over)


@pytest.mark.parametrize(
    ("when", "otherwise", "children", "passed_over"),
    [
        ("first == 2", "end", (), 1),
        ("first == 2", "skip", (Child(2),), 1),
        ("input.topic == 'tea' and metadata.lang == 'en' and id == 'a-1'", "end", (Child(1),), 0),
    ],
)
def test_a_step_is_passed_over_or_ends_the_chain(
    when: str, otherwise: Any, children: tuple[Child, ...], passed_over: int
) -> None:
    steps = (
        StepRule(name="first"),
        StepRule(name="second", when=when, otherwise=otherwise),
        StepRule(name="third", when="second == null or first"),
    )
    found = followed(Plan(steps, ("third",)), 0, 1)
    assert (found.children, found.passed_over) == (children, passed_over)


def test_all_steps_after_may_be_passed_over() -> None:
    steps = [StepRule(name="a")]
    steps += [StepRule(name=name, when="a", otherwise="skip") for name in ("b", "c")]
    found = followed(Plan(tuple(steps), ("a",)), 0, "")
    assert (found.children, found.passed_over) == ((), 2)


def test_each_makes_a_row_for_each_element() -> None:
    found = followed(JUDGED, 0, ["why?", {"é": 1}])
    assert found.children == (
        Child(1, 0, '{"question": "why?"}'),
        Child(1, 1, '{"question": {"é": 1}}'),
    )
    assert followed(JUDGED, 0, []).children == ()


@pytest.mark.parametrize(
    ("parsed", "kind"),
    [("why?", "a text"), (None, "missing or null"), ({}, "an object"), (3, "a number")],
)
def test_each_of_what_is_no_list_is_the_parents_fault(parsed: Any, kind: str) -> None:
    with pytest.raises(ParseError, match="step answer has a row for each of questions, which is "):
        followed(JUDGED, 0, parsed)
    with pytest.raises(ParseError, match=kind):
        followed(JUDGED, 0, parsed)


def test_nothing_is_made_for_a_gathering_step() -> None:
    links = (link(0, ["why?"]), link(1, input_json='{"question": "why?"}'))
    assert followed(JUDGED, 2, {"score": 1}, links).children == ()
    assert JUDGED.gathered_by(2) == 3
    assert JUDGED.gathered_by(0) is None


def test_a_row_sees_the_steps_and_the_elements_before_it() -> None:
    links = (link(0, ["why?"]), link(1, input_json='{"question": "why?"}', response="so"))
    assert chain_values(JUDGED, 2, links) == {
        "questions": ["why?"], "answer": "so", "question": "why?",
    }  # fmt: skip


def test_a_long_list_is_read_once_for_all_of_its_elements() -> None:
    lists, questions = Lists(), [f"why {n}?" for n in range(200)]

    def seen(list_of: list[str], row: int = 0) -> Any:
        links = (link(0, list_of), link(1, row=row, input_json=f'{{"question": "why {row}?"}}'))
        return chain_values(JUDGED, 2, links, lists=lists)

    first, second = seen(questions), seen(questions, row=1)
    assert (first["questions"], first["question"]) == (questions, "why 0?")
    assert (second["questions"], second["question"]) == (questions, "why 1?")
    assert second["questions"] is first["questions"]
    assert seen([*questions, "more?"])["questions"] == [*questions, "more?"]
    assert seen(questions)["questions"] == questions


def test_a_step_that_was_passed_over_is_null() -> None:
    assert chain_values(REVISED, 2, (link(0, ["d"]),)) == {"draft": "d", "critique": None}


def gathered_once() -> tuple[tuple[Link, ...], ...]:
    def chain(question: str, score: int) -> tuple[Link, ...]:
        own = json.dumps({"question": question})
        asked = link(1, row=score, input_json=own, response=f"{question}!")
        judged = link(2, {"score": score}, row=score, passed_on=bytes([score] * 8))
        return link(0, ["q", "r"]), asked, judged

    return chain("q", 3), chain("r", 5)


LISTS = {
    "questions": [["q", "r"], ["q", "r"]], "question": ["q", "r"], "answer": ["q!", "r!"],
    "judge": [{"score": 3}, {"score": 5}], "judged": [{"score": 3}, {"score": 5}],
}  # fmt: skip


def test_a_list_is_parsed_once_for_all_its_elements() -> None:
    found = chain_values(JUDGED, 3, (link(0, ["q", "r"]),), gathered_once())
    assert found["questions"][0] is found["questions"][1]


def test_a_gathering_row_and_those_after_it_see_lists() -> None:
    root = link(0, ["q", "r"])
    assert chain_values(JUDGED, 3, (root,), gathered_once()) == LISTS
    summary = link(3, "in short", gathered=gathered_once())
    assert chain_values(JUDGED, 4, (root, summary)) == {**LISTS, "summary": "in short"}


def test_a_second_gathering_has_lists_of_what_lies_between() -> None:
    root, summary = link(0, ["q", "r"]), link(3, "in short", gathered=gathered_once())
    shared = (root, summary, link(4, {"titles": ["x", "y"]}))
    gathered = tuple(
        (*shared, link(5, name.upper(), row=row, input_json=json.dumps({"one": name})))
        for row, name in enumerate("xy")
    )
    assert chain_values(JUDGED, 6, (root, summary), gathered) == {
        **LISTS, "summary": "in short", "titles": [["x", "y"], ["x", "y"]], "one": ["x", "y"],
        "title": ["X", "Y"], "found": ["X", "Y"],
    }  # fmt: skip


def test_the_root_of_a_gathering_may_have_failed() -> None:
    root = Link(1, 1, 0, 1, 0, "{}")
    assert chain_values(JUDGED, 3, (root,), gathered_once()) == LISTS


def hash_of(plan: Plan, number: int, parsed: Any, *links: Link, **rest: Any) -> bytes:
    found = followed(plan, number, parsed, links, **rest)
    assert isinstance(found, Followed)
    return found.passed_on


def test_what_is_passed_on_is_the_same_as_long_as_what_is_seen_is() -> None:
    before = link(0, ["d"])
    same = hash_of(REVISED, 0, ["d", "more"])
    assert same == hash_of(REVISED, 0, ["d"])
    assert same != hash_of(REVISED, 0, ["e"])
    assert hash_of(REVISED, 1, {"a": 1, "b": 2}, before) == hash_of(
        REVISED, 1, {"b": 2, "a": 1}, before
    )
    other = replace(before, passed_on=b"another!")
    assert hash_of(REVISED, 1, {"a": 1}, before) != hash_of(REVISED, 1, {"a": 1}, other)
    elements = [
        hash_of(JUDGED, 1, "same", before, input_json=json.dumps({"question": one})) for one in "qr"
    ]
    assert len({*elements}) == 2


def test_the_hashes_that_are_stored_stay_what_they_are() -> None:
    before, question = link(0, ["d"]), '{"question": "q"}'
    hashes = (
        hash_of(REVISED, 0, ["d"]),
        hash_of(JUDGED, 1, {"b": "ü", "a": 1}, before, input_json=question),
        hash_of(JUDGED, 3, "s", link(0), gathered=gathered_once()),
    )
    assert [one.hex() for one in hashes] == [
        "4a9f63e657d72162", "447dbf2def63f4df", "0141f5dbea2503f8",
    ]  # fmt: skip
    assert made_of_parent(b"12345678", '{"q": "ü"}').hex() == "9ca1669b96005f6e"
    assert made_of_parent(None, "{}").hex() == "8a6f7f5bdde49fe0"


def test_values_are_looked_at_where_a_condition_or_a_list_is_next() -> None:
    assert [REVISED.looks_at_values(n) for n in range(3)] == [False, True, False]
    assert [JUDGED.looks_at_values(n) for n in range(7)] == [
        True, True, False, False, True, False, False,
    ]  # fmt: skip


def test_what_a_gathering_row_passes_on_is_of_all_that_it_gathered() -> None:
    root, (one, other) = link(0), gathered_once()
    changed = (*other[:-1], replace(other[-1], passed_on=b"another!"))
    failed_root = Link(1, 1, 0, 1, 0, "{}")
    hashes = [
        hash_of(JUDGED, 3, "s", *links, gathered=gathered)
        for links, gathered in [
            ((root,), (one, other)), ((root,), (other, one)), ((root,), (one, changed)),
            ((failed_root,), (one, other)),
        ]
    ]  # fmt: skip
    assert len({*hashes[:3]}) == 3
    assert hashes[3] == hashes[0]


def test_a_plan_is_stored_by_its_content() -> None:
    assert Plan.from_json(JUDGED.to_json()) == JUDGED
    assert Plan.from_json(JUDGED.to_json()).digest() == JUDGED.digest()
    assert REVISED.digest() != replace(REVISED, result=("draft",)).digest()
    assert '"when"' not in Plan((StepRule(name="one"),), ("one",)).to_json()


def test_what_each_step_may_name() -> None:
    assert JUDGED.names_before(2) == ("questions", "answer", "question")
    assert JUDGED.names_in(1) == ("questions", "question")
    assert JUDGED.names_in(3) == ("questions", "answer", "question", "judge", "judged")


def test_a_condition_that_names_a_later_step_is_refused() -> None:
    plan = Plan((StepRule(name="a"), StepRule(name="b", when="c > 1"), StepRule(name="c")), ("c",))
    with pytest.raises(
        UsageError, match=r"^when: column 1: `c`: there is no c; there is id, input"
    ):
        plan.conditions(1)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("parsed", {"a": [1, {"b": 2}]}),
        ("parsed.a[1].b", 2),
        ("parsed['a'][-1]", {"b": 2}),
        ("parsed.a.b.c", None),
        ("response", "raw"),
    ],
)
def test_a_path_leads_to_a_value(text: str, value: Any) -> None:
    values = {"parsed": {"a": [1, {"b": 2}]}, "response": "raw"}
    assert Path(text, values).value(values.get) == value


@pytest.mark.parametrize(
    "text", ["", "1", "null", "parsed == 1", "[parsed]", "f(parsed)", "parsed[parsed]", "other"]
)
def test_what_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"^value: "):
        Path(text, ("parsed",), label="value: ")


def test_a_path_that_cannot_be_read_is_told_what_a_path_is() -> None:
    with pytest.raises(UsageError, match=r"in: parsed\[0\} \(write a name, and what is in it: "):
        Path("parsed[0}", ("parsed",))


def test_a_condition_has_the_names_that_it_is_given() -> None:
    assert Where("draft.score > 1", ("draft",)).holds({"draft": {"score": 2}}.get)
    with pytest.raises(UsageError, match="there is no parsed; there is draft"):
        Where("parsed", ("draft",))


# Any JSON, and any plan, never raise anything but a ParseError.

_text = st.text(st.characters(codec="utf-8"), max_size=5)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | _text,
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
_PATHS = ("parsed", "response", "parsed.a", "parsed[0]", "parsed.b[-1].c", "response[0]")
_CONDITIONS = (
    "{0}", "not {0}", "{0} < 3", "1 <= {0}.a <= 'x'", "{0} in {0}.b", "'a' in {0}",
    "{0}[0] == null", "{0} == {0}.a or input.topic == metadata", "{0} > {0}",
    "{0} in [1, 'a', {0}]",
)  # fmt: skip


@st.composite
def _plans(draw: st.DrawFn) -> Plan:
    rules: list[StepRule] = []
    for number in range(draw(st.integers(1, 5))):
        rule = StepRule(name=f"s{number}", value=draw(st.sampled_from(_PATHS)))
        if number and draw(st.integers(0, 4)) == 0:
            rules.append(replace(rule, gather=f"list{number}"))
            continue
        if number:
            before = f"s{draw(st.integers(0, number - 1))}"
            if draw(st.booleans()):
                when = draw(st.sampled_from(_CONDITIONS)).format(before)
                otherwise = draw(st.sampled_from(("end", "skip")))
                rule = replace(rule, when=when, otherwise=otherwise)
            if draw(st.booleans()):
                path = before + draw(st.sampled_from(("", ".a", "[0]")))
                rule = replace(rule, each=(f"e{number}", path))
        rules.append(rule)
    return Plan(tuple(rules), ("s0",))


def _results() -> st.SearchStrategy[tuple[str | None, str | None]]:
    return st.tuples(st.none() | _json.map(json.dumps), st.none() | _text)


@given(_plans(), st.data())
def test_following_raises_nothing_but_a_parse_error(plan: Plan, data: st.DataObject) -> None:
    """A whole chain is followed, down one child of each row, and over gatherings."""
    number, input_json = 0, "{}"
    links: tuple[Link, ...] = ()
    gathered: tuple[tuple[Link, ...], ...] = ()
    while True:
        parsed_json, response = data.draw(_results())
        rest: Any = {"input_json": input_json, "gathered": gathered}
        try:
            found = follow_row(plan, number, links, parsed_json, response, **rest)
        except ParseError:
            assert any(rule.each for rule in plan.steps[number + 1 :])
            return
        assert found == follow_row(plan, number, links, parsed_json, response, **rest)
        assert 0 <= found.passed_over < len(plan.steps) - number
        own = Link(number + 1, 1, number, 1, number + 1, input_json, parsed_json, response,
                   found.passed_on, gathered=gathered)  # fmt: skip
        assert [child.element for child in found.children] == [*range(len(found.children))]
        if found.children:
            child = data.draw(st.sampled_from(found.children))
            assert child.number == number + found.passed_over + 1
            links, number, input_json, gathered = (*links, own), child.number, child.input_json, ()
        elif (after := plan.gathered_by(number)) is not None:
            gathered = ((*links, own),) * data.draw(st.integers(1, 3))
            first = [one for one in (*links, own) if plan.steps[one.number].gather][-1:]
            links, number, input_json = tuple(first or [*links, own][:1]), after, "{}"
        else:
            return
        assert chain_values(plan, number, links, gathered).keys() >= {*plan.names_before(number)}
