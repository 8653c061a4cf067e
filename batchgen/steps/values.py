"""What each step of a chain is called by, for those after it."""

from collections.abc import Sequence
from typing import Any

from batchgen.steps.links import Link
from batchgen.steps.plan import Plan


def chain_values(
    plan: Plan, links: Sequence[Link], gathered: Sequence[Sequence[Link]] = ()
) -> dict[str, Any]:
    raise NotImplementedError
