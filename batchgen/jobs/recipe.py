"""The recipe that the config describes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from batchgen.config import Config
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
    _check_endpoint(config, parser)
    prompts = config.prompts
    return Recipe(
        system=_template("system_prompt", prompts.system_prompt, prompts.system_prompt_path),
        user=_template("user_prompt", prompts.user_prompt, prompts.user_prompt_path),
        model=config.model.model,
        params=_params(config, parser),
        endpoint=config.model.endpoint,
    )


def _check_endpoint(config: Config, parser: Parser) -> None:
    endpoint = ENDPOINTS[config.model.endpoint]
    endpoint.check_taken(config.model.params, "model.")
    if not endpoint.has_text and parser.spec != "raw":
        why = f"{endpoint.answer} has no text to parse, its vector is what is parsed"
        if is_script_parser(parser.spec):
            raise ConfigError(f"extract_function: must be left out: {why}")
        raise ConfigError(f"parser: must be raw, not {shown_spec(parser.spec)!r}: {why}")


def _template(name: str, text: str | None, path: Path | None) -> Template | None:
    if text is not None:
        return text_template(text, name)
    return load_template(path) if path else None


def _params(config: Config, parser: Parser) -> Mapping[str, Any]:
    params = config.model.params
    if not config.structured_output:
        return params
    if "response_format" in params or "response_format" in params.get("extra_body", {}):
        raise ConfigError("structured_output: model sets a response_format of its own; keep one")
    return {**params, "response_format": response_format(parser)}
