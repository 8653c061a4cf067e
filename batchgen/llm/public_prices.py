"""The public prices of vendors, by the list of the genai-prices package.

A vendor may charge a model otherwise at another service tier, or in provider batches: its `way`. A
way that the list does not have for a model has no price here: the standard one would be a guess.
"""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from batchgen.clock import now_ms
from batchgen.config import Price

Way = tuple[str, str]
"""A tier or a batch, as the list calls it; None is the standard way."""

BATCH: Way = ("processing", "batch")
_QUARTER_MS = 15 * 60_000
_QUARTERS_OF_A_DAY = 24 * 4
# Tiers that a vendor charges as its standard one; the list does not have them.
_AS_STANDARD = {"groq": ("flex",)}
# Makers of models that are had from a vendor only, as proxies write them before a name. A model
# with open weights costs on a server of one's own what the server costs.
_MAKERS = ("openai", "azure", "anthropic", "google", "gemini", "x-ai", "xai")
_OPEN_WEIGHTS = ("gpt-oss", "gemma")


def at_tier(tier: str) -> Way:
    return ("service_tier", tier)


def quarter_at(at_ms: int | None) -> int:
    """The quarter of an hour, since 1970, in which a time is (None: now). With one, other prices
    begin to hold: vendors change them, some by the hour."""
    return (now_ms() if at_ms is None else at_ms) // _QUARTER_MS


@lru_cache(maxsize=1000)
def public_price(model: str, base_url: str | None, way: Way | None, quarter: int) -> Price | None:
    """That of the vendor whose server this is, or, without a server, of the model's maker."""
    at = datetime.fromtimestamp(quarter * _QUARTER_MS / 1000, UTC)
    found = _found(model, base_url, way, at)
    if found is None or (way is not None and not _has(found, way, at)):
        return None
    rates = found.model_price
    starts = {
        tier.start
        for rate in (rates.input_mtok, rates.cache_read_mtok, rates.output_mtok)
        for tier in getattr(rate, "tiers", ())
    }
    price = _price_from(rates, max(starts, default=0), None)
    for start in sorted(starts, reverse=True):
        lower = max((other for other in starts if other < start), default=0)
        price = _price_from(rates, lower, (start, price))
    return price


@lru_cache(maxsize=1000)
def prices_of_a_day(
    model: str, base_url: str | None, way: Way | None, quarter: int
) -> tuple[Price, ...]:
    """All that it has within a day from then; none where it is not known."""
    quarters = _QUARTERS_OF_A_DAY if _changes_by_the_hour(model, base_url) else 1
    found = (public_price(model, base_url, way, quarter + ahead) for ahead in range(quarters))
    return tuple({price for price in found if price is not None})


@lru_cache(maxsize=1000)
def _changes_by_the_hour(model: str, base_url: str | None) -> bool:
    found = _found(model, base_url, None, datetime.now(UTC))
    conditional = found.model.prices if found and isinstance(found.model.prices, list) else ()
    return any(hasattr(one.constraint, "start_time") for one in conditional)


def _found(model: str, base_url: str | None, way: Way | None, at: datetime) -> Any:
    from genai_prices import Usage as OneMillion
    from genai_prices import calc_price

    try:
        return calc_price(
            OneMillion(input_tokens=1, output_tokens=1),
            model_ref=model,
            provider_api_url=base_url,
            genai_request_timestamp=at,
            price_context=None if way is None else dict([way]),
        )
    except LookupError:
        return None


def name_of_maker(model: str) -> str | None:
    """The model as its maker calls it, by whatever name a proxy has it; None: its weights are
    open, so the maker's price says nothing."""
    maker, _, name = model.rpartition("/")
    name = name if maker.lower() in ("", *_MAKERS) else model
    return None if name.lower().startswith(_OPEN_WEIGHTS) else name


def _has(found: Any, way: Way, at: datetime) -> bool:
    """Whether what was found is the price of that way. Without one the list gives the standard
    price; so it does where the vendor sells the model of another one, whose ways these are."""
    name, value = way
    if name == "service_tier" and value in _AS_STANDARD.get(found.provider.id, ()):
        return True
    return any(found.model is one for one in found.provider.models) and any(
        variant.when == {name: value}
        and (variant.constraint is None or variant.constraint.active(at))
        for variant in found.model.price_variants or ()
    )


def _price_from(found: Any, start: int, larger: tuple[int, Price] | None) -> Price:
    """The price of requests with `start` input tokens or more."""

    def rate(mtok: Any) -> float:
        prices = [getattr(mtok, "base", mtok)]
        prices += [tier.price for tier in getattr(mtok, "tiers", ()) if tier.start <= start]
        return float(prices[-1] or 0)

    cached = found.input_mtok if found.cache_read_mtok is None else found.cache_read_mtok
    return Price(rate(found.input_mtok), rate(found.output_mtok), rate(cached), larger)
