"""Makes the request of an item, by its recipe.

A variable that an item lacks is found at enqueue (`Renderer.check`), before anything is paid for.
"""

import json
import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import cached_property
from typing import Any, NamedTuple

from batchgen.endpoints import ENDPOINTS, LIMITS, Endpoint
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
    """Makes the requests of items by one recipe. Raises TemplateError for a bad template. `names`
    are all those of the steps of a chain, if it is for one."""

    def __init__(self, recipe: Recipe, names: AbstractSet[str] = frozenset()) -> None:
        self._recipe = recipe
        self._is_step = bool(names)
        self._endpoint = ENDPOINTS[recipe.endpoint]
        self._params = _with_schema(recipe.params)
        self._system = compile_template(recipe.system, names) if recipe.system else None
        self._user = compile_template(recipe.user, names) if recipe.user else None

    @property
    def makes_requests(self) -> bool:
        """Whether its recipe is that of calls, and not of a function's rows."""
        return not self._recipe.runs_code

    @property
    def variables(self) -> AbstractSet[str]:
        """All that its templates may ask for, as far as is known."""
        return frozenset().union(*(one.variables for one in (self._system, self._user) if one))

    def check_names(self, item_input: ItemInput, where: str) -> None:
        """Raises TemplateError, which begins with `where`, when the templates need a variable that
        the item lacks. Its values may be stand-ins."""
        try:
            if self._system:
                self._system.check_names(item_input.system_variables)
            if self._user:
                self._user.check_names(item_input.user_variables)
        except TemplateError as exc:
            raise TemplateError(f"{where}: {exc}", exc.remedy) from exc

    def check(self, item_input: ItemInput, where: str) -> None:
        """Raises TemplateError, which begins with `where`, when no request can be made of the
        item."""
        try:
            self._check(item_input, self.endpoint_of(item_input))
        except TemplateError as exc:
            raise TemplateError(f"{where}: {exc}", exc.remedy) from exc

    def _check(self, item_input: ItemInput, endpoint: Endpoint) -> None:
        if item_input.prompt is not None:
            return
        if item_input.messages is not None:
            if endpoint.conversation is None:
                raise TemplateError(
                    f"messages are a conversation, and {endpoint.name} take one text; give "
                    "variables for the user template, or ask another model.endpoint"
                )
            if all(map(_is_blank, item_input.messages)):
                raise TemplateError("the prompt is empty: messages have nothing in them")
            return
        if self._system:
            if endpoint.conversation is None:
                raise TemplateError(
                    f"{endpoint.name} take one text, so there is no place for the system template "
                    f"{self._system.name}. Leave it out (prompts.system_prompt_path: null), or put "
                    "its text into the user template"
                )
            self._system.check(item_input.system_variables)
        if not self._user_template().check(item_input.user_variables):
            name = self._user_template().name
            raise TemplateError(f"the prompt is empty: template {name} makes nothing of it")

    def suits(self, names: AbstractSet[str]) -> bool:
        """Whether `check` would pass each item of variables alone that has these, whatever they
        hold, as it has passed one."""
        return all(one.suits(names) for one in (self._system, self._user) if one)

    def has_all(self, names: AbstractSet[str]) -> bool:
        """The same of `check_names`, which does not look at whether the prompt is empty."""
        return all(one.has_all(names) for one in (self._system, self._user) if one)

    def endpoint_of(self, item_input: ItemInput) -> Endpoint:
        """The one that the item itself names, or the recipe's."""
        return ENDPOINTS[item_input.endpoint] if item_input.endpoint else self._endpoint

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

    def messages_given(self, item_input: ItemInput) -> Sequence[Any]:
        """The messages that the item itself has, as it gave them."""
        if item_input.prompt is not None:
            return self.endpoint_of(item_input).messages_of(item_input.prompt)
        return item_input.messages or ()

    def request_body(self, item_input: ItemInput, sample: int | None = None) -> dict[str, Any]:
        """The body of the request. The item's params win over the recipe's, the model included; one
        that is None is left out. What is in `extra_body` goes in last, as it is. Raises
        TemplateError.

        Each sample of an item has a seed of its own: the seed in the params plus one for each
        sample before it. Without a seed in the params it is the sample's number, and the first
        sample has none, as it is sent like an ordinary item; nor has any where not all servers know
        of seeds (Responses, embeddings).
        """
        endpoint = self.endpoint_of(item_input)
        body = {
            "model": self._recipe.model,
            **(item_input.prompt or endpoint.prompt(self.messages(item_input))),
            **self._asked_params(item_input, endpoint),
        }
        if sample is not None and sample > 1 and (endpoint.has_seed or "seed" in body):
            asked = body.get("seed", 1)
            body["seed"] = asked + sample - 1 if isinstance(asked, int) else asked
        return body

    def added_params(self, item_input: ItemInput, sample: int | None = None) -> AbstractSet[str]:
        """The names of the parameters that batchgen adds by itself: a response_format made from the
        parser's schema (`structured_output`; it is the only one that a recipe stores as text), the
        seed of a sample, and that a response is not to be stored. If the server does not know one
        of them, a request without it will do."""
        if (sample or 1) == 1 and self._is_as_all(item_input):
            return self._added_to_all
        return self._added(item_input, sample)

    def _added(self, item_input: ItemInput, sample: int | None) -> AbstractSet[str]:
        endpoint, added = self.endpoint_of(item_input), set()
        asked = {**self._params, **item_input.params}
        if self._params is not self._recipe.params and not is_own(item_input, "response_format"):
            name = endpoint.called("response_format")
            others = {*endpoint.origins_of(name)} - {"response_format"}
            added |= {name} if others.isdisjoint(asked) else set()
        if sample is not None and sample > 1 and endpoint.has_seed:
            asks_seed = "seed" in self._asked_params(item_input, endpoint)
            added |= set() if asks_seed else {"seed"}
        added |= {name for name in endpoint.added if asked.get(name) is None}
        return added

    def place_of(self, name: str, item_input: ItemInput, sample: int | None = None) -> str:
        """Where a parameter of the request comes from, in words for a message."""
        names = self.endpoint_of(item_input).origins_of(name)
        for own in filter(lambda one: is_own(item_input, one), names):
            given = item_input.given  # `body`: a line of an OpenAI batch
            place = _place_in(given.get("params"), "params", own)
            place = place or _place_in(given.get("body"), "body", own)
            return f"{place or own} of the item"
        if name in self.added_params(item_input, sample):
            return f"the {name} of {_ADDED_FOR.get(name, 'structured_output')}"
        places = (_place_in(self._recipe.params, "model", one) for one in names)
        return next(filter(None, places), name)

    def is_own(self, item_input: ItemInput, name: str) -> bool:
        """Whether the item itself sets this parameter of its request."""
        names = self.endpoint_of(item_input).origins_of(name)
        return any(is_own(item_input, one) for one in names)

    def unused_variables(self, item_input: ItemInput) -> set[str]:
        """What is in the item and goes into no request, for a warning: variables that no template
        uses, and fields beside its messages that are no parameters."""
        given = item_input.given
        if _is_ready(item_input):
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
        if _is_ready(item_input) or not self._variable_names(item_input):
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

    def _is_as_all(self, item_input: ItemInput) -> bool:
        """Whether it asks for nothing that the recipe does not, as most items do."""
        return not item_input.params and item_input.endpoint is None

    @cached_property
    def _params_of_all(self) -> dict[str, Any]:
        return self._merged_params(ItemInput({}), self._endpoint)

    @cached_property
    def _added_to_all(self) -> AbstractSet[str]:
        return frozenset(self._added(ItemInput({}), None))

    def _asked_params(self, item_input: ItemInput, endpoint: Endpoint) -> Mapping[str, Any]:
        if self._is_as_all(item_input):
            return self._params_of_all
        return self._merged_params(item_input, endpoint)

    def _merged_params(self, item_input: ItemInput, endpoint: Endpoint) -> dict[str, Any]:
        """What the recipe has for another endpoint than that of the item holds as far as this one
        takes it."""
        params, own = self._params, item_input.params
        if endpoint.name != self._recipe.endpoint:
            params = endpoint.takes(params)
        if endpoint.name != "chat" and not own.keys().isdisjoint(LIMITS):
            params = {name: value for name, value in params.items() if name not in LIMITS}
        params = {**params, **own}
        extra_body = params.pop("extra_body", None) or {}
        asked = {name: value for name, value in params.items() if value is not None}
        return endpoint.params(asked) | extra_body

    def _user_template(self) -> Compiled:
        if self._user is None and self._is_step:  # the first: later ones must have one
            raise TemplateError(
                "the item has variables, but the first step has no user template; set "
                "steps[0].user to a file, or to {text: ...}."
            )
        if self._user is None:
            raise TemplateError(
                "the item has variables, but there is no user template; set prompts.user_prompt, "
                "or prompts.user_prompt_path.",
                Remedy.GIVE_TEMPLATE,
            )
        return self._user


# What batchgen adds a parameter for.
_ADDED_FOR = {"seed": "a sample", "store": "a request that is not to be kept at the server"}


def _is_ready(item_input: ItemInput) -> bool:
    """Whether no template makes its prompt."""
    return item_input.messages is not None or item_input.prompt is not None


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
    endpoint: Endpoint, body: Mapping[str, Any], answer_text: str, error: str
) -> dict[str, Any]:
    """The request that asks again: what was sent before, the answer that could not be used, and
    why. The same request of an endpoint that has no conversations. `body` itself is not changed."""
    if endpoint.conversation is None:
        return dict(body)
    before = body[endpoint.conversation]
    if isinstance(before, str):
        before = [{"role": "user", "content": before}]
    error = _PLACE_IN_CODE.sub("", error).rstrip(". ")
    complaint = f"Your answer could not be used: {error}. Answer again."
    messages = [
        *map(dict, before),
        {"role": "assistant", "content": answer_text},
        {"role": "user", "content": complaint},
    ]
    return {**body, endpoint.conversation: messages}
