"""The steps of a chain, as the config describes them.

    step_settings   what an entry of `steps` may have: the reference
    step_list       from the list to the steps, and what is wrong with it

All that can be told from the settings alone is told there; whether the files and functions that
they name can be used, `jobs/chain.py` finds out.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from batchgen.config.kinds import PARAMETERS
from batchgen.config.sent import merged
from batchgen.config.values import OF_SERVERS, Config, ModelConfig
from batchgen.endpoints import ENDPOINTS, LIMITS
from batchgen.errors import ConfigError
from batchgen.steps import Plan, StepRule

_SENT = ("headers", "query")


class StepPrompt(Struct, frozen=True):
    """A template of a step: a file, or its text."""

    path: Path | None = None
    text: str | None = None


class StepConfig(Struct, frozen=True, kw_only=True):
    """One step. Either `function`, the user's own, ends its rows, or a call does, which `model_of`
    says all of; `model_settings` are those that the step has of its own."""

    rule: StepRule
    user: StepPrompt | None = None
    system: StepPrompt | None = None
    model_settings: Mapping[str, Any] = field(default_factory=dict)
    parser: str = "raw"
    structured_output: bool = False
    function: str | None = None

    def __repr__(self) -> str:
        """Without what may be secret."""
        return f"StepConfig(rule={self.rule!r})"

    @property
    def name(self) -> str:
        return self.rule.name

    @property
    def has_own_servers(self) -> bool:
        """Whether it is asked at other servers than the section `model` names, or otherwise."""
        return not self.model_settings.keys().isdisjoint((*OF_SERVERS, "stream"))

    @property
    def specs(self) -> tuple[str, ...]:
        """What of the user's code and schemas it names."""
        return (self.parser, *([self.function] if self.function else []))

    @property
    def prompts(self) -> dict[str, StepPrompt]:
        """Its templates, by their keys."""
        both = {"system": self.system, "user": self.user}
        return {key: prompt for key, prompt in both.items() if prompt}


def place_of(number: int, key: str, name: str) -> str:
    """Where something of a step is set, as messages name it."""
    return f"steps[{number}].{key} (step {name})"


def place_in(config: Config, number: int, key: str) -> str:
    """The same, with the file or whatever it is set in."""
    place = place_of(number, key, config.steps[number].name)
    return f"{config.steps_place}{place.removeprefix('steps')}"


def prompt_files(config: Config) -> dict[str, Path]:
    """Those of the templates that are files, by where they are set."""
    return {
        place_in(config, number, key): prompt.path
        for number, step in enumerate(config.steps)
        for key, prompt in step.prompts.items()
        if prompt.path
    }


def plan_of(config: Config) -> Plan:
    """The rules of the chain that the config describes; it has steps."""
    rules = tuple(step.rule for step in config.steps)
    return Plan(rules, config.result or (rules[-1].name,))


def model_of(config: Config, number: int) -> ModelConfig:
    """The server of a step, and what is asked of it: what the step has of its own counts, the rest
    is that of the section `model`. Where the step names servers, nothing that is sent to that of
    the section goes there: no key, no header, and no limit of it holds."""
    own, model = config.steps[number].model_settings, config.model
    if own.get("base_url") or own.get("servers"):
        names = (*OF_SERVERS, "api_key_variable", "url_variables")
        model = replace(model, **{one: getattr(ModelConfig(), one) for one in names})
    elif own:
        own = {**own, **{one: merged(getattr(model, one), own[one]) for one in _SENT if one in own}}
    settings = {name: value for name, value in own.items() if name not in PARAMETERS}
    if own.get("servers"):
        first = own["servers"][0]  # for estimates
        settings |= {"base_url": first.base_url, "url_variables": first.url_variables}
    if own.get("model", model.model) != model.model:
        settings.setdefault("price", None)  # that of another model
    params = _params_of(model, own, own.get("endpoint", model.endpoint))
    return replace(model, **settings, params=params, place=f"steps[{number}].model")


def _params_of(model: ModelConfig, own: Mapping[str, Any], endpoint: str) -> dict[str, Any]:
    """Of the section's, what this endpoint takes."""
    inherited = model.params
    if endpoint != model.endpoint:
        inherited = ENDPOINTS[endpoint].takes(inherited)
    if not own.keys().isdisjoint(LIMITS):
        inherited = {name: value for name, value in inherited.items() if name not in LIMITS}
    params = {**inherited, **{name: value for name, value in own.items() if name in PARAMETERS}}
    return {name: value for name, value in params.items() if value is not None}


def check_models(config: Config) -> None:
    """Raises ConfigError where what a step has of its own does not go with the section `model`."""
    if not config.model.servers:
        return
    for number, step in enumerate(config.steps):
        own = step.model_settings
        if own.get("api_key") and not own.get("base_url"):
            raise ConfigError(
                f"{place_in(config, number, 'model.api_key')}: is for one server, and model has "
                "several; name the step's server beside it, in base_url"
            )


def check_result(result: Sequence[str], steps: Sequence[StepConfig]) -> None:
    """Raises ValueError, with what is wrong with the setting `result`."""
    names = [step.name for step in steps]
    if not names:
        raise ValueError("there are no steps of which it could be one")
    for name in result:
        if name not in names:
            raise ValueError(f"there is no step {name}; there is {', '.join(names)}")
        if result.count(name) > 1:
            raise ValueError(f"names {name} twice")
