"""What a model thought before its answer is no part of the answer, however the vendor marks it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.errors import ParseError
from batchgen.parsers import load_parser
from batchgen.parsers.thoughts import answer_after_thought

DRAFT = 'Literally {"label": "positive"}, <draft>bad</draft>, but this is irony.'
ANSWER = '{"label": "negative"}\n<draft>good</draft>'

THOUGHTS = {
    "DeepSeek, Qwen": "<think>\n%s\n</think>\n\n",
    "the opening mark is in the prompt": "%s\n</think>\n\n",
    "in capitals": "<THINK>%s</THINK>",
    "Claude": "<thinking>%s</thinking>",
    "antThinking": "<antThinking>%s</antThinking>",
    "Gemini, EXAONE": "<thought>%s</thought>",
    "Reka": "<reasoning>%s</reasoning>",
    "Seed-OSS": "<seed:think>%s</seed:think>",
    "LongCat": "<longcat_think>%s</longcat_think>",
    "in several words": "<chain-of-thought>%s</chain-of-thought>",
    "with attributes": '<think lang="en">%s</think >',
    "Magistral": "[THINK]%s[/THINK]",
    "Kimi": "◁think▷%s◁/think▷",
    "Cohere": "<|START_THINKING|>%s<|END_THINKING|><|START_RESPONSE|>",
    "OpenThinker": "<|begin_of_thought|>%s<|end_of_thought|>\n\n<|begin_of_solution|>",
    "Apertus": "<|inner_prefix|>%s<|inner_suffix|>",
    "Solar": "<|think|>%s<|end|><|begin|>assistant<|content|>",
    "Gemma": "<|channel>thought\n%s<channel|>",
    "a web page's": '<details type="reasoning" done="true">%s</details>\n',
    "Granite": "Here is my thought process:\n%s\n\nHere is my response:\n",
    "Apriel": "Here are my reasoning steps:\n%s\n[BEGIN FINAL RESPONSE]\n",
    "Ollama": "Thinking...\n%s\n...done thinking.\n\n",
    "gpt-oss": "<|channel|>analysis<|message|>%s<|end|><|start|>assistant"
    "<|channel|>final<|message|>",
    "gpt-oss, JSON": "<|channel|>analysis<|message|>%s<|end|><|start|>assistant"
    "<|channel|>final <|constrain|>json<|message|>",
    "gpt-oss without its tokens": "analysisWe need %sassistantfinal",
    "gpt-oss without its tokens, in small letters": "analysiswe need %sassistantfinal",
    "after a token": "<s><think>%s</think>",
    "after a word": "Sure.\n<think>%s</think>",
    "two": "<think>%s</think>\n<think>And {}</think>\n",
    "an empty one before": "<think></think><think>%s</think>",
    "one in another": "<think>a <think>b</think> %s</think>",
    "one that speaks of its marks": "<think>I must write <think> first. %s</think>",
}


@pytest.mark.parametrize("form", THOUGHTS.values(), ids=THOUGHTS)
def test_built_in_parsers_read_what_follows_the_thought(form: str) -> None:
    text = form.replace("%s", DRAFT) + ANSWER
    assert parsed("json", text) == {"label": "negative"}
    assert parsed("tag:draft", text) == ["good"]
    assert parsed('regex:"label": "(\\w+)"', text) == ["negative"]
    schema = 'json_schema:{"required": ["label"]}'
    assert parsed(schema, text) == {"label": "negative"}
    assert parsed("raw", text) == text


@pytest.mark.parametrize(
    "text",
    [
        '<think>Is it {"label": "positive"}? <draft>bad</draft> "label": "x"',
        '[THINK]{"label": "positive"}<draft>bad</draft>',
        '<|channel|>analysis<|message|>{"label": "positive"} <draft>bad</draft>',
        '<|START_THINKING|>{"label": "positive"}<draft>bad</draft>',
        '<think>{"label": "positive"}<draft>bad</draft></think>\n',
    ],
)
@pytest.mark.parametrize("spec", ["json", "tag:draft", "regex:label", "json_schema:{}"])
def test_a_thought_without_an_end_or_an_answer_is_no_answer(spec: str, text: str) -> None:
    with pytest.raises(ParseError, match="the answer is a thought"):
        parsed(spec, text)


@pytest.mark.parametrize(
    ("spec", "text", "value"),
    [
        ("json", '{"tags": "<think>a</think>"}', {"tags": "<think>a</think>"}),
        ("json", '{"closing": "</think>"}', {"closing": "</think>"}),
        ("json", 'So: {"closing": "</think>"}', {"closing": "</think>"}),
        ("json", '<think>x</think>{"a": "</think>"}', {"a": "</think>"}),
        ("tag:draft", "<draft><think>a</think>b</draft>", ["<think>a</think>b"]),
        ("tag:thinking", "<thinking>a</thinking>b", ["a"]),
        ("regex:(?s)<think>(.*)</think>(.*)", "<think>a</think>b", ["a", "b"]),
        ("regex:.+", "I think so, though <b>not</b> [yet]", "I think so, though <b>not</b> [yet]"),
        ("regex:.+", "Use the tag <think> for it.", "Use the tag <think> for it."),
        ("json", "analysis: [1]", [1]),
        ("json", '[Reasoning] It is fine. [Answer] {"a": 1}', {"a": 1}),
        ("json", 'Here is my thought process: it is fine. {"a": 1}', {"a": 1}),
        ("json", 'Thinking...\n{"a": 1}', {"a": 1}),
    ],
)
def test_what_only_looks_like_a_thought_stays(spec: str, text: str, value: Any) -> None:
    assert parsed(spec, text) == value


@given(st.lists(st.sampled_from(["<think>", "</think>", "[THINK]", "x", "{", '"', "<|end|>", "}"])))
def test_any_text_is_an_answer_or_refused(parts: list[str]) -> None:
    text = "".join(parts)
    try:
        assert text.endswith(answer_after_thought(text))
    except ParseError:
        pass


def test_a_long_row_of_thoughts_takes_no_longer_than_a_long_text() -> None:
    answer_after_thought("<think></think>" * 2_000 + "x")
    answer_after_thought("</think>" * 2_000 + "x")


def parsed(spec: str, text: str) -> Any:
    return load_parser(spec).parse(text, {}, None)
