"""From the config to what is asked: the recipe, with the text of its templates."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from batchgen.config import Config, ModelConfig
from batchgen.endpoints import ENDPOINTS
from batchgen.errors import ConfigError
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
    if problem := problem_with_parser(model, parser):
        raise ConfigError(problem)
    return Recipe(
        system=template_of("system_prompt", prompts.system_prompt, prompts.system_prompt_path),
        user=template_of("user_prompt", prompts.user_prompt, prompts.user_prompt_path),
        model=model.model,
        params=params_of(model, parser, asks_schema=config.structured_output),
        endpoint=model.endpoint,
    )


def problem_with_parser(model: ModelConfig, parser: Parser) -> str | None:
    """Why it can read no answer of this endpoint; None: it can."""
    endpoint = ENDPOINTS[model.endpoint]
    if endpoint.has_text or parser.spec == "raw":
        return None
    why = f"{endpoint.answer} has no text to parse, its vector is what is parsed"
    if is_script_parser(parser.spec):
        return f"extract_function: must be left out: {why}"
    return f"parser: must be raw, not {shown_spec(parser.spec)!r}: {why}"


def template_of(name: str, text: str | None, path: Path | None) -> Template | None:
    """From its text, which is called `name`, or from its file."""
    if text is not None:
        return text_template(text, name)
    return load_template(path) if path else None


def params_of(model: ModelConfig, parser: Parser, *, asks_schema: bool) -> Mapping[str, Any]:
    """Of the request, with the schema of the parser if the server is asked to heed it."""
    params = model.params
    if not asks_schema:
        return params
    if "response_format" in params or "response_format" in params.get("extra_body", {}):
        raise ConfigError("structured_output: model sets a response_format of its own; keep one")
    return {**params, "response_format": response_format(parser)}
