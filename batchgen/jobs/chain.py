"""The chain that the config describes, with all that can be known of it before the first call.

Its templates, parsers and functions are loaded, and none names what it cannot have. What only an
item of the pool can tell is told of each by `check_item`.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from msgspec import Struct

from batchgen.config import Config, ModelConfig, model_of, place_in, plan_of
from batchgen.endpoints import ENDPOINTS
from batchgen.errors import ConfigError, InputError
from batchgen.items import ItemInput, ParserVersion, Recipe
from batchgen.jobs.schema_paths import check_paths
from batchgen.jobs.step_recipe import RECIPE_OF_FUNCTIONS, placed, recipe_of_step
from batchgen.parsers import Parser, StepFunction, load_parser, load_step_function
from batchgen.prompts import Renderer, StandIn, input_of_step
from batchgen.steps import Plan
from batchgen.store import ChainIntake, StepIntake

_FIELDS_OF_BATCHGEN = frozenset(("id", "metadata", "params"))
_SOMETHING = StandIn()


class ConfiguredStep(Struct, frozen=True):
    """A step as it is to be enqueued: either a `parser` reads the answers to the calls to its
    `model`, or a `function` ends its rows."""

    name: str
    recipe: Recipe
    parser: Parser | None = None
    function: StepFunction | None = None
    model: ModelConfig | None = None

    @property
    def runs_code(self) -> bool:
        return self.function is not None

    @property
    def reader(self) -> Parser | StepFunction:
        """What makes the values of its results."""
        reader = self.parser or self.function
        assert reader is not None
        return reader

    @property
    def version(self) -> ParserVersion:
        """How its results name what made their values."""
        return self.reader.version


class ConfiguredChain(Struct, frozen=True, dict=True):
    """A chain that is as sound as one can tell without an item."""

    plan: Plan
    steps: tuple[ConfiguredStep, ...]

    @property
    def intake(self) -> ChainIntake:
        """For the store."""
        steps = tuple(StepIntake(step.recipe, step.version) for step in self.steps)
        return ChainIntake(self.plan, steps)

    @cached_property
    def renderers(self) -> tuple[Renderer | None, ...]:
        """Those of the steps; None for one that makes no call."""
        return tuple(
            None if step.runs_code else Renderer(step.recipe, self.plan.names)
            for step in self.steps
        )

    def check_item(self, item_input: ItemInput, where: str) -> None:
        """Raises InputError or TemplateError, which begins with `where`, when an item has a
        variable that is called as a step, or when no request can be made of it: by the templates
        of later steps, too, whatever the steps before them will be."""
        seen = input_of_step(item_input, {})
        variables = {*seen.system_variables, *seen.user_variables}
        if twice := sorted(variables & self.plan.names):
            raise InputError(
                f"{where}: has a variable {twice[0]}, which is a name in steps too; call one of "
                "them otherwise"
            )
        first, *later = self.renderers
        if first is not None:
            first.check(item_input, where)
        for number, renderer in enumerate(later, 1):
            if renderer is not None:
                given = input_of_step(item_input, self._stand_ins[number])
                renderer.check_names(given, f"{where}: step {self.steps[number].name}")

    def suits(self, names: set[str]) -> bool:
        """Whether `check_item` would pass each item of variables alone that has these, whatever
        they hold, as it has passed one."""
        first, *later = self.renderers
        return (first is None or first.suits(names)) and all(
            renderer is None or renderer.has_all(names | self._stand_ins[number].keys())
            for number, renderer in enumerate(later, 1)
        )

    def unused(self, names: set[str]) -> set[str]:
        """Those of an item's variables, which the first step does not use, that no other step uses
        either: functions see all of them, and so may conditions."""
        if self._sees_whole_item:
            return set()
        used = (one.variables for one in self.renderers[1:] if one)
        return names.difference(*used)

    @cached_property
    def _stand_ins(self) -> tuple[dict[str, Any], ...]:
        """What templates of each step may name, by something that can be anything."""
        return tuple(
            dict.fromkeys(self.plan.names_in(number), _SOMETHING)
            for number in range(len(self.steps))
        )

    @cached_property
    def _sees_whole_item(self) -> bool:
        if any(step.runs_code for step in self.steps):
            return True
        found = (self.plan.conditions(number) for number in range(len(self.steps)))
        return any(
            one is not None and "input" in one.names
            for each in found
            for one in (each.when, each.each)
        )


def configured_chain(
    config: Config,
    parsers: Mapping[str, Parser] = {},
    functions: Mapping[str, StepFunction] = {},
) -> ConfiguredChain:
    """The chain of a config with steps. `parsers` and `functions` are those that are given as
    objects, by the names of the steps; the others are loaded. Raises ConfigError, which begins with
    the place of what is wrong: the file, the step and the key."""
    config.check_prompt_files()
    chain = ConfiguredChain(
        plan_of(config),
        tuple(
            _step(config, number, parsers.get(step.name), functions.get(step.name))
            for number, step in enumerate(config.steps)
        ),
    )
    schemas = [_schema_of(step) for step in chain.steps]
    for number, step in enumerate(chain.steps):
        for key in ("when", "value", "each"):
            with placed(config, number, key):
                check_paths(chain.plan, number, key, schemas)
        if not step.runs_code:
            _check_templates(config, chain, number)
            _check_conversation(config, chain, number)
    return chain


def _step(
    config: Config, number: int, parser: Parser | None, function: StepFunction | None
) -> ConfiguredStep:
    step = config.steps[number]
    if step.function is not None:
        with placed(config, number, "function"):
            function = function or load_step_function(step.function, config.directory)
        return ConfiguredStep(step.name, RECIPE_OF_FUNCTIONS, None, function)
    with placed(config, number, "parser"):
        parser = parser or load_parser(step.parser, config.directory)
    recipe = recipe_of_step(config, number, parser)
    return ConfiguredStep(step.name, recipe, parser, None, model_of(config, number))


def _schema_of(step: ConfiguredStep) -> dict[str, Any] | None:
    """Of its parsed values; None: nobody knows. A class of the user's may have more fields than its
    schema says."""
    parser = step.parser
    if parser is None or parser.schema is None or not parser.spec.startswith("json_schema:"):
        return None
    return parser.schema()


def _check_templates(config: Config, chain: ConfiguredChain, number: int) -> None:
    """They can be read, and name no step that comes after them."""
    recipe = chain.steps[number].recipe
    names = {*chain.plan.names_in(number)}
    for key in config.steps[number].prompts:
        with placed(config, number, key):
            alone = Recipe(None, getattr(recipe, key), "", {})
            used = Renderer(alone, chain.plan.names).variables & chain.plan.names
            if late := sorted(used - names):
                raise ConfigError(
                    f"needs {{{late[0]}}}, which is not there yet; there is "
                    f"{', '.join(chain.plan.names_in(number)) or 'nothing of another step'}. This "
                    "step or a later one makes it; no variable of the items can be called so"
                )
    if "system" in config.steps[number].prompts and not _has_conversation(recipe):
        name = ENDPOINTS[recipe.endpoint].name
        place = place_in(config, number, "system")
        raise ConfigError(f"{place}: {name} take one text; put it into the user template")


def _check_conversation(config: Config, chain: ConfiguredChain, number: int) -> None:
    if not chain.plan.steps[number].conversation:
        return
    for before in (number, *_parents(chain.plan, number)):
        recipe = chain.steps[before].recipe
        if not _has_conversation(recipe):
            raise ConfigError(
                f"{place_in(config, number, 'conversation')}: step {chain.steps[before].name} "
                f"asks for {ENDPOINTS[recipe.endpoint].name}, which are no conversation"
            )


def _parents(plan: Plan, number: int) -> list[int]:
    """The steps of whose rows those of this one may be made."""
    found: list[int] = []
    for before in reversed(range(number)):
        found.append(before)
        if plan.steps[before].otherwise == "end":
            break
    return found


def _has_conversation(recipe: Recipe) -> bool:
    return ENDPOINTS[recipe.endpoint].conversation is not None
