"""What a call costs: by `model.price` of the config, or by the public prices of known vendors.

The vendor is known by `model.base_url`, the model by its name as it is asked for: a server of one's
own costs nothing that we know of. The list is that of the genai-prices package.
"""

from functools import lru_cache
from typing import Any

from batchgen.config import ModelConfig
from batchgen.items import Price, Usage


class Prices:
    """One a run; the list is read at the first question, which takes some tenths of a second."""

    def __init__(self, model: ModelConfig) -> None:
        self._own = model.price
        self._base_url = model.base_url

    def of(self, model: str) -> Price | None:
        """None: not known."""
        return self._own or _public_price(model, self._base_url)

    def cost_usd(self, model: str, usage: Usage) -> float | None:
        """None: the price is not known, or the server did not count the tokens."""
        if usage.prompt_tokens is None and usage.completion_tokens is None:
            return None
        price = self.of(model)
        return None if price is None else price.cost_usd(usage)


@lru_cache(maxsize=1000)
def _public_price(model: str, base_url: str) -> Price | None:
    from genai_prices import Usage as OneMillion
    from genai_prices import calc_price

    try:
        found = calc_price(
            OneMillion(input_tokens=1, output_tokens=1),
            model_ref=model,
            provider_api_url=base_url,
        ).model_price
    except LookupError:
        return None
    starts = {
        tier.start
        for rate in (found.input_mtok, found.cache_read_mtok, found.output_mtok)
        for tier in getattr(rate, "tiers", ())
    }
    price = _price_from(found, max(starts, default=0), None)
    for start in sorted(starts, reverse=True):
        lower = max((other for other in starts if other < start), default=0)
        price = _price_from(found, lower, (start, price))
    return price


def _price_from(found: Any, start: int, larger: tuple[int, Price] | None) -> Price:
    """The price of requests with `start` input tokens or more."""

    def rate(mtok: Any) -> float:
        prices = [getattr(mtok, "base", mtok)]
        prices += [tier.price for tier in getattr(mtok, "tiers", ()) if tier.start <= start]
        return float(prices[-1] or 0)

    cached = found.input_mtok if found.cache_read_mtok is None else found.cache_read_mtok
    return Price(rate(found.input_mtok), rate(found.output_mtok), rate(cached), larger)
