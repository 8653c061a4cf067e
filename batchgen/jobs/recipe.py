"""From the config to what is asked: the recipe, with the text of its templates."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from batchgen.config import Config, ModelConfig, StepPrompt, model_of, place_in
from batchgen.endpoints import ENDPOINTS
from batchgen.errors import ConfigError, UsageError
from batchgen.items import Recipe, Template
from batchgen.parsers import Parser, is_script_parser, response_format, shown_spec
from batchgen.prompts import load_template, text_template


def recipe_of(config: Config, parser: Parser) -> Recipe:
    """The recipe that the config describes, with the text of its templates. The parser is in it
    only where the server is asked for answers that fit its schema.

    Raises ConfigError or TemplateError when a template or the parser's schema cannot be used, and
    when the endpoint does not take what the config asks for.
    """
    config.check_prompt_files()
    model, prompts = config.model, config.prompts
    ENDPOINTS[model.endpoint].check_taken(model.params, "model.")
    if problem := _problem_with_parser(model, parser):
        raise ConfigError(problem)
    return Recipe(
        system=_template("system_prompt", prompts.system_prompt, prompts.system_prompt_path),
        user=_template("user_prompt", prompts.user_prompt, prompts.user_prompt_path),
        model=model.model,
        params=_params(model, parser, asks_schema=config.structured_output),
        endpoint=model.endpoint,
    )


def recipe_of_step(config: Config, number: int, parser: Parser) -> Recipe:
    """The same of one of the config's steps, which makes calls. An error begins with its place."""
    step, model = config.steps[number], model_of(config, number)
    own = {name: one for name, one in step.model_settings.items() if name in model.params}
    with placed(config, number, "model"):
        ENDPOINTS[model.endpoint].check_taken(own)
    ENDPOINTS[model.endpoint].check_taken(model.params, "model.")
    with placed(config, number, "parser"):
        if problem := _problem_with_parser(model, parser):
            raise ConfigError(problem.removeprefix("parser: "))
    system, user = (_template_of_step(config, number, key) for key in ("system", "user"))
    with placed(config, number, "structured_output"):
        params = _params(model, parser, asks_schema=step.structured_output)
    return Recipe(system, user, model.model, params, model.endpoint)


def recipe_of_function(spec: str) -> Recipe:
    """Of a step that makes no call."""
    return Recipe(system=None, user=None, model="", params={}, function=spec)


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
        return _template(f"{config.steps[number].name}.{key}", prompt.text, prompt.path)


def _problem_with_parser(model: ModelConfig, parser: Parser) -> str | None:
    endpoint = ENDPOINTS[model.endpoint]
    if endpoint.has_text or parser.spec == "raw":
        return None
    why = f"{endpoint.answer} has no text to parse, its vector is what is parsed"
    if is_script_parser(parser.spec):
        return f"extract_function: must be left out: {why}"
    return f"parser: must be raw, not {shown_spec(parser.spec)!r}: {why}"


def _template(name: str, text: str | None, path: Path | None) -> Template | None:
    if text is not None:
        return text_template(text, name)
    return load_template(path) if path else None


def _params(model: ModelConfig, parser: Parser, *, asks_schema: bool) -> Mapping[str, Any]:
    params = model.params
    if not asks_schema:
        return params
    if "response_format" in params or "response_format" in params.get("extra_body", {}):
        raise ConfigError("structured_output: model sets a response_format of its own; keep one")
    return {**params, "response_format": response_format(parser)}
