"""From the list in the setting `steps` to the steps, and what is wrong with it."""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from batchgen.config.kinds import (
    PARAMETERS,
    Kind,
    NestedError,
    ValueContext,
    named_variable,
    shown_key,
    shown_value,
    url_variables,
)
from batchgen.config.sent import with_query_of
from batchgen.config.settings import LEAVES
from batchgen.config.step_settings import MODEL_KEYS, STEP_KEYS, unknown_key, unknown_model_key
from batchgen.config.steps import StepConfig, place_of
from batchgen.errors import UsageError
from batchgen.steps import Plan, StepRule

_MOST_STEPS = 100


def steps_of(given: Any, context: ValueContext) -> tuple[StepConfig, ...]:
    """The steps, checked. Raises ValueError or NestedError."""
    if not isinstance(given, (list, tuple)):
        raise ValueError("must be a list of mappings, each with a name")
    if len(given) > _MOST_STEPS:
        raise ValueError(f"must not be longer than {_MOST_STEPS}")
    steps = tuple(_Entry(one, number, context).step() for number, one in enumerate(given))
    _check_names(steps)
    for number in range(len(steps)):
        _check_order(steps, number)
    _check_conditions(steps)
    return steps


def _refuse(steps: Sequence[StepConfig], number: int, key: str, problem: str) -> NoReturn:
    raise NestedError(place_of(number, key, steps[number].name).removeprefix("steps"), problem)


class _Entry:
    """An entry of the list, while it is read."""

    def __init__(self, given: Any, number: int, context: ValueContext) -> None:
        self._place, self._context = f"[{number}]", context
        if not isinstance(given, Mapping):
            raise NestedError(self._place, "must be a mapping, such as {name: draft, user: FILE}")
        self._given = given
        if given.get("name") is None:
            raise NestedError(self._place, "has no name")
        self._name = self._checked("name", STEP_KEYS["name"][0])

    def step(self) -> StepConfig:
        if unknown := [key for key in self._given if key not in STEP_KEYS]:
            raise self._problem(shown_key(unknown[0]), unknown_key(str(unknown[0])))
        function = self._value("function", None)
        if function is not None:
            self._refuse_beside_function()
        elif self._value("user", None) is None and self._place != "[0]":
            raise self._problem("user", "is missing; name the file of a template, or {text: ...}")
        return StepConfig(
            rule=self._rule(runs_code=function is not None),
            **{key: self._value(key, None) for key in ("user", "system", "function")},
            model_settings=self._model(),
            parser=self._value("parser", "raw"),
            structured_output=self._value("structured_output", False),
        )

    def _rule(self, *, runs_code: bool) -> StepRule:
        when = self._value("when", None)
        if when is None and self._given.get("otherwise") is not None:
            raise self._problem("otherwise", "says nothing without a when")
        return StepRule(
            name=self._name,
            value=self._value("value", "parsed"),
            when=when,
            otherwise=self._value("otherwise", "end"),
            each=self._value("each", None),
            gather=self._value("gather", None),
            conversation=self._value("conversation", False),
            runs_code=runs_code,
        )

    def _refuse_beside_function(self) -> None:
        of_calls = ("user", "system", "model", "parser", "structured_output", "conversation")
        if found := [key for key in of_calls if self._given.get(key)]:
            raise self._problem(found[0], "a step with a function makes no call; leave this out")

    def _value(self, key: str, default: Any) -> Any:
        return default if self._given.get(key) is None else self._checked(key, STEP_KEYS[key][0])

    def _model(self) -> dict[str, Any]:
        given = self._given.get("model")
        if given is None:
            return {}
        if not isinstance(given, Mapping):
            problem = f"must be a mapping, such as {{temperature: 0}}, not {shown_value(given)}"
            raise self._problem("model", problem)
        values = {}
        for key, value in given.items():
            place = f"model.{shown_key(key)}"
            if key not in MODEL_KEYS:
                raise self._problem(place, unknown_model_key(str(key)))
            if value is not None or key in PARAMETERS:  # null: not sent
                values[key] = self._of_kind(LEAVES["model", key].kind, value, place)
        return self._with_secrets(given, values)

    def _with_secrets(self, given: Mapping[Any, Any], values: dict[str, Any]) -> dict[str, Any]:
        """With what the values say of the environment's variables, and the URL's query apart."""
        self._refuse_limits_and_twos(values)
        if url := values.get("base_url"):
            values["url_variables"] = url_variables(given["base_url"], self._context.env)
            api_key = LEAVES["model", "api_key"].kind  # which has a default in the environment
            values["api_key"] = self._of_kind(api_key, given.get("api_key"), "model.api_key")
            try:
                values["base_url"], query = with_query_of(url, values.get("query", {}))
            except NestedError as exc:
                raise self._problem(f"model.query.{exc.path}", str(exc)) from None
            values |= {"query": query} if query else {}
        if variable := named_variable(given.get("api_key")):
            values["api_key_variable"] = variable
        return values

    def _refuse_limits_and_twos(self, values: Mapping[str, Any]) -> None:
        for name in ("base_url", "api_key"):
            if values.get("servers") and values.get(name):
                problem = "stands beside servers; it goes into each of them that it is for"
                raise self._problem(f"model.{name}", problem)
        for name in ("rate_limit", "token_limit"):
            if values.get(name) and not (values.get("base_url") or values.get("servers")):
                problem = "is one of a server, which all steps have in common; set it in model"
                raise self._problem(f"model.{name}", f"{problem}, or give the step a base_url")

    def _checked(self, key: str, kind: Kind) -> Any:
        return self._of_kind(kind, self._given[key], key)

    def _of_kind(self, kind: Kind, value: Any, key: str) -> Any:
        try:
            return kind.check(value, self._context)
        except NestedError as exc:
            dot = "" if exc.path.startswith("[") else "."
            raise self._problem(f"{key}{dot}{exc.path}", str(exc)) from None
        except ValueError as exc:
            problem = str(exc) or f"must be {kind.phrase}, not {shown_value(value)}"
            raise self._problem(key, problem) from None

    def _problem(self, key: str, problem: str) -> NestedError:
        name = getattr(self, "_name", None)
        return NestedError(f"{self._place}.{key}{f' (step {name})' if name else ''}", problem)


def _check_names(steps: Sequence[StepConfig]) -> None:
    """No name means two things."""
    seen: dict[str, str] = {}
    for number, step in enumerate(steps):
        keys = (
            "name",
            *(["each"] if step.rule.each else []),
            *(["gather"] * bool(step.rule.gather)),
        )
        for key, name in zip(keys, step.rule.names, strict=True):
            place = place_of(number, key, step.name)
            if name in seen:
                _refuse(steps, number, key, f"{name} is the name of {seen[name]} already")
            seen[name] = place


def _check_order(steps: Sequence[StepConfig], number: int) -> None:
    """What a step may be depends on those before it."""
    rule = steps[number].rule
    ruled = {
        "when": rule.when, "each": rule.each, "gather": rule.gather,
        "conversation": rule.conversation,
    }  # fmt: skip
    if number == 0:
        if found := [key for key, value in ruled.items() if value]:
            _refuse(steps, 0, found[0], "the first step has none: there is no step before it")
        return
    if rule.gather:
        if found := [key for key, value in ruled.items() if value and key != "gather"]:
            problem = "a step that gathers has none; put it into the step before it, or after"
            _refuse(steps, number, found[0], problem)
        if steps[number - 1].rule.otherwise == "skip":
            problem = f"must be end: what step {rule.name} gathers is the rows of this step"
            _refuse(steps, number - 1, "otherwise", problem)
    if rule.conversation and (parent := _code_before(steps, number)):
        problem = f"there is no conversation to go on with: step {parent} is a function"
        _refuse(steps, number, "conversation", problem)


def _code_before(steps: Sequence[StepConfig], number: int) -> str | None:
    """The name of a function of whose rows those of this step may be made."""
    for before in reversed(range(number)):
        if steps[before].rule.runs_code:
            return steps[before].name
        if steps[before].rule.otherwise == "end":
            return None
    return None


def _check_conditions(steps: Sequence[StepConfig]) -> None:
    """They can be read, and name only what is there by then."""
    plan = Plan(tuple(step.rule for step in steps), ())
    for number, step in enumerate(steps):
        try:
            plan.conditions(number)
        except UsageError as exc:
            key, _, problem = str(exc).partition(": ")
            if key == "each" and step.rule.each:
                key = f"each.{step.rule.each[0]}"
            _refuse(steps, number, key, problem)
