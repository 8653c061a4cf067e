"""What tokens cost."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from batchgen.items import Usage


class Price(Struct, frozen=True):
    """US dollars for a million tokens. `larger`: from that many prompt tokens on, the other price
    holds for the whole request."""

    input_usd_per_mtok: float
    output_usd_per_mtok: float
    cached_input_usd_per_mtok: float
    larger: "tuple[int, Price] | None" = None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Price":
        """From its fields as JSON has them."""
        larger = values["larger"]
        return cls(**{**values, "larger": larger and (larger[0], cls.from_json(larger[1]))})

    def cost_usd(self, usage: Usage) -> float:
        """What a call cost; tokens that the server did not count cost nothing."""
        prompt, completion = usage.prompt_tokens or 0, usage.completion_tokens or 0
        return self.cost_of_tokens(prompt, completion, min(usage.cached_tokens or 0, prompt))

    def cost_of_tokens(self, prompt: float, completion: float, cached: float = 0) -> float:
        """The same of a call that takes as many on average, dollars."""
        if self.larger is not None and prompt >= self.larger[0]:
            return self.larger[1].cost_of_tokens(prompt, completion, cached)
        return (
            (prompt - cached) * self.input_usd_per_mtok
            + cached * self.cached_input_usd_per_mtok
            + completion * self.output_usd_per_mtok
        ) / 1e6
