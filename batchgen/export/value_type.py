"""The type that a column of JSON values has, if they have one shape."""

from typing import Any

_MOST_FIELDS = 256  # an object with more is rather a mapping, whose keys are data
_MOST_INTEGER = 2**63 - 1
_MOST_EXACT_INTEGER = 2**53  # as a float


class ValueType:
    """The type of the values seen so far: null, bool, int, float, str, a list of values of one
    type, or an object whose fields have a type each. An object may lack fields of another one, and
    null fits everywhere; integers and floats together are floats."""

    def __init__(self) -> None:
        self._kind: str | None = None  # None: nothing but null so far
        self._is_mixed = False
        self._fields: dict[str, ValueType] = {}
        self._element: ValueType | None = None
        self._most = 0

    def see(self, value: Any) -> None:
        """Take one more value into account."""
        if value is None or self._is_mixed:
            return
        kind = type(value).__name__
        if isinstance(value, int) and not isinstance(value, bool):
            self._most = max(self._most, abs(value))
        if self._kind is None:
            self._kind = kind
        elif {kind, self._kind} == {"int", "float"}:
            self._kind = "float"
        elif kind != self._kind:
            self._is_mixed = True
        if isinstance(value, dict):
            self._see_fields(value)
        elif isinstance(value, list):
            self._element = self._element or ValueType()
            for one in value:
                self._element.see(one)

    def _see_fields(self, value: dict[str, Any]) -> None:
        for name, part in value.items():
            if name not in self._fields:
                self._fields[name] = ValueType()
            self._fields[name].see(part)
        self._is_mixed |= len(self._fields) > _MOST_FIELDS

    def arrow(self, pa: Any) -> Any:
        """The type for Arrow; None when the values have no type in common, or none were seen."""
        if self._is_mixed or self._kind is None:
            return None
        if self._kind == "dict":
            parts = {name: field.within(pa) for name, field in self._fields.items()}
            # Parquet cannot hold an object that never has a field.
            has_type = bool(parts) and None not in parts.values()
            return pa.struct(list(parts.items())) if has_type else None
        if self._kind == "list":
            element = self._element.within(pa) if self._element else pa.string()
            return None if element is None else pa.list_(element)
        if self._most > (_MOST_INTEGER if self._kind == "int" else _MOST_EXACT_INTEGER):
            return None
        plain = {"bool": pa.bool_(), "int": pa.int64(), "float": pa.float64(), "str": pa.string()}
        return plain[self._kind]

    def within(self, pa: Any) -> Any:
        """The same of a part of a value: one that is always null is a text without a value."""
        is_null = self._kind is None and not self._is_mixed
        return pa.string() if is_null else self.arrow(pa)
