"""Whether a 429 is about one of several models that a server is asked for: limits belong to a
model. Pure.

Where a model's calls are mostly refused, and those of the others are not, that says nothing of how
many calls the server takes: the model's items wait, and the others go on.
"""

from msgspec import Struct

_KEPT = 0.99  # of what a model's calls brought, with each one more: about the newest hundred count
_MOSTLY, _HARDLY = 0.5, 0.2
_ENOUGH_OTHERS = 5.0
_NOBODY = 0.5


class _Model(Struct):
    taken: float = 0.0
    refused: float = 0.0
    in_a_row: int = 0


class ModelRefusals:
    """Of one worker and server."""

    def __init__(self) -> None:
        self._models: dict[str, _Model] = {}

    def taken(self, model: str) -> None:
        one = self._decayed(model)
        one.taken += 1
        one.in_a_row = 0

    def refused(self, model: str) -> None:
        one = self._decayed(model)
        one.refused += 1
        one.in_a_row += 1

    def in_a_row(self, model: str) -> int:
        """How often calls for it were refused since one was taken."""
        one = self._models.get(model)
        return one.in_a_row if one else 0

    def serves(self, model: str) -> bool:
        """Whether any of its newest calls was taken."""
        one = self._models.get(model)
        return one is not None and one.taken > _NOBODY

    def is_its_own(self, model: str) -> bool:
        """Whether the model is refused, and the others are not."""
        if len(self._models) < 2 or not (one := self._models.get(model)):
            return False
        taken = sum(other.taken for other in self._models.values()) - one.taken
        refused = sum(other.refused for other in self._models.values()) - one.refused
        is_refused = one.refused >= _MOSTLY * (one.taken + one.refused)
        others_are_not = taken >= _ENOUGH_OTHERS and refused < _HARDLY * (taken + refused)
        return is_refused and others_are_not

    def _decayed(self, model: str) -> _Model:
        one = self._models.setdefault(model, _Model())
        one.taken *= _KEPT
        one.refused *= _KEPT
        return one
