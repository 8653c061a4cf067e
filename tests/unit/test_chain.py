"""What is known of a chain before its first call: all that the config names can be used, and each
item of the pool has what the steps need of it."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from batchgen.config import load
from batchgen.errors import ConfigError, InputError, TemplateError, UsageError
from batchgen.items import RAW, ParserVersion, PoolItem, Template
from batchgen.jobs.chain import ConfiguredChain, configured_chain
from batchgen.jobs.pool_reader import Enqueued, PoolReader
from batchgen.parsers import parser_from_callable, step_function_from_callable
from batchgen.pool import BadLine, read_item
from batchgen.prompts import StandIn, compile_template

SCORE = """\
def score(item, values):
    return len(values["draft"])

async def keep(item):
    return True

class Kept: ...
not_a_function = 1
"""
STEPS = """\
model: {model: small, temperature: 1}
steps:
  - {name: draft, user: draft.txt, system: {text: "About {topic}"}, parser: "tag:draft"}
  - {name: score, function: "score.py:score"}
  - {name: critique, when: "score > 1", user: critique.j2, model: {model: big}, parser: json}
  - {name: revise, user: {text: "Mend {critique.faults[0]} in {draft}, for {reader}"}}
"""


def chain_of(
    directory: Path, text: str, files: Mapping[str, str] = {}, **objects: Any
) -> ConfiguredChain:
    own = {"score.py": SCORE, "draft.txt": "Write about {topic}", "config.yaml": text}
    for name, content in {**own, "critique.j2": "{{ draft }} {{ score + 1 }}", **files}.items():
        (directory / name).write_text(content)
    return configured_chain(load(None, env={}, cwd=directory), **objects)


def check(chain: ConfiguredChain, item: dict[str, Any]) -> None:
    chain.check_item(read_item(item, "pool.jsonl:1"), "pool.jsonl:1")


def test_each_step_has_its_recipe_and_what_reads_its_answers(tmp_path: Path) -> None:
    chain = chain_of(tmp_path, STEPS)
    draft, score, critique, _ = chain.steps
    assert draft.recipe.user == Template("Write about {topic}")
    assert draft.recipe.system == Template("About {topic}")
    assert (draft.recipe.model, critique.recipe.model) == ("small", "big")
    assert critique.recipe.params == {"temperature": 1.0}
    assert critique.recipe.user
    assert critique.recipe.user.syntax == "jinja2"
    assert (score.recipe.runs_code, score.recipe.model) == (True, "")
    assert score.version.spec == f"{tmp_path}/score.py:score"
    assert (score.runs_code, draft.runs_code) == (True, False)
    assert score.version.fingerprint
    intake = chain.intake
    assert intake.plan.steps[1].runs_code
    assert [step.parser for step in intake.steps] == [step.version for step in chain.steps]
    assert intake.steps[3].parser == RAW
    assert intake.steps[2].parser == ParserVersion("json")


def test_a_recipe_without_a_function_is_stored_as_before(tmp_path: Path) -> None:
    draft, score, *_ = chain_of(tmp_path, STEPS).steps
    assert '"runs_code"' not in draft.recipe.to_json()
    assert type(score.recipe).from_json(score.recipe.to_json()) == score.recipe


def test_parsers_and_functions_may_be_given_as_objects(tmp_path: Path) -> None:
    text = "steps: [{name: a, parser: 'python:x'}, {name: b, function: 'python:y'}]"
    parser = parser_from_callable(lambda text: text)
    function = step_function_from_callable(lambda item, values: values)
    chain = chain_of(tmp_path, text, parsers={"a": parser}, functions={"b": function})
    assert chain.steps[0].parser is parser
    assert chain.steps[1].function is function
    assert chain.steps[1].version.spec == function.spec
    with pytest.raises(
        ConfigError, match=r"steps\[0\]\.parser \(step a\): parser 'python:x': only"
    ):
        chain_of(tmp_path, text)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ("[{name: a, user: none.txt}]", "steps[0].user (step a): no such file: "),
        (
            "[{name: a, user: 'Judge {x}'}]",
            "Judge {x} (a template itself is written as {text: ...})",
        ),
        ("[{name: a, user: bad.j2}]", "steps[0].user (step a): template {}/bad.j2:1: unexpected"),
        ("[{name: a, parser: jsno}]", "steps[0].parser (step a): unknown parser 'jsno'; there are"),
        ("[{name: a, parser: 'no:f'}]", "steps[0].parser (step a): parser 'no:f': no module named"),
        ("[{name: a, function: 'score.py:nil'}]", "steps[0].function (step a): function "),
        ("[{name: a, function: 'score.py:Kept'}]", "is a class; give a function"),
        ("[{name: a, function: 'score.py:not_a_function'}]", "is a int, not a function"),
        (
            "[{name: a, structured_output: true}]",
            "steps[0].structured_output (step a): parser 'raw' has no schema",
        ),
        (
            "[{name: a, model: {dimensions: 3}}]",
            "steps[0].model (step a): dimensions: the endpoint chat has no such parameter",
        ),
        (
            "[{name: a, parser: json, model: {endpoint: embeddings}}]",
            "steps[0].parser (step a): must be raw, not 'json': ",
        ),
        (
            "[{name: a}, {name: b, user: {text: '{a} {c}'}}, {name: c, user: draft.txt}]",
            "steps[1].user (step b): needs {c}, which is not there yet; there is a",
        ),
        (
            "[{name: a, user: {text: '{b.x}'}}, {name: b, user: draft.txt}]",
            "steps[0].user (step a): needs {b}, which is not there yet; there is nothing of",
        ),
        (
            "[{name: a}, {name: b, user: own.j2}]",
            "steps[1].user (step b): needs {b}, which is not there yet; there is a",
        ),
        (
            "[{name: a, system: {text: hi}, model: {endpoint: completions}}]",
            "steps[0].system (step a): completions take one text",
        ),
        (
            "[{name: a, model: {endpoint: completions}}, {name: b, user: draft.txt, "
            "conversation: true}]",
            "steps[1].conversation (step b): step a asks for completions, which are no conv",
        ),
    ],
)
def test_what_cannot_be_used_is_named_with_its_place(
    tmp_path: Path, steps: str, message: str
) -> None:
    files = {"bad.j2": "{{", "own.j2": "{{ b }}"}
    with pytest.raises(UsageError) as raised:
        chain_of(tmp_path, f"steps: {steps}", files)
    assert str(raised.value).startswith("config.yaml: steps[")
    assert message.replace("{}", str(tmp_path)) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_item_with_what_the_steps_need_is_taken(tmp_path: Path) -> None:
    check(chain_of(tmp_path, STEPS), {"topic": "tea", "reader": "me"})


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"reader": "me"}, r"^pool.jsonl:1: template .*needs \{topic\}, which the item does not"),
        (
            {"topic": "tea"},
            r"^pool.jsonl:1: step revise: template revise.user needs \{reader\}, which the item "
            r"does not have \(it has: topic, draft, score, critique\)",
        ),
    ],
)
def test_a_variable_that_any_step_lacks_is_named(
    tmp_path: Path, item: dict[str, Any], message: str
) -> None:
    with pytest.raises(TemplateError, match=message):
        check(chain_of(tmp_path, STEPS), item)


def test_a_variable_that_is_called_as_a_step_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^pool.jsonl:1: has a variable score, which is a name"):
        check(chain_of(tmp_path, STEPS), {"topic": "tea", "reader": "me", "score": 1})


def test_a_chain_may_begin_with_a_function_or_with_ready_messages(tmp_path: Path) -> None:
    text = "steps: [{name: a, function: 'score.py:keep'}, {name: b, user: {text: '{a} {x}'}}]"
    check(chain_of(tmp_path, text), {"x": 1})
    with pytest.raises(TemplateError, match=r"step b: template b.user needs \{x\}"):
        check(chain_of(tmp_path, text), {"y": 1})
    text = "steps: [{name: a}, {name: b, user: {text: '{a}'}}]"
    check(chain_of(tmp_path, text), {"messages": [{"role": "user", "content": "hi"}]})


def test_a_pool_is_read_with_what_all_steps_need(tmp_path: Path) -> None:
    steps = "steps: [{name: a, user: {text: Begin}}, {name: b, user: {text: '{a} {reader}'}}]"
    chain = chain_of(tmp_path, steps)
    given = [{"reader": "me", "x": 1}, {"x": 2}, {"reader": "me", "a": 3}]
    pool = [PoolItem(read_item(one, f"p:{n}"), f"p:{n}") for n, one in enumerate(given, 1)]
    bad: list[BadLine] = []
    found = Enqueued()
    reader = PoolReader(pool, chain.steps[0].recipe, bad.append, found, tmp_path, chain)
    assert list(reader) == pool[:1]
    assert found.unused == {"x"}
    assert [(one.where, one.problem[:20]) for one in bad] == [
        ("p:2", "step b: template b.u"), ("p:3", "has a variable a, wh"),
    ]  # fmt: skip


def test_what_no_step_uses_is_told(tmp_path: Path) -> None:
    steps = "steps: [{name: a, user: draft.txt}, {name: b, user: {text: '{reader}'}%s}]"
    assert chain_of(tmp_path, steps % "").unused({"reader", "x"}) == {"x"}
    assert chain_of(tmp_path, steps % ", when: input.x").unused({"reader", "x"}) == set()
    assert chain_of(tmp_path, STEPS).unused({"x"}) == set()


@pytest.mark.parametrize(
    "text",
    [
        "{{ v }} {{ v.score + 1 }} {{ v[0].text[:10] }} {{ 2 * v - v / 3 }} {{ -v }}",
        "{% for one in v.faults %}{{ loop.index }} {{ one.text | upper }}{% endfor %}{{ x }}",
        "{{ v | join(', ') }} {{ v | length }} {{ v | tojson }} {{ v | sum }} {{ v | round(1) }}",
        "{% if v.score < 8 and v in ['a'] %}a{% else %}b{% endif %}{{ v.get('a', 1) }}",
        "{{ v | sort | first }} {{ v | selectattr('ok') | list }} {{ v.strip().split('a')[0] }}",
        "{% for k, one in v.items() %}{{ k }}{% endfor %} {{ '%s' | format(v) }} {{ v ~ 'a' }}",
        "{{ v | int + v | float }} {{ v | default('none') }} {{ v is defined }} {{ item.v }}",
    ],
)
def test_a_stand_in_takes_whatever_a_template_does_with_it(text: str) -> None:
    template = compile_template(Template(text, "jinja2", "t"))
    template.check_names({"v": StandIn(), "x": 1})
    if "for k" not in text:  # that of no known length
        template.render({"v": StandIn(), "x": 1})


def test_a_missing_variable_is_found_among_stand_ins() -> None:
    template = compile_template(Template("{{ v.a | upper }} {{ y }}", "jinja2", "t"))
    with pytest.raises(TemplateError, match=re.escape("template t needs {y}")):
        template.check_names({"v": StandIn()})


def test_a_path_from_a_step_is_never_text() -> None:
    text = Template("{critique.score} {other.x}", name="t")
    template = compile_template(text, frozenset({"critique"}))
    assert template.render({"critique": {"score": 3}}) == "3 {other.x}"
    assert template.variables == {"critique"}
    with pytest.raises(TemplateError, match=re.escape("template t needs {critique.score}")):
        template.render({"critique": "a text"})
    assert compile_template(text).render({"critique": "a text"}) == "{critique.score} {other.x}"


JUDGED = """\
model: {model: small}
steps:
  - name: judge
    user: {text: "Judge {topic}"}
    parser: json_schema:score.json
    VALUE
  - {name: praise, WHEN, user: {text: "Praise {topic}"}}
"""
SCORED = {
    "type": "object",
    "properties": {
        "score": {"type": "integer"},
        "faults": {"type": "array", "items": {"type": "object", "properties": {"text": {}}}},
        "any": {"type": "object"},
    },
}


def judged(directory: Path, when: str, value: str = "", **of_schema: Any) -> ConfiguredChain:
    text = JUDGED.replace("WHEN", when).replace("VALUE", value)
    return chain_of(directory, text, {"score.json": json.dumps({**SCORED, **of_schema})})


@pytest.mark.parametrize(
    ("when", "value", "said"),
    [
        ("when: judge.scor > 7", "", "steps[1].when (step praise): there is no scor in judge, "
         "by the schema of its parser; did you mean score?"),
        ("when: 'judge.faults[0].what == 1'", "", "steps[1].when (step praise): there is no what "
         "in judge.faults[0], by the schema of its parser; there is text"),
        ("each: {fault: judge.fault}", "", "steps[1].each (step praise): there is no fault in "
         "judge, by the schema of its parser; did you mean faults?"),
        ("when: judge.x == 1", "value: 'parsed.faults[0]'", "steps[1].when (step praise): there is "
         "no x in judge, by the schema of its parser; there is text"),
        ("when: judge == 1", "value: parsed.skore", "steps[0].value (step judge): there is no "
         "skore in parsed, by the schema of its parser; did you mean score?"),
    ],
)  # fmt: skip
def test_a_field_that_the_schema_of_a_step_does_not_have_is_refused(
    tmp_path: Path, when: str, value: str, said: str
) -> None:
    with pytest.raises(ConfigError) as error:
        judged(tmp_path, when, value)
    assert str(error.value).endswith(said)


@pytest.mark.parametrize("when", ["judge.score > 7", "judge.any.thing == 1", "judge.score.x == 1"])
def test_what_a_schema_has_or_leaves_open_may_be_named(tmp_path: Path, when: str) -> None:
    assert judged(tmp_path, f"when: {when}").plan.steps[1].when == when


@pytest.mark.parametrize("more", [{"additionalProperties": True}, {"anyOf": [{}]}])
def test_a_schema_that_allows_other_fields_says_nothing(tmp_path: Path, more: Any) -> None:
    assert judged(tmp_path, "when: judge.scor > 7", **more).plan.steps[1].when
