"""What the schemas of steps' parsers tell of paths: of a condition, a value or a list. Pure.

Of a field that a schema does not name nothing is said where it lets others be there, or says in
words of its own what there is.
"""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from batchgen.errors import ConfigError
from batchgen.steps import Plan

Schema = Mapping[str, Any]
_ELSEWHERE = frozenset((
    "$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "if", "not", "patternProperties",
    "dependentSchemas", "unevaluatedProperties",
))  # fmt: skip


def check_paths(plan: Plan, number: int, key: str, schemas: Sequence[Schema | None]) -> None:
    """Of the `key` of a step: when, value or each. `schemas` are those of all steps' parsed values;
    None: nobody knows. Raises ConfigError for a field that no value can have."""
    conditions = plan.conditions(number)
    expression = {"when": conditions.when, "value": conditions.value, "each": conditions.each}[key]
    if expression is None:
        return
    if key == "value":
        known = {"parsed": schemas[number]}
    else:
        start = plan.gathering_before(number) + 1  # what was gathered is known as lists
        known = {plan.steps[n].name: _of_value(plan, n, schemas) for n in range(start, number)}
    for name, *keys in expression.paths:
        _inside(known.get(str(name)), str(name), keys)


def _of_value(plan: Plan, number: int, schemas: Sequence[Schema | None]) -> Schema | None:
    """Of what the step is called by."""
    path = plan.conditions(number).value
    if path.text == "parsed":
        return schemas[number]
    if path.names != {"parsed"}:
        return None
    return _inside(schemas[number], "parsed", max(path.paths, key=len)[1:])


def _inside(schema: Schema | None, name: str, keys: Iterable[str | int]) -> Schema | None:
    for key in keys:
        if schema is None or not _ELSEWHERE.isdisjoint(schema):
            return None
        fields = schema.get("properties")
        if isinstance(key, int):
            inner, name = schema.get("items"), f"{name}[{key}]"
        elif not fields or schema.get("additionalProperties", False) is not False:
            return None
        elif key not in fields:
            why = f"there is no {key} in {name}, by the schema of its parser"
            raise ConfigError(f"{why}; {_near(key, fields)}")
        else:
            inner, name = fields[key], f"{name}.{key}"
        schema = inner if isinstance(inner, dict) else None
    return schema


def _near(key: str, fields: Mapping[str, Any]) -> str:
    if near := get_close_matches(key, list(fields), 1):
        return f"did you mean {near[0]}?"
    return f"there is {', '.join(fields)}"
