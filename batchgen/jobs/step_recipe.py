"""From the steps of a config to what each is asked with."""

from collections.abc import Iterator
from contextlib import contextmanager

from batchgen.config import Config, StepPrompt, model_of, place_in
from batchgen.endpoints import ENDPOINTS
from batchgen.errors import ConfigError, UsageError
from batchgen.items import Recipe, Template
from batchgen.jobs.recipe import params_of, problem_with_parser, template_of
from batchgen.parsers import Parser


def recipe_of_step(config: Config, number: int, parser: Parser) -> Recipe:
    """What a step that makes calls is asked with. Raises as `recipe_of`; an error begins with its
    place."""
    step, model = config.steps[number], model_of(config, number)
    own = {name: one for name, one in step.model_settings.items() if name in model.params}
    with placed(config, number, "model"):
        ENDPOINTS[model.endpoint].check_taken(own)
    ENDPOINTS[model.endpoint].check_taken(model.params, "model.")
    with placed(config, number, "parser"):
        if problem := problem_with_parser(model, parser):
            raise ConfigError(problem.removeprefix("parser: "))
    system, user = (_template_of_step(config, number, key) for key in ("system", "user"))
    with placed(config, number, "structured_output"):
        params = params_of(model, parser, asks_schema=step.structured_output)
    return Recipe(system, user, model.model, params, model.endpoint)


# Of a step that makes no call.
RECIPE_OF_FUNCTIONS = Recipe(system=None, user=None, model="", params={}, runs_code=True)


@contextmanager
def placed(config: Config, number: int, key: str) -> Iterator[None]:
    """What is wrong with a setting of a step names its place."""
    try:
        yield
    except UsageError as exc:
        text = str(exc).removeprefix(f"{key}: ")
        message = f"{place_in(config, number, key)}: {text}"
        raise ConfigError(message, exc.remedy, **exc.facts) from exc


def _template_of_step(config: Config, number: int, key: str) -> Template | None:
    prompt: StepPrompt | None = config.steps[number].prompts.get(key)
    if prompt is None:
        return None
    with placed(config, number, key):
        return template_of(f"{config.steps[number].name}.{key}", prompt.text, prompt.path)
