"""The settings `steps` and `result`: what they become, and what is said of wrong ones."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from batchgen.config import Config, load, model_of, plan_of, step_keys
from batchgen.config.step_settings import STEP_KEYS
from batchgen.errors import ConfigError
from batchgen.steps import StepRule

STEPS = """\
model: {model: small, temperature: 1, max_tokens: 3000, price: {input_usd_per_mtok: 1, output_usd_per_mtok: 1}}
steps:
  - {name: draft, user: prompts/draft.txt, parser: "tag:draft", value: "parsed[0]"}
  - name: critique
    user: prompts/critique.j2
    system: {text: "You judge."}
    model: {model: big, temperature: null, max_completion_tokens: 600}
    parser: json_schema:critique.json
    structured_output: true
  - {name: score, function: score.py:score, each: {fault: critique.faults}}
  - {name: revise, when: critique.score < 8, otherwise: skip, user: revise.txt, conversation: false}
"""  # noqa: E501


def loaded(
    directory: Path, text: str, env: Mapping[str, str] = {}, overrides: Mapping[str, Any] = {}
) -> Config:
    (directory / "config.yaml").write_text(text)
    return load(None, env=env, cwd=directory, overrides=overrides)


def refusal(directory: Path, steps: str, rest: str = "") -> str:
    with pytest.raises(ConfigError) as raised:
        loaded(directory, f"{rest}\nsteps:\n{steps}\n")
    message = str(raised.value)
    assert "\n" not in message
    return message


def test_steps_become_rules_and_what_each_is_asked(tmp_path: Path) -> None:
    config = loaded(tmp_path, STEPS)
    plan = plan_of(config)
    assert plan.steps == (
        StepRule(name="draft", value="parsed[0]"),
        StepRule(name="critique"),
        StepRule(name="score", each=("fault", "critique.faults"), runs_code=True),
        StepRule(name="revise", when="critique.score < 8", otherwise="skip"),
    )
    assert plan.result == ("revise",)
    draft, critique, score, _ = config.steps
    assert draft.user
    assert draft.user.path == tmp_path / "prompts/draft.txt"
    assert draft.system is None
    assert critique.system
    assert critique.system.text == "You judge."
    assert critique.parser == f"json_schema:{tmp_path}/critique.json"
    assert (critique.structured_output, draft.structured_output) == (True, False)
    assert score.function == f"{tmp_path}/score.py:score"
    assert config.prompts.files == {}
    assert {file.name for file in config.own_files} == {
        "config.yaml", "draft.txt", "critique.j2", "critique.json", "score.py", "revise.txt",
    }  # fmt: skip


def test_a_step_is_asked_as_the_section_model_says_but_for_its_own(tmp_path: Path) -> None:
    config = loaded(tmp_path, STEPS)
    draft, critique = model_of(config, 0), model_of(config, 1)
    assert (draft.model, draft.params) == ("small", {"temperature": 1.0, "max_tokens": 3000})
    assert (critique.model, critique.params) == ("big", {"max_completion_tokens": 600})
    assert draft.price is not None
    assert critique.price is None  # it is that of another model
    assert not any(step.has_own_servers for step in config.steps)


def test_a_step_with_servers_of_its_own_gets_nothing_of_the_sections(tmp_path: Path) -> None:
    config = loaded(
        tmp_path,
        """\
model: {api_key: sk-dear, base_url: "https://dear/v1", headers: {x-a: secret}, rate_limit: 9}
steps:
  - name: one
    model: {base_url: "http://own/v1?v=2", api_key: $OWN, rate_limit: 5}
  - {name: two, user: a, model: {servers: [{base_url: "http://a/v1"}, {base_url: "http://b/v1"}]}}
  - {name: three, user: a, model: {headers: {x-b: two}}}
""",
        env={"OWN": "sk-own"},
    )
    one, two, three = (model_of(config, number) for number in range(3))
    assert (one.base_url, one.api_key, one.api_key_variable) == ("http://own/v1", "sk-own", "OWN")
    assert (one.rate_limit, dict(one.headers), [*one.query]) == (5, {}, ["v"])
    assert one.place == "steps[0].model"
    assert [server.base_url for server in two.of_each_server()] == ["http://a/v1", "http://b/v1"]
    assert two.api_key is None
    assert (three.base_url, three.api_key, [*three.headers]) == (
        "https://dear/v1", "sk-dear", ["x-a", "x-b"],
    )  # fmt: skip
    assert all(step.has_own_servers for step in config.steps)
    assert "sk-own" not in repr(config)
    assert "two" not in repr(config.steps[2])


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ("- draft", "config.yaml: steps[0]: must be a mapping, such as {name: draft, user: FILE}"),
        ("- {user: a}", "config.yaml: steps[0]: has no name"),
        ("- {name: a b}", "steps[0].name: must be a name for templates and conditions, of letters"),
        ("- {name: class}", "steps[0].name: must be a name for templates"),
        ("- {name: metadata}", "steps[0].name: cannot be metadata, which means something else"),
        ("- {name: a}\n- {name: a, user: f}", "steps[1].name (step a): a is the name of steps[0]."),
        ("- {name: a}\n- {name: b}", "steps[1].user (step b): is missing; name the file of"),
        ("- {name: a, modle: x}", "steps[0].modle (step a): unknown key; did you mean model?"),
        ("- {name: a, prompt: x}", "steps[0].prompt (step a): unknown key; did you mean user?"),
        ("- {name: a, temperature: 1}", "it goes under model: model: {temperature: ...}"),
        ("- {name: a, model: gpt}", "steps[0].model (step a): must be a mapping, such as"),
        (
            "- {name: a, model: {temprature: 1}}",
            "steps[0].model.temprature (step a): unknown key; did you mean temperature?",
        ),
        (
            "- {name: a, model: {temperature: hot}}",
            "steps[0].model.temperature (step a): must be a finite number or null, not the text",
        ),
        ("- {name: a, model: {rate_limit: 3}}", "model.rate_limit (step a): is one of a server"),
        (
            "- {name: a, model: {servers: [{base_url: http://a}], base_url: http://b}}",
            "steps[0].model.base_url (step a): stands beside servers",
        ),
        (
            "- {name: a, model: {servers: [{url: http://a}]}}",
            "steps[0].model.servers[0].url (step a): unknown key",
        ),
        ("- {name: a, user: {file: x}}", "steps[0].user (step a): must be the path of a file, or"),
        ("- {name: a, user: [x]}", "steps[0].user (step a): must be text, not a list"),
        ("- {name: a, function: 'x y'}", "steps[0].function (step a): names no function"),
        (
            "- {name: a, function: m:f, user: x}",
            "steps[0].user (step a): a step with a function makes no call; leave this out",
        ),
        ("- {name: a, when: 'id'}", "steps[0].when (step a): the first step has none"),
        ("- {name: a, gather: g}", "steps[0].gather (step a): the first step has none"),
        ("- {name: a, otherwise: skip}", "steps[0].otherwise (step a): says nothing without a"),
        (
            "- {name: a}\n- {name: b, user: f, when: a, otherwise: stop}",
            "steps[1].otherwise (step b): must be end or skip, not the text 'stop'",
        ),
        (
            "- {name: a}\n- {name: b, user: f, when: 'c > 1'}\n- {name: c, user: f}",
            "steps[1].when (step b): column 1: `c`: there is no c; there is id, input, metadata, a",
        ),
        (
            "- {name: a}\n- {name: b, user: f, when: 'a >'}",
            "steps[1].when (step b): column 4: invalid syntax, in: a >",
        ),
        (
            "- {name: a, value: 'a[0]'}",
            "steps[0].value (step a): column 1: `a`: there is no a; there is parsed, response",
        ),
        (
            "- {name: a}\n- {name: b, user: f, each: {one: 'a == 1'}}",
            "steps[1].each.one (step b): column 1: `a == 1`: is no path",
        ),
        ("- {name: a}\n- {name: b, user: f, each: a}", "each (step b): must be {NAME: PATH}"),
        (
            "- {name: a}\n- {name: b, user: f, each: {id: a}}",
            "steps[1].each.id (step b): cannot be id, which means something else",
        ),
        (
            "- {name: a}\n- {name: b, user: f, each: {a: a}}",
            "steps[1].each (step b): a is the name of steps[0].name (step a) already",
        ),
        (
            "- {name: a}\n- {name: b, user: f, gather: all, when: a}",
            "steps[1].when (step b): a step that gathers has none",
        ),
        (
            "- {name: a}\n- {name: b, user: f, when: a, otherwise: skip}\n"
            "- {name: c, user: f, gather: all}",
            "steps[1].otherwise (step b): must be end: what step c gathers is the rows of this",
        ),
        (
            "- {name: a, function: m:f}\n- {name: b, user: f, when: a, otherwise: skip}\n"
            "- {name: c, user: f, conversation: true}",
            "steps[2].conversation (step c): there is no conversation to go on with: step a is a",
        ),
    ],
)
def test_a_wrong_step_is_named_with_its_key(tmp_path: Path, steps: str, message: str) -> None:
    found = refusal(tmp_path, steps)
    assert found.startswith("config.yaml: steps[")
    assert message in found


@pytest.mark.parametrize(
    ("beside", "message"),
    [
        ("prompts: {user_prompt_path: a.txt}", "prompts.user_prompt_path: stands beside steps"),
        ("prompts: {system_prompt: hi}", "it goes into one of them, as system: {text: ...}"),
        ("parser: json", "config.yaml: parser: stands beside steps, each of which has its own"),
        ("structured_output: true", "structured_output: stands beside steps"),
        ("result: b", "config.yaml: result: there is no step b; there is a"),
        ("result: [a, a]", "config.yaml: result: names a twice"),
        ("result: 5", "config.yaml: result: must be a name or a list of them, not 5"),
        (
            "model: {servers: [{base_url: http://a}]}",
            "steps[0].model.api_key (step a): is for one server, and model has several",
        ),
    ],
)
def test_what_does_not_go_with_steps_is_refused(tmp_path: Path, beside: str, message: str) -> None:
    assert message in refusal(tmp_path, "- {name: a, model: {api_key: k}}", beside)


def test_a_result_without_steps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^config.yaml: result: there are no steps of which"):
        loaded(tmp_path, "result: draft")


def test_steps_of_an_upper_layer_take_the_place_of_prompts(tmp_path: Path) -> None:
    text = "prompts: {user_prompt: hi}\nparser: json\nstructured_output: true"
    config = loaded(tmp_path, text, overrides={"steps": [{"name": "a"}]})
    assert config.prompts.user_prompt is None
    assert (config.parser, config.names_parser, config.structured_output) == ("raw", False, False)
    with pytest.raises(ConfigError, match=r"^parser: stands beside steps"):
        loaded(tmp_path, "steps: [{name: a}]", overrides={"parser": "json"})
    with pytest.raises(ConfigError, match=r"^BATCHGEN_PARSER: stands beside steps"):
        loaded(tmp_path, "steps: [{name: a}]", env={"BATCHGEN_PARSER": "json"})


def test_no_steps_is_none(tmp_path: Path) -> None:
    for text in ("steps:", "steps: []"):
        assert loaded(tmp_path, text).steps == ()
    config = loaded(tmp_path, "steps: [{name: a}]", overrides={"steps": [], "parser": "json"})
    assert (config.steps, config.parser) == ((), "json")


def test_a_template_of_a_step_that_is_no_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"yaml: steps\[0\]\.user \(step a\): no such file: .*/x"):
        loaded(tmp_path, "steps: [{name: a, user: x.txt}]").check_prompt_files()


def test_the_reference_has_every_key() -> None:
    assert [key.name for key in step_keys()] == [*STEP_KEYS]
    assert all(key.help and "\n" not in key.help for key in step_keys())


def test_a_config_with_steps_can_be_pickled(tmp_path: Path) -> None:
    config = loaded(tmp_path, STEPS)
    assert pickle.loads(pickle.dumps(config)) == config
