"""What tokens cost, and how the config says it."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from batchgen.config.kinds import Kind, ValueContext, or_null, shown_key, shown_value
from batchgen.items import Usage

_MAX_USD_PER_MTOK = 1e6
_PRICES = ("input_usd_per_mtok", "output_usd_per_mtok", "cached_input_usd_per_mtok")
_BATCH = "batch"


class Price(Struct, frozen=True):
    """US dollars for a million tokens. `larger`: from that many prompt tokens on, the other price
    holds for the whole request. `batch`: the price in provider batches, where one is stated."""

    input_usd_per_mtok: float
    output_usd_per_mtok: float
    cached_input_usd_per_mtok: float
    larger: "tuple[int, Price] | None" = None
    batch: "Price | None" = None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Price":
        """From its fields as JSON has them."""
        larger, batch = values["larger"], values["batch"]
        return cls(
            **{
                **values,
                "larger": larger and (larger[0], cls.from_json(larger[1])),
                "batch": batch and cls.from_json(batch),
            }
        )

    @property
    def in_batches(self) -> "Price":
        """The price in provider batches: half, unless one is stated."""
        if self.batch is not None:
            return self.batch
        return Price(
            self.input_usd_per_mtok / 2,
            self.output_usd_per_mtok / 2,
            self.cached_input_usd_per_mtok / 2,
            self.larger and (self.larger[0], self.larger[1].in_batches),
        )

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

    def most_usd(self, prompt: int, completion: int) -> float:
        """The most that so many tokens cost, whether any were cached or not."""
        if self.larger is not None and prompt >= self.larger[0]:
            return self.larger[1].most_usd(prompt, completion)
        is_dearer = self.cached_input_usd_per_mtok > self.input_usd_per_mtok
        return self.cost_of_tokens(prompt, completion, prompt if is_dearer else 0)


def _check_price(value: Any, _: ValueContext) -> Price:
    if not isinstance(value, dict):
        raise ValueError
    batch = value.get(_BATCH)
    price = _price_of({name: one for name, one in value.items() if name != _BATCH}, "", _BATCH)
    if batch is None:
        return price
    if not isinstance(batch, dict):
        raise ValueError(f"{_BATCH} must be a mapping or null, not {shown_value(batch)}")
    return replace(price, batch=_price_of(batch, f"{_BATCH}."))


def _price_of(value: Mapping[str, Any], place: str, *more: str) -> Price:
    """`place` goes before the names; there may be `more` of these beside it."""
    for name, price in value.items():
        if name not in _PRICES:
            known = ", ".join((*_PRICES, *more))
            raise ValueError(f"{place}{shown_key(name)} is unknown; there are {known}")
        if type(price) not in (int, float) or not 0 <= price <= _MAX_USD_PER_MTOK:
            raise ValueError(f"{place}{name} must be a number >= 0, not {shown_value(price)}")
    if missing := [name for name in _PRICES[:2] if name not in value]:
        raise ValueError(f"{place}{missing[0]} is missing")
    in_usd, out_usd = float(value[_PRICES[0]]), float(value[_PRICES[1]])
    return Price(in_usd, out_usd, float(value.get(_PRICES[2], in_usd)))


PRICE = or_null(Kind("a mapping", _check_price))
