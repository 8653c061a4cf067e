"""The simulated model as a judge, a critic and a gate: what it says can be read, and varies."""

import json
from collections.abc import Callable

import pytest

from batchgen.parsers import load_parser
from batchgen.simulate.answers import Chat, completion


def said(text: str, system: str = "") -> str:
    messages = [{"role": "user", "content": text}]
    if system:
        messages.insert(0, {"role": "system", "content": system})
    chat = Chat.of({"messages": messages})
    assert chat is not None
    answer = json.loads(completion(chat))["choices"][0]["message"]["content"]
    assert isinstance(answer, str)
    return answer


def verdicts(prompt: Callable[[int], str], spec: str) -> set[str]:
    """What a parser makes of the answers to twenty prompts."""
    parser = load_parser(spec)
    return {json.dumps(parser.parse(said(prompt(n)), {}, None)) for n in range(20)}


@pytest.mark.parametrize("asked", ["Answer yes or no.", "yes/no?", 'Say "yes" or "no" only.'])
def test_a_gate_says_yes_of_some_and_no_of_others(asked: str) -> None:
    assert verdicts(lambda n: f"Is text {n} good? {asked}", "regex:^(yes|no)$") == {
        '["yes"]', '["no"]',
    }  # fmt: skip


def test_a_gate_writes_the_words_as_the_prompt_does() -> None:
    assert {said(f"{n}: YES or NO?") for n in range(20)} == {"YES", "NO"}


@pytest.mark.parametrize(
    ("asked", "spec"),
    [
        ("Give a score from 1 to 5, only the number.", "regex:^[1-5]$"),
        ("Write what is wrong with it, and rate it on a scale of 1-5.", r"regex:Score: ([1-5])$"),
        ("Rate it from 1 to 5 between <score> and </score>. Only a number.", "tag:score"),
    ],
)
def test_scores_are_on_the_scale_and_vary(asked: str, spec: str) -> None:
    found = verdicts(lambda n: f"Text {n}. {asked}", spec)
    assert len(found) > 2
    assert all(any(digit in one for digit in "12345") for one in found)


def test_an_object_has_the_keys_and_kinds_that_the_prompt_shows() -> None:
    shown = (
        'Judge it. Answer in JSON: {"score": 1-10, "faults": ["..."], "passed": true, '
        '"label": "good|bad", "why": "..."}'
    )
    found = [json.loads(said(f"Text {n}. {shown}")) for n in range(20)]
    assert all(list(one) == ["score", "faults", "passed", "label", "why"] for one in found)
    assert len({one["score"] for one in found}) > 3
    assert {one["score"] for one in found} <= {*range(1, 11)}
    assert {one["passed"] for one in found} == {True, False}
    assert {one["label"] for one in found} == {"good", "bad"}
    assert all(one["faults"] and one["why"].endswith(".") for one in found)


def test_the_scale_may_stand_beside_the_object_or_in_the_system_prompt() -> None:
    system = 'Score the answer from 1 to 4. Answer in JSON: {"score": number, "reason": text}'
    found = {json.loads(said(f"Text {n}", system))["score"] for n in range(20)}
    assert found == {1, 2, 3, 4}
    own = {json.loads(said(f"Rate text {n} from 1 to 4 in JSON"))["score"] for n in range(20)}
    assert own == {1, 2, 3, 4}


def test_a_list_is_as_long_as_the_prompt_says() -> None:
    questions = json.loads(said("Write a JSON list of four questions about tea."))
    assert len(set(questions)) == 4
    assert all(question.endswith("?") for question in questions)
    assert len(json.loads(said("3 words about tea, as a JSON array"))) == 3


@pytest.mark.parametrize(
    ("asked", "spec"),
    [
        ("请从1到5打分，只输出数字。", "regex:^[1-5]$"),
        ("指出缺点，并给出1-5分的评分。", r"regex:Score: ([1-5])$"),
        ("评分范围为 1 至 5，仅回答分数", "regex:^[1-5]$"),
        ("只回答“是”或“否”。", "regex:^(是|否)$"),
    ],
)
def test_prompts_in_chinese_are_understood(asked: str, spec: str) -> None:
    assert len(verdicts(lambda n: f"文本{n}。{asked}", spec)) > 1


def test_a_list_asked_for_in_chinese_is_as_long_as_it_says() -> None:
    assert len(json.loads(said("请就下文提出四个问题，以 JSON 数组输出。"))) == 4
    found = {json.loads(said(f'文本{n}。以 JSON 输出：{{"分数": 1-3, "理由": "..."}}'))["分数"]
             for n in range(20)}  # fmt: skip
    assert found == {1, 2, 3}


def test_what_asks_for_no_verdict_is_answered_as_ever() -> None:
    assert said("Write about 1 to 5 rivers.").startswith('You wrote "Write about 1 to 5 rivers.".')
    assert "Score" not in said("Tell me of the year 1990 to 2000, with numbers.")
    assert said("写3到5个句子，分享你的看法。").count("Score") == 0
    assert set(json.loads(said("Answer in JSON."))) == {"answer", "quote", "score"}
