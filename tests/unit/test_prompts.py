"""Templates as users write them, and the requests that come of them."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import asdict

from batchgen.endpoints import CHAT
from batchgen.errors import TemplateError
from batchgen.items import ItemInput, Recipe, Template
from batchgen.pool import read_item
from batchgen.prompts import Renderer, compile_template, load_template, with_feedback

VALUES = {
    "x": "X",
    "主题": "猫",
    "a": "{x}",
    "obj": {"k": ["ü", None]},
    "n": 1.5,
    "no": None,
    "t": True,
}


def recipe(user: str | None = "{a}", system: str | None = None, **params: Any) -> Recipe:
    return Recipe(
        system=None if system is None else Template(system, name="system.txt"),
        user=None if user is None else Template(user, name="user.txt"),
        model="m",
        params=params,
    )


def item(**fields: Any) -> ItemInput:
    return read_item(fields, "here")


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("", ""),
        ("plain", "plain"),
        ("{x}", "X"),
        ("{x}{x}-{主题}", "XX-猫"),
        # values: text as it is, anything else as JSON, in one pass
        ("{a} {obj} {n} {no} {t}", '{x} {"k": ["ü", null]} 1.5 null true'),
        # as for str.format: every brace is doubled, or round a plain name
        ('{{"a": 1}} {x}', '{"a": 1} X'),
        ('{{"a": {{"b": "{x}"}}}}', '{"a": {"b": "X"}}'),
        ("{{x}}", "{x}"),
        ("{{{x}}}", "{X}"),
        ("{{}}", "{}"),
        # anything else, pasted JSON say: braces are literal, doubled or not
        ('{"a": {"b": 1}}', '{"a": {"b": 1}}'),
        ('{"a":{"b":{"c":1}}} {x}', '{"a":{"b":{"c":1}}} X'),
        ('{"a": {x}}', '{"a": X}'),
        ('{"a": "{x}"}', '{"a": "X"}'),
        ('{"a": {"b": {x}}} {{x}} {{{x}}}', '{"a": {"b": X}} {x} {X}'),
        ("{ x } {x.y} {x!r} {x:>3} {0} {} {x y}", "{ x } {x.y} {x!r} {x:>3} {0} {} {x y}"),
        ("} {x} {", "} X {"),
        ("{x}}", "X}"),
        ("{{x}", "{X"),
        ("{\nx}", "{\nx}"),
    ],
)
def test_brace_templates(text: str, rendered: str) -> None:
    assert compile_template(Template(text)).render(VALUES) == rendered


@given(st.text('{}ab "1:\n', max_size=40))
def test_a_brace_template_renders_whenever_its_variables_are_there(text: str) -> None:
    compiled = compile_template(Template(text))
    assert isinstance(compiled.render(dict.fromkeys(compiled.variables, "{a}")), str)


@given(st.text(st.characters(exclude_characters="{}")))
def test_text_without_braces_is_unchanged(text: str) -> None:
    compiled = compile_template(Template(text))
    assert (compiled.render({}), compiled.variables) == (text, frozenset())


@given(st.lists(st.sampled_from(["{a}", "{b}", "{{", "}}", "text ", '"', "1"])).map("".join))
def test_what_str_format_takes_comes_out_as_str_format_would(text: str) -> None:
    values = {"a": "A}", "b": "{B"}
    assert compile_template(Template(text)).render(values) == text.format(**values)


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("{{ x }}\n", "X\n"),
        ("{{ obj }} {{ n }} {{ no }} {{ t }}", '{"k": ["ü", null]} 1.5 null true'),
        ("{% for k in obj.k %}{{ loop.index }}{{ k }}{% endfor %}", "1ü2null"),
        ("{{ gone | default('none') }}", "none"),
        ("{{ a }}", "{x}"),
        ('{"a": {"b": 1}}', '{"a": {"b": 1}}'),
    ],
)
def test_jinja2_templates(text: str, rendered: str) -> None:
    assert compile_template(Template(text, "jinja2")).render(VALUES) == rendered


def test_jinja2_variables_are_known() -> None:
    compiled = compile_template(Template("{% set b = a %}{{ b }}{{ c | default(1) }}", "jinja2"))
    assert compiled.variables == {"a", "c"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "{{ topc }}",
            "template p.j2 needs {topc}, which the item does not have (it has: topic); "
            "did you mean {topic}?",
        ),
        (
            "\n{{ topic.title.x.y }}",
            "template p.j2:2: UndefinedError: 'builtin_function_or_method object' has no "
            "attribute 'x'",
        ),
        ("{{ 1 // 0 }}", "template p.j2:1: ZeroDivisionError: integer division or modulo by zero"),
        (
            "{{ topic + 1 }}",
            'template p.j2:1: TypeError: can only concatenate str (not "int") to str',
        ),
        (
            "{% for i in range(10 ** 9) %}x{% endfor %}",
            "template p.j2:1: OverflowError: Range too big. The sandbox blocks ranges larger than "
            "MAX_RANGE (100000).",
        ),
        (
            "{{ topic.__class__ }}",
            "template p.j2:1: SecurityError: access to attribute '__class__' of 'str' object is "
            "unsafe.",
        ),
    ],
)
def test_a_jinja2_template_that_fails_names_itself(text: str, problem: str) -> None:
    compiled = compile_template(Template(text, "jinja2", "p.j2"))
    with pytest.raises(TemplateError) as caught:
        compiled.check({"topic": "cats"})
    assert str(caught.value) == problem


def test_a_jinja2_error_of_syntax_names_the_line() -> None:
    with pytest.raises(TemplateError, match=r"^template p\.j2:2: Unexpected end of template"):
        compile_template(Template("a\n{% if x %}", "jinja2", "p.j2"))


# --- files -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "text", "syntax"),
    [
        ("p.txt", b"Hi {x}\n\n", "Hi {x}\n", "braces"),
        ("p.txt", b"\xef\xbb\xbfHi\r\nyou\r\n", "Hi\nyou", "braces"),
        ("p.txt", b"Hi", "Hi", "braces"),
        ("p.txt.j2", b"{{ x }}\n", "{{ x }}", "jinja2"),
        ("p.jinja", b"{{ x }}\n", "{{ x }}", "jinja2"),
        ("P.JINJA2", b"{{ x }}\n", "{{ x }}", "jinja2"),
    ],
)
def test_a_template_file(tmp_path: Path, name: str, content: bytes, text: str, syntax: Any) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    loaded = load_template(path)
    assert (loaded, loaded.name) == (Template(text, syntax), str(path))


def test_a_template_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    latin = tmp_path / "latin.txt"
    latin.write_bytes(b"ab\xe9")
    for path, problem in [
        (tmp_path / "gone.txt", "no such file"),
        (tmp_path, "Is a directory"),
        (latin, "not UTF-8: byte 0xe9 at column 3; in WINDOWS-1252 it would be"),
    ]:
        with pytest.raises(TemplateError, match=f"^template {path}.*{problem}"):
            load_template(path)


# --- requests --------------------------------------------------------------------------------


def test_a_missing_variable_names_item_template_and_variable() -> None:
    renderer = Renderer(recipe("{topic} {lang}", "{tone}"))
    with pytest.raises(TemplateError) as caught:
        renderer.check(item(topics="x", tone="y"), "pool.jsonl:7")
    assert str(caught.value) == (
        "pool.jsonl:7: template user.txt needs {lang}, {topic}, which the item does not have "
        "(it has: topics, tone)"
    )
    with pytest.raises(TemplateError) as caught:
        renderer.check(item(user_prompt_kwargs={"topic": 1, "lang": 2}), "pool.jsonl:8")
    assert str(caught.value) == (
        "pool.jsonl:8: template system.txt needs {tone}, which the item does not have "
        "(it has: nothing)"
    )
    renderer.check(item(topic=1, lang=2, tone=3), "pool.jsonl:9")


def test_messages_with_nothing_in_them_are_an_empty_prompt() -> None:
    renderer = Renderer(recipe(user=None))
    blank = [{"role": "system", "content": " "}, {"role": "user", "content": []}, {"role": "user"}]
    with pytest.raises(TemplateError, match=r"^p:1: the prompt is empty"):
        renderer.check(item(messages=blank), "p:1")
    renderer.check(item(messages=[*blank, {"role": "user", "content": "x"}]), "p:1")
    renderer.check(item(messages=[{"role": "assistant", "tool_calls": []}]), "p:1")


def test_variables_without_a_user_template_say_what_to_set() -> None:
    renderer = Renderer(recipe(user=None, system="s"))
    wanted = r"set prompts\.user_prompt, or prompts\.user_prompt_path\.$"
    with pytest.raises(TemplateError, match=rf"^p:1: .*{wanted}"):
        renderer.check(item(a=1), "p:1")
    with pytest.raises(TemplateError, match=wanted):
        renderer.messages(item(a=1))


@pytest.mark.parametrize(
    ("system", "roles"),
    [(None, ["user"]), ("", ["user"]), (" \n{blank}", ["user"]), ("s", ["system", "user"])],
)
def test_a_blank_system_message_is_left_out(system: str | None, roles: list[str]) -> None:
    messages = Renderer(recipe("{a}", system)).messages(item(a="hi", blank=" "))
    assert [message["role"] for message in messages] == roles
    assert messages[-1] == {"role": "user", "content": "hi"}


def test_ready_messages_are_untouched() -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "{a}"}], "name": "n"}]
    renderer = Renderer(recipe(user=None, system="s"))
    renderer.check(item(messages=messages), "here")
    assert renderer.messages(item(messages=messages)) == messages


def test_params_of_the_item_win_and_none_is_left_out() -> None:
    renderer = Renderer(
        recipe(temperature=1, seed=2, stop=None, max_tokens=5, extra_body={"top_k": 1, "seed": 9})
    )
    messages = [{"role": "user", "content": "hi"}]
    assert renderer.request_body(item(a="hi")) == {
        "model": "m",
        "messages": messages,
        "temperature": 1,
        "seed": 9,
        "max_tokens": 5,
        "top_k": 1,
    }
    params = {"model": "m2", "temperature": None, "extra_body": {"min_p": 0}}
    assert renderer.request_body(item(a="hi", params=params)) == {
        "model": "m2",
        "messages": messages,
        "seed": 2,
        "max_tokens": 5,
        "min_p": 0,
    }
    assert renderer.request_body(item(a="hi", params={"model": None}))["model"] == "m"


def test_a_schema_that_a_recipe_holds_as_text_is_sent_as_an_object_in_its_order() -> None:
    text = '{"type": "object", "properties": {"why": {}, "answer": {}}}'
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": text}}
    stored = Recipe.from_json(recipe(response_format=wanted).to_json())
    body = Renderer(stored).request_body(item(a="hi"))
    described = body["response_format"]["json_schema"]
    assert json.dumps(described["schema"]) == text
    assert described["name"] == "a"
    assert stored.params["response_format"]["json_schema"]["schema"] == text


@pytest.mark.parametrize(
    "wanted", [{"type": "json_object"}, {"json_schema": 1}, {"json_schema": {"schema": {}}}]
)
def test_any_other_response_format_is_sent_as_it_is(wanted: dict[str, Any]) -> None:
    body = Renderer(recipe(response_format=wanted)).request_body(item(a="hi"))
    assert body["response_format"] == wanted


def test_a_conversation_that_asks_again_has_the_answer_and_what_was_wrong() -> None:
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    body = {"messages": messages}
    again = with_feedback(CHAT, body, "<draft>", "no <draft>...</draft> in the answer.")
    assert again["messages"] == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": "<draft>"},
        {
            "role": "user",
            "content": "Your answer could not be used: no <draft>...</draft> in the answer. "
            "Answer again.",
        },
    ]
    assert len(messages) == 2
    twice = with_feedback(CHAT, again, "x", "why")
    assert [message["role"] for message in twice["messages"][2:]] == ["assistant", "user"] * 2


FIELDS = {"product name": "tea", "a.b": 1, "n": {"x": [{"y": "deep"}], "z": None}, "t": "x"}


@pytest.mark.parametrize(
    ("text", "rendered", "used"),
    [
        ("{product name}", "tea", {"product name"}),
        ('{{"a": 1}} {product name}', '{"a": 1} tea', {"product name"}),
        ('{"a": 1} {product name} {{product name}}', '{"a": 1} tea {product name}',
         {"product name"}),
        ("{a.b}", "1", {"a.b"}),
        ("{n.x[0].y} {n.x.0} {n.z}", 'deep {"y": "deep"} null', {"n"}),
        ("{t.x} {product_names}x {gone.x}", None, set()),
        ("{t.x} {gone.x} {no such field}", "{t.x} {gone.x} {no such field}", set()),
    ],
)  # fmt: skip
def test_any_field_can_stand_in_a_template(text: str, rendered: str | None, used: set[str]) -> None:
    compiled = compile_template(Template(text))
    if rendered is None:
        with pytest.raises(TemplateError, match=r"did you mean \{product name\}\?"):
            compiled.check(FIELDS)
        return
    compiled.check(FIELDS)
    assert (compiled.render(FIELDS), compiled.variables) == (rendered, used)


@pytest.mark.parametrize(
    ("first", "second", "problem"),
    [
        ({"a b": 1}, {"c": 1}, "template t needs {a b}, which the item does not have (it has: c)"),
        ({"c": 1}, {"a b": 1}, "template t has {a b}: this item has it, those before it do not"),
        ({"a b": 1, "n": {"x": 1}}, {"a b": 1, "n": {}}, "template t needs {n.x}, which the item"),
    ],
)
def test_a_field_is_there_for_all_items_or_for_none(
    first: dict[str, Any], second: dict[str, Any], problem: str
) -> None:
    compiled = compile_template(Template("{a b} {n.x}", name="t"))
    compiled.check(first)
    with pytest.raises(TemplateError) as caught:
        compiled.check(second)
    assert str(caught.value).startswith(problem)


@pytest.mark.parametrize("syntax", ["braces", "jinja2"])
def test_a_variable_that_is_within_another_is_found_there(syntax: Any) -> None:
    text = "{topic}" if syntax == "braces" else "{{ topic }}"
    compiled = compile_template(Template(text, syntax, "t"))
    with pytest.raises(TemplateError, match=r"did you mean \{input\.topic\}\?$"):
        compiled.check({"input": {"topic": "tea"}, "response": "x"})


def test_jinja2_reaches_any_field_by_the_item() -> None:
    compiled = compile_template(Template('{{ item["product name"] }}', "jinja2", "p.j2"))
    assert compiled.check(FIELDS)
    assert compiled.render(FIELDS) == "tea"
    assert compiled.variables >= FIELDS.keys()
    own = compile_template(Template("{{ item }}", "jinja2"))
    assert own.render({"item": "mine"}) == "mine"
    wrong = compile_template(Template("{{ product_name }}", "jinja2", "p.j2"))
    with pytest.raises(TemplateError, match=r'did you mean item\["product name"\]\?'):
        wrong.check(FIELDS)


def test_what_stands_beside_messages_and_is_no_parameter_is_unused() -> None:
    renderer = Renderer(recipe())
    fields = {"messages": [{"role": "user"}], "source": "x", "seed": 1, "metadata": 1}
    assert renderer.unused_variables(item(**fields)) == {"source"}
    kwargs = {"user_prompt_kwargs": {"a": 1}, "lang": "de"}
    assert renderer.unused_variables(item(**kwargs)) == {"lang"}


def test_unused_variables_are_those_that_no_template_names() -> None:
    renderer = Renderer(recipe("{a}", "{b}"))
    assert renderer.unused_variables(item(a=1, b=2, c=3, id="i", metadata=1, params={})) == {"c"}
    assert renderer.unused_variables(
        item(user_prompt_kwargs={"a": 1, "id": 2}, system_prompt_kwargs={"b": 1, "d": 2})
    ) == {"id", "d"}
    assert renderer.unused_variables(item(messages=[{"role": "user"}])) == set()


def test_the_checked_item_and_the_stored_one_give_the_same_request() -> None:
    renderer = Renderer(recipe("{a}", "{id}"))
    first = item(id=7, a={"x": 1}, params={"seed": 1})
    again = read_item(dict(first.given), "stored")
    assert asdict(again) == asdict(first)
    assert renderer.request_body(again) == renderer.request_body(first)
