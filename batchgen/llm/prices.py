"""What a call costs: by `model.price` of the config, or by the public prices of known vendors.

The vendor is found by `model.base_url`, the model by the name in the request. Behind a proxy, whose
URL tells no vendor, the price is that of the vendor whose model has this name: an estimate, which
is said. Other models of a server of one's own have no price unless the config states it. The list
is that of the genai-prices package.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from threading import Thread
from typing import Any

from msgspec import Struct

from batchgen.config import ModelConfig, Price
from batchgen.endpoints import Endpoint
from batchgen.errors import ConfigError
from batchgen.items import Usage

# The most that vendors count for an image or a file.
_ATTACHMENT_TOKENS = 100_000
_BYTES_PER_TOKEN = 4  # of English; other languages are nearer to 3


class WorstCase(Struct, frozen=True):
    """The most that a call can use and cost; `cost_usd` is None where the price is not known."""

    tokens: int
    cost_usd: float | None


class Prices:
    """The prices of one server in a run; `others` are those of models that steps ask it for beside
    that of the config (None: the public one). The list is read when it is first needed, which takes
    some tenths of a second."""

    def __init__(self, model: ModelConfig, others: Mapping[str, Price | None] = {}) -> None:
        self._model = model.model
        self._own = model.price
        self._others = others
        self._place = model.place.partition(".servers")[0]
        self._base_url = model.base_url
        self._shown_base_url = model.shown_base_url
        self._known: dict[str, Price | None] = {}

    def read_beside(self) -> None:
        """Read the list in a thread, so that it is there when the first answer comes and has not
        held up the first call."""

        def read() -> None:
            with suppress(Exception):  # it is met where a price is asked for
                self.of(self._model)

        Thread(target=read, name="batchgen-prices", daemon=True).start()

    def of(self, model: str) -> Price | None:
        """The price of a model; None when it is not known."""
        if model not in self._known:
            self._known[model] = self._price_of(model)
        return self._known[model]

    def _price_of(self, model: str) -> Price | None:
        public = self._own_of(model) or _public_price(model, self._base_url)
        return public or _price_by_name(model)

    def _own_of(self, model: str) -> Price | None:
        """As the config has it."""
        return self._others.get(model, self._own)

    def estimate_note(self, model: str) -> str | None:
        """What is to be said of costs that are an estimate, as the price is only that of the
        model's name; None: the price is the server's, or there is none."""
        own = self._own_of(model)
        if own or _public_price(model, self._base_url) or not _price_by_name(model):
            return None
        return (
            f"costs are estimates: the price of {model} at {self._shown_base_url} is not known, so "
            "its maker's public one is taken. To be exact, set model.price"
        )

    def cost_usd(self, model: str, usage: Usage) -> float | None:
        """What a call cost; None when the price is not known or the server did not count tokens."""
        if usage.prompt_tokens is None and usage.completion_tokens is None:
            return None
        price = self.of(model)
        return None if price is None else price.cost_usd(usage)

    def worst_case(
        self, body: Mapping[str, Any], endpoint: Endpoint, *, needs_cost: bool = True
    ) -> WorstCase:
        """The most that a request can cost: a token is at least a byte, and the answer has at most
        `max_tokens`. Raises ConfigError when that is not set, or, with `needs_cost`, when the price
        is not known."""
        completion = endpoint.most_tokens(body)
        if completion is None:
            raise ConfigError(
                f"{self._place}.max_tokens: is not set, so nobody knows the most that a call can "
                "cost; a budget needs it."
            )
        prompt = len(json.dumps(body, ensure_ascii=False).encode(errors="replace"))
        prompt += _ATTACHMENT_TOKENS * _attachments(endpoint, body)
        price = self.of(str(body["model"]))
        if price is None and needs_cost:
            raise ConfigError(
                f"{self._place}.price: the price of {body['model']!r} at {self._shown_base_url} is "
                f"not known; a budget in dollars needs it. Set {self._place}.price: "
                "{input_usd_per_mtok: ..., output_usd_per_mtok: ...}"
            )
        cost_usd = None if price is None else price.cost_usd(Usage(prompt, completion))
        return WorstCase(prompt + completion, cost_usd)


class Estimate:
    """What a pool would cost, as far as it can be estimated: a token of a prompt is about four
    bytes, and an answer has as many tokens as earlier ones (`completion_tokens` on average) or,
    where there are none, at most `max_tokens`. Each item is asked `samples` times."""

    def __init__(self, prices: Prices, completion_tokens: float | None, samples: int = 1) -> None:
        self._prices = prices
        self._completion_tokens = completion_tokens
        self._samples = samples
        self.is_measured = completion_tokens is not None
        self.prompt_tokens = 0
        self.completion_tokens: float | None = 0
        self.cost_usd: float | None = 0.0

    def add(self, body: Mapping[str, Any], endpoint: Endpoint, more_tokens: int = 0) -> int:
        """Count one more item, by its request, whose prompt has `more_tokens` than are there; the
        tokens of that prompt."""
        names = (*endpoint.prompt_members, *_COUNTED)
        sent = [body[name] for name in names if name in body]
        texts = [json.dumps(part, ensure_ascii=False).encode(errors="replace") for part in sent]
        prompt = sum(map(len, texts)) // _BYTES_PER_TOKEN + more_tokens
        most = endpoint.most_tokens(body)
        completion = self._completion_tokens if self._completion_tokens and most != 0 else most
        price = self._prices.of(str(body["model"]))
        self.prompt_tokens += prompt * self._samples
        if completion is None or self.completion_tokens is None:
            self.completion_tokens = self.cost_usd = None
            return prompt
        self.completion_tokens += completion * self._samples
        if price is None or self.cost_usd is None:
            self.cost_usd = None
        else:
            self.cost_usd += price.cost_usd(Usage(prompt, round(completion))) * self._samples
        return prompt


# Parameters whose tokens are counted with those of the prompt.
_COUNTED = ("tools", "response_format", "text")
_TEXTS = ("text", "input_text", "output_text")


def _attachments(endpoint: Endpoint, body: Mapping[str, Any]) -> int:
    contents = [one.get("content") for one in endpoint.messages_of(body) if isinstance(one, dict)]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    return sum(not isinstance(part, dict) or part.get("type") not in _TEXTS for part in parts)


# Makers of models that are had from a vendor only, as proxies write them before a name. A model
# with open weights costs on a server of one's own what the server costs.
_MAKERS = ("openai", "azure", "anthropic", "google", "gemini", "x-ai", "xai")
_OPEN_WEIGHTS = ("gpt-oss", "gemma")


def _price_by_name(model: str) -> Price | None:
    maker, _, name = model.rpartition("/")
    name = name if maker.lower() in ("", *_MAKERS) else model
    return None if name.lower().startswith(_OPEN_WEIGHTS) else _public_price(name, None)


@lru_cache(maxsize=1000)
def _public_price(model: str, base_url: str | None) -> Price | None:
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
