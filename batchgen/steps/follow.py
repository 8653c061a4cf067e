"""Which rows are made of one that is done."""

from collections.abc import Mapping, Sequence
from typing import Any

from batchgen.steps.links import Followed, Link
from batchgen.steps.plan import Plan


def follow(
    plan: Plan,
    plan_id: int,
    number: int,
    links: Sequence[Link],
    item_names: Mapping[str, Any],
    parsed_json: str | None,
    response: str | None,
    *,
    input_json: str = "{}",
    gathered: Sequence[Sequence[Link]] = (),
) -> Followed:
    raise NotImplementedError
