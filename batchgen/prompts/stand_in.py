"""In place of a value that is known only when a chain has come to it: whatever a template does with
it can be done."""

from collections.abc import Iterator
from typing import Any

_NOT_THERE = ("unsafe_callable", "alters_data")  # by which Jinja's sandbox refuses a call


class StandIn(dict[str, Any]):
    """Has every field and element, is a text, a list and a number, and can be called."""

    def get(self, *_: Any) -> "StandIn":
        return self

    def __getattr__(self, name: str) -> "StandIn":
        if name.startswith("__") or name in _NOT_THERE:
            raise AttributeError(name)
        return self

    def __getitem__(self, _: object) -> "StandIn":
        return self

    def __iter__(self) -> Iterator[Any]:
        yield self

    def __len__(self) -> int:
        return 1

    def __call__(self, *_: Any, **__: Any) -> "StandIn":
        return self

    def __str__(self) -> str:
        return "..."

    def __hash__(self) -> int:  # type: ignore[override]  # as a key of groupby
        return 1

    def _itself(self, *_: Any) -> "StandIn":
        return self

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _itself
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = _itself
    __neg__ = __abs__ = _itself

    def _is_so(self, *_: Any) -> bool:
        return True

    __lt__ = __le__ = __gt__ = __ge__ = _is_so

    def _one(self, *_: Any) -> int:
        return 1

    __int__ = __index__ = __round__ = _one

    def __float__(self) -> float:
        return 1.0
