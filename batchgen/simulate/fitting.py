"""Makes up a value that fits a JSON Schema, for the simulated model's answers. Pure.

It is good enough for the schemas that are sent to models: types, enum, const, required, nesting,
arrays, simple limits, references within the schema. It ignores what it does not know (`pattern`,
`not`, `if`), and no schema, however odd, makes it fail or run for ever.
"""

from collections.abc import Callable, Mapping
from hashlib import sha256
from math import ceil, floor
from typing import Any

_MAX_DEPTH = 8  # beyond it only what is required; beyond twice that, nothing
_MAX_VALUES = 2000  # the same for their number
_MAX_ITEMS = 50
_MAX_CHARS = 10_000
_MAX_LIMIT = 1e15  # where the numbers of JSON still have all their digits
_MIN_STEP = 1e-6
_FORMATS = {
    "date": "2026-{0:02}-{1:02}",
    "date-time": "2026-{0:02}-{1:02}T{2:02}:{3:02}:00Z",
    "time": "{2:02}:{3:02}:00Z",
    "email": "reader{3}@example.org",
    "hostname": "host{3}.example.org",
    "ipv4": "192.0.2.{3}",
    "ipv6": "2001:db8::{3}",
    "uri": "https://example.org/{3}",
    "uuid": "00000000-0000-4000-8000-0000000000{3:02}",
}


def fitting_value(schema: Any, seed: bytes, sentence: Callable[[bytes], str]) -> Any:
    """The value, which depends on `schema` and `seed` alone. `sentence` makes its texts from
    bytes."""
    return _Maker(schema, seed, sentence).value(schema, 0)


class _Maker:
    def __init__(self, root: Any, seed: bytes, sentence: Callable[[bytes], str]) -> None:
        self._root = root
        self._seed = seed
        self._sentence = sentence
        self._made = 0

    def value(self, schema: Any, depth: int) -> Any:
        draw = self._draw()
        schema = self._resolved(schema)
        scarce = depth >= _MAX_DEPTH or self._made > _MAX_VALUES
        if depth >= 2 * _MAX_DEPTH or self._made > 2 * _MAX_VALUES:
            return None
        if "const" in schema:
            return schema["const"]
        if options := _list(schema.get("enum")):
            return options[draw[0] % len(options)]
        for keyword in ("anyOf", "oneOf"):
            if options := _list(schema.get(keyword)):
                return self._one_of(schema, keyword, options, draw[0], depth)
        match _type_of(schema, scarce):
            case "object":
                return self._object(schema, depth, scarce)
            case "array":
                return self._array(schema, depth, draw[1], scarce)
            case "boolean":
                return draw[0] % 2 == 0
            case "null":
                return None
            case "integer":
                return _number(schema, draw, whole=True)
            case "number":
                return _number(schema, draw, whole=False)
        return self._text(schema, draw)

    def _draw(self) -> bytes:
        self._made += 1
        return sha256(self._seed + self._made.to_bytes(4)).digest()

    def _resolved(self, schema: Any) -> dict[str, Any]:
        """`schema` merged with what its `$ref` and `allOf` refer to."""
        merged: dict[str, Any] = {}
        waiting = [schema]
        for _ in range(100):  # references may go round in a circle
            if not waiting:
                break
            part = _mapping(waiting.pop(0))
            waiting += _list(part.get("allOf"))
            if isinstance(part.get("$ref"), str):
                waiting.append(self._lookup(part["$ref"]))
            merged = _merged(merged, part)
        return {name: part for name, part in merged.items() if name not in ("$ref", "allOf")}

    def _lookup(self, reference: str) -> Any:
        found = self._root
        for name in reference.removeprefix("#").split("/")[1:]:
            found = _mapping(found).get(name.replace("~1", "/").replace("~0", "~"))
        return found

    def _one_of(
        self, schema: dict[str, Any], keyword: str, options: list[Any], chosen: int, depth: int
    ) -> Any:
        if (
            depth >= _MAX_DEPTH
        ):  # the simplest, so that a schema that contains itself comes to an end
            options = sorted(options, key=lambda one: len(str(one)))
            chosen = 0
        rest = {name: part for name, part in schema.items() if name != keyword}
        option = self._resolved(options[chosen % len(options)])
        return self.value(_merged(option, rest), depth + 1)

    def _object(self, schema: dict[str, Any], depth: int, scarce: bool) -> dict[str, Any]:
        properties = _mapping(schema.get("properties"))
        required = [name for name in _list(schema.get("required")) if isinstance(name, str)]
        names = required if scarce else dict.fromkeys([*properties, *required])
        return {name: self.value(properties.get(name), depth + 1) for name in names}

    def _array(self, schema: dict[str, Any], depth: int, drawn: int, scarce: bool) -> list[Any]:
        first = _list(schema.get("prefixItems"))
        low = min(max(int(_limit(schema, "minItems", 0)), len(first)), _MAX_ITEMS)
        high = min(max(int(_limit(schema, "maxItems", low + 3)), low), _MAX_ITEMS)
        count = low if scarce else min(max(low, 1) + drawn % 3, high)
        parts = [*first, *[schema.get("items")] * count][:count]
        return [self.value(part, depth + 1) for part in parts]

    def _text(self, schema: dict[str, Any], draw: bytes) -> str:
        form = schema.get("format")
        if isinstance(form, str) and form in _FORMATS:
            return _FORMATS[form].format(
                draw[0] % 12 + 1, draw[1] % 28 + 1, draw[2] % 24, draw[3] % 60
            )
        low = min(int(_limit(schema, "minLength", 0)), _MAX_CHARS)
        high = max(int(_limit(schema, "maxLength", _MAX_CHARS)), low)
        text = self._sentence(draw)
        while len(text) < low:
            text += " " + self._sentence(self._draw())
        return text[:high]


def _number(schema: Mapping[str, Any], draw: bytes, *, whole: bool) -> int | float:
    step: float = _limit(schema, "multipleOf", 0)
    low = _limit(schema, "minimum", _limit(schema, "exclusiveMinimum", None))
    high = _limit(schema, "maximum", _limit(schema, "exclusiveMaximum", None))
    if low is None:
        low = 0 if high is None or high >= 0 else high - 100
    if high is None:
        high = low + 100
    share = (1 + int.from_bytes(draw[:2])) / 65537  # neither end, which may be excluded
    if step < _MIN_STEP and not whole:
        drawn = float(low + share * (high - low))
        return round(drawn, 2) if low < round(drawn, 2) < high else drawn
    step = step if step >= _MIN_STEP else 1
    first, last = ceil(low / step), floor(high / step)
    first += first * step == schema.get("exclusiveMinimum")
    last -= last * step == schema.get("exclusiveMaximum")
    found = (first + int(share * max(last - first + 1, 1))) * step
    return int(found) if whole else found


def _type_of(schema: Mapping[str, Any], scarce: bool) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        kinds = [one for one in kind if isinstance(one, str)]
        others = [one for one in kinds if one != "null"]
        kind = "null" if scarce and "null" in kinds else next(iter(others), "null")
    if isinstance(kind, str):
        return kind
    for keyword, implied in (("properties", "object"), ("items", "array"), ("minimum", "number")):
        if keyword in schema:
            return implied
    return "string"


def _merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    both = {**one, **other}
    if "properties" in both:
        own, others = _mapping(one.get("properties")), _mapping(other.get("properties"))
        both["properties"] = {**own, **others}
    if "required" in both:
        both["required"] = _list(one.get("required")) + _list(other.get("required"))
    return both


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _limit(schema: Mapping[str, Any], name: str, default: Any) -> Any:
    value: Any = schema.get(name)
    return value if type(value) in (int, float) and abs(value) <= _MAX_LIMIT else default
