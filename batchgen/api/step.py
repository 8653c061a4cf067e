"""A step of a chain as Python writes it: the keys of the config's `steps`, and objects in place of
names for what code does."""

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar, Unpack

from msgspec import Struct, field

from batchgen.api.model_settings import ModelSettings
from batchgen.errors import ConfigError
from batchgen.parsers import (
    Parser,
    StepFunction,
    parser_from_callable,
    step_function_from_callable,
)

_FILES = (".txt", ".md", ".j2", ".jinja", ".jinja2")
_KEYWORDS = (
    *("user", "system", "parser", "structured_output", "value", "when", "otherwise", "each"),
    *("gather", "conversation", "function", "model"),
)

R = TypeVar("R")
Template = str | Path | Mapping[str, str]


class Step:
    """One step of a chain, for `DataGenerationPipeline(steps=[...])`.

        Step("draft", user="Write about {topic}.", temperature=1)
        Step("critique", user="prompts/critique.j2", parser=Critique, model="gpt-4.1")
        Step("revise", when="critique.score < 8", user="Mend this:\\n{draft}")
        Step("best", gather="texts", function=longest)

    Later steps know its value by its `name`. Raises ConfigError.

    user, system       a template: its text, or a file (a Path, or a name that ends in .txt, .md,
                       .j2 or the like); {name} is a field of the item or the value of a step
    parser             what makes the value of an answer: a function of the text (and, if it has a
                       second parameter, the item), a pydantic model, or a spec such as "tag:draft"
    structured_output  ask for answers that fit the parser's schema
    value              what later steps see: a path such as "parsed[0]"
    when, otherwise    a condition; where it does not hold the chain ends, or goes on ("skip")
    each               {"question": "questions"}: a row for each element of that list
    gather             one row for all rows of the step before; they are a list of this name
    conversation       begin with what the step before was sent, and its answer
    function           in place of a call: your function of (item) or (item, values), or its name
    model              another model, or a mapping of what differs from the section `model`

    Any other keyword is a setting of `model`, such as temperature=0 or base_url="...".
    """

    def __init__(
        self,
        name: str,
        user: Template | None = None,
        *,
        system: Template | None = None,
        parser: Callable[..., Any] | str | None = None,
        structured_output: bool = False,
        value: str | None = None,
        when: str | None = None,
        otherwise: Literal["end", "skip"] | None = None,
        each: Mapping[str, str] | None = None,
        gather: str | None = None,
        conversation: bool = False,
        function: Callable[..., Any] | str | None = None,
        model: str | Mapping[str, Any] | None = None,
        **settings: Unpack[ModelSettings],
    ) -> None:
        self.name = name
        _refuse_unknown(name, settings)
        self.parser = _of_object(name, "parser", parser, parser_from_callable)
        self.function = _of_object(name, "function", function, step_function_from_callable)
        own = {"model": model} if isinstance(model, str) else {**(model or {})}
        given = {
            "name": name, "user": _template(user), "system": _template(system),
            "parser": self.parser.spec if self.parser else parser,
            "structured_output": structured_output or None, "value": value, "when": when,
            "otherwise": otherwise, "each": each, "gather": gather,
            "conversation": conversation or None,
            "function": self.function.spec if self.function else function,
            "model": {**own, **settings} or None,
        }  # fmt: skip
        self.as_setting = {key: value for key, value in given.items() if value is not None}

    def __repr__(self) -> str:
        """Without what may be secret."""
        return f"Step({self.name!r})"


class StepObjects(Struct, frozen=True):
    """What code the steps of a pipeline were given as objects, by their names."""

    parsers: Mapping[str, Parser] = field(default_factory=dict)
    functions: Mapping[str, StepFunction] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Of the steps that only this process can run."""
        return [*self.parsers, *self.functions]


def objects_of(steps: Sequence[object]) -> StepObjects:
    found = [one for one in steps if isinstance(one, Step)]
    return StepObjects(
        {one.name: one.parser for one in found if one.parser},
        {one.name: one.function for one in found if one.function},
    )


def settings_of(steps: Any) -> Any:
    """The setting `steps`, as the config has it. What is no step is refused there."""
    if not isinstance(steps, list | tuple):
        return steps
    return [one.as_setting if isinstance(one, Step) else one for one in steps]


def _refuse_unknown(name: str, settings: Mapping[str, Any]) -> None:
    known = ModelSettings.__annotations__
    if unknown := [key for key in settings if key not in known]:
        near = get_close_matches(unknown[0].lower(), [*_KEYWORDS, *known], 1, 0)[0]
        raise ConfigError(f"Step({name!r}): unknown keyword {unknown[0]}; did you mean {near}?")


def _of_object(
    name: str, keyword: str, given: Any, make: Callable[[Callable[..., Any]], R]
) -> R | None:
    """None: it is named by a spec, or not given."""
    if given is None or isinstance(given, str):
        return None
    if not callable(given):
        kind = type(given).__name__
        raise ConfigError(
            f"Step({name!r}): {keyword} must be a function or its name, not {kind}"
        )  # fmt: skip
    try:
        return make(given)
    except ConfigError as exc:
        raise ConfigError(f"Step({name!r}): {exc}", exc.remedy, **exc.facts) from None


def _template(given: Any) -> Any:
    """A file by its path, or a text, as the config has them."""
    if isinstance(given, Path):
        return str(given)
    if not isinstance(given, str) or (given.endswith(_FILES) and "\n" not in given):
        return given
    return {"text": given}
