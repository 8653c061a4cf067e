"""The `response_format` of a request, made from its parser's schema."""

import re
from typing import Any

from batchgen.errors import ConfigError
from batchgen.parsers.parser import Parser
from batchgen.text.json_text import dump_json

# A server that follows a schema strictly may refuse every other keyword.
_STRICT_KEYWORDS = frozenset(
    (
        *("$defs", "$ref", "additionalProperties", "anyOf", "const", "description", "enum"),
        *("exclusiveMaximum", "exclusiveMinimum", "format", "items", "maxItems", "maximum"),
        *("minItems", "minimum", "multipleOf", "pattern", "properties", "required", "title"),
        "type",
    )
)
_MAX_NAME_CHARS = 64


def response_format(parser: Parser) -> dict[str, Any]:
    """Asks the server for answers that fit the parser's schema; `strict` if the schema allows it.

    The schema is held as text, since a recipe's keys are sorted, and a model writes the fields in
    the order of the schema's keys. `Renderer` sends it as an object.
    Raises ConfigError when the parser has no schema.
    """
    if parser.schema is None:
        raise ConfigError(
            f"structured_output: parser {parser.spec!r} has no schema; "
            "it takes json_schema:FILE or a pydantic model"
        )
    schema = parser.schema()
    title = schema.get("title")
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", title) if isinstance(title, str) else ""
    described = {
        "name": name.strip("_")[:_MAX_NAME_CHARS] or "answer",
        "schema": dump_json(schema),
        "strict": schema.get("type") == "object" and _is_strict(schema),
    }
    return {"type": "json_schema", "json_schema": described}


def _is_strict(schema: Any) -> bool:
    """Whether every object in it requires all its properties and allows no others, and every
    keyword is one of _STRICT_KEYWORDS."""
    if not isinstance(schema, dict) or not schema.keys() <= _STRICT_KEYWORDS:
        return False
    if "$ref" in schema and len(schema) > 1:
        return False
    properties = schema.get("properties", {})
    types = schema.get("type")
    if properties or types == "object" or (isinstance(types, list) and "object" in types):
        everything = set(schema.get("required", ())) == set(properties)
        if not everything or schema.get("additionalProperties") is not False:
            return False
    parts = [*properties.values(), *schema.get("$defs", {}).values(), *schema.get("anyOf", ())]
    parts += [schema["items"]] if "items" in schema else []
    return all(map(_is_strict, parts))
