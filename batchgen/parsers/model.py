"""A pydantic model as a parser: `module:Model`, `path.py:Model`."""

import inspect
import json
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, TypeGuard

from batchgen.errors import ConfigError
from batchgen.parsers.fingerprint import fingerprint
from batchgen.parsers.json_value import parse_fitting_json
from batchgen.parsers.parser import Parser
from batchgen.parsers.problems import listed
from batchgen.userfunctions import describe

if TYPE_CHECKING:
    from pydantic import BaseModel


def is_model(named: object) -> "TypeGuard[type[BaseModel]]":
    """Whether `named` is a pydantic model, of pydantic 2."""
    if not inspect.isclass(named):
        return False
    from pydantic import BaseModel

    return issubclass(named, BaseModel)


def model_parser(model: "type[BaseModel]", spec: str, data_files: Collection[str] = ()) -> Parser:
    """A parser that validates the JSON in an answer by the model; its value is the model as JSON.
    The model's validators are the user's code. Raises ConfigError when the model is not
    complete."""
    from pydantic import ValidationError

    try:
        model.model_rebuild()
    except Exception as exc:  # an undefined name in an annotation, or anything else
        raise ConfigError(f"parser {spec!r}: {describe(exc)}") from exc

    def parse(text: str, _item: Mapping[str, Any], _timeout_s: float | None = None) -> Any:
        made: list[Any] = []

        def problem_of(value: Any) -> str:
            try:
                # As JSON, not as Python values: only so does a strict model take a date as text.
                made.append(model.model_validate_json(json.dumps(value)))
            except ValidationError as exc:
                found = exc.errors(include_url=False, include_context=False, include_input=False)
                problems = listed((error["loc"], error["msg"]) for error in found)
                return f"the JSON in the answer does not fit {model.__name__}: {problems}"
            return ""

        parse_fitting_json(text, problem_of)
        return made[0].model_dump(mode="json")

    def schema() -> dict[str, Any]:
        try:
            return model.model_json_schema()
        except Exception as exc:  # a field that no JSON Schema describes
            raise ConfigError(f"parser {spec!r} has no JSON Schema: {describe(exc)}") from exc

    known = fingerprint(model, _schema_text(model), data_files=data_files)
    return Parser(
        spec, "function", parse, schema=schema, fingerprint=known.digest, unknown=known.unknown,
        sources=known.sources,
    )  # fmt: skip


def _schema_text(model: "type[BaseModel]") -> str:
    """ "" for one with a field that no JSON Schema describes."""
    try:
        return json.dumps(model.model_json_schema())
    except Exception:
        return ""
