"""Makes the request of an item, by its recipe.

A variable that an item lacks is found at enqueue (`Renderer.check`), before anything is paid for.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from batchgen.errors import Remedy, TemplateError
from batchgen.items import ItemInput, Recipe
from batchgen.prompts.braces import BraceTemplate
from batchgen.prompts.templates import Compiled, compile_template

_FIELDS_OF_BATCHGEN = frozenset(("id", "metadata", "params"))
_SHAPES = frozenset(
    ("messages", "user_prompt_kwargs", "system_prompt_kwargs", "custom_id", "method", "url", "body")
)


class LookAlike(NamedTuple):
    """A variable that is `written` in a template as others have it, and is text there."""

    variable: str
    written: str
    template: str

    @property
    def words(self) -> str:
        return f"in template {self.template}, {self.written} is text; write {{{self.variable}}}"


class Renderer:
    """Makes the requests of items by one recipe. Raises TemplateError for a bad template."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._params = _with_schema(recipe.params)
        self._system = compile_template(recipe.system) if recipe.system else None
        self._user = compile_template(recipe.user) if recipe.user else None

    def check(self, item_input: ItemInput, where: str) -> None:
        """Raises TemplateError, which begins with `where`, when no request can be made of the
        item."""
        if item_input.messages is not None:
            if all(map(_is_blank, item_input.messages)):
                raise TemplateError(f"{where}: the prompt is empty: messages have nothing in them")
            return
        try:
            if self._system:
                self._system.check(item_input.system_variables)
            if not self._user_template().check(item_input.user_variables):
                name = self._user_template().name
                raise TemplateError(f"the prompt is empty: template {name} makes nothing of it")
        except TemplateError as exc:
            raise TemplateError(f"{where}: {exc}", exc.remedy) from exc

    def messages(self, item_input: ItemInput) -> list[dict[str, Any]]:
        """Ready messages as they are; otherwise the rendered system message, unless it is blank,
        and the rendered user message. Raises TemplateError."""
        if item_input.messages is not None:
            return item_input.messages
        user = self._user_template().render(item_input.user_variables)
        messages = [{"role": "user", "content": user}]
        system = self._system.render(item_input.system_variables) if self._system else ""
        if system.strip():
            messages.insert(0, {"role": "system", "content": system})
        return messages

    def request_body(self, item_input: ItemInput, sample: int | None = None) -> dict[str, Any]:
        """The body of the chat completion. The item's params win over the recipe's, the model
        included; one that is None is left out. What is in `extra_body` goes in last, as it is.
        Raises TemplateError.

        Each sample of an item has a seed of its own: the seed in the params plus one for each
        sample before it. Without a seed in the params it is the sample's number, and the first
        sample has none, as it is sent like an ordinary item.
        """
        body = {
            "model": self._recipe.model,
            "messages": self.messages(item_input),
            **self._asked_params(item_input),
        }
        if sample is not None and sample > 1:
            asked = body.get("seed", 1)
            body["seed"] = asked + sample - 1 if isinstance(asked, int) else asked
        return body

    def added_params(self, item_input: ItemInput, sample: int | None = None) -> set[str]:
        """The names of the parameters that batchgen adds by itself: a response_format made from the
        parser's schema (`structured_output`; it is the only one that a recipe stores as text), and
        the seed of a sample. If the server does not know one of them, a request without it will
        do."""
        added = set()
        is_made = self._params is not self._recipe.params
        if is_made and not is_own(item_input, "response_format"):
            added.add("response_format")
        if sample is not None and sample > 1 and "seed" not in self._asked_params(item_input):
            added.add("seed")
        return added

    def place_of(self, name: str, item_input: ItemInput, sample: int | None = None) -> str:
        """Where a parameter of the request comes from, in words for a message."""
        if is_own(item_input, name):
            given = item_input.given  # `body`: a line of an OpenAI batch
            place = _place_in(given.get("params"), "params", name)
            place = place or _place_in(given.get("body"), "body", name)
            return f"{place or name} of the item"
        if name in self.added_params(item_input, sample):
            return f"the {name} of {'a sample' if name == 'seed' else 'structured_output'}"
        return _place_in(self._recipe.params, "model", name) or name

    def unused_variables(self, item_input: ItemInput) -> set[str]:
        """What is in the item and goes into no request, for a warning: variables that no template
        uses, and fields beside its messages that are no parameters."""
        given = item_input.given
        if item_input.messages is not None:
            return set(given.keys() - _FIELDS_OF_BATCHGEN - _SHAPES - item_input.params.keys())
        names = self._variable_names(item_input)
        for template in (self._system, self._user):
            names -= template.variables if template else frozenset()
        if not given.keys().isdisjoint(_SHAPES):
            names |= given.keys() - _FIELDS_OF_BATCHGEN - _SHAPES - item_input.params.keys()
        return names

    def uses_nothing_of(self, item_input: ItemInput) -> bool:
        """Whether the item has variables, and the templates, all the same for every item, take
        none at all."""
        if item_input.messages is not None or not self._variable_names(item_input):
            return False
        return not any(one.variables for one in (self._system, self._user) if one)

    def look_alikes(self, item_input: ItemInput) -> list[LookAlike]:
        """What stands in a template as other template languages write a variable of the item, and
        so is text there."""
        names = self._variable_names(item_input)
        return [
            LookAlike(name, one.look_alikes[name], one.name)
            for one in (self._system, self._user)
            if isinstance(one, BraceTemplate)
            for name in sorted(one.look_alikes.keys() & names)
        ]

    def _variable_names(self, item_input: ItemInput) -> set[str]:
        names = {*item_input.system_variables, *item_input.user_variables}
        if item_input.given.keys().isdisjoint(("system_prompt_kwargs", "user_prompt_kwargs")):
            names -= _FIELDS_OF_BATCHGEN
        return names

    def _asked_params(self, item_input: ItemInput) -> dict[str, Any]:
        params = {**self._params, **item_input.params}
        extra_body = params.pop("extra_body", None) or {}
        return {name: value for name, value in params.items() if value is not None} | extra_body

    def _user_template(self) -> Compiled:
        if self._user is None:
            raise TemplateError(
                "the item has variables, but there is no user template; set prompts.user_prompt, "
                "or prompts.user_prompt_path.",
                Remedy.GIVE_TEMPLATE,
            )
        return self._user


def _is_blank(message: Mapping[str, Any]) -> bool:
    content = message.get("content")
    has_content = bool(content.strip()) if isinstance(content, str) else bool(content)
    return not has_content and message.keys() <= {"role", "content", "name"}


def is_own(item_input: ItemInput, name: str) -> bool:
    """Whether the item itself sets this parameter."""
    return _place_in(item_input.params, "", name) is not None


def _place_in(params: Any, source: str, name: str) -> str | None:
    if not isinstance(params, Mapping):
        return None
    extra_body = params.get("extra_body")
    if isinstance(extra_body, Mapping) and name in extra_body:
        return f"{source}.extra_body.{name}"
    return f"{source}.{name}" if name in params else None


def _with_schema(params: Mapping[str, Any]) -> Mapping[str, Any]:
    """The params with the schema of their response_format as an object: a recipe holds it as text,
    to keep the order of its keys."""
    wanted: Any = params.get("response_format")
    described = wanted.get("json_schema") if isinstance(wanted, dict) else None
    if not isinstance(described, dict) or not isinstance(described.get("schema"), str):
        return params
    described = {**described, "schema": json.loads(described["schema"])}
    return {**params, "response_format": {**wanted, "json_schema": described}}


# The place in the user's code where a parser raised: a model has no use for it, and it is private.
_PLACE_IN_CODE = re.compile(r" \([^()]*\.py:\d+\)$")


def with_feedback(
    messages: Sequence[Mapping[str, Any]], answer_text: str, error: str
) -> list[dict[str, Any]]:
    """The messages that ask again: the ones sent before, the answer that could not be used, and
    why. `messages` itself is not changed."""
    error = _PLACE_IN_CODE.sub("", error).rstrip(". ")
    complaint = f"Your answer could not be used: {error}. Answer again."
    return [
        *map(dict, messages),
        {"role": "assistant", "content": answer_text},
        {"role": "user", "content": complaint},
    ]
