"""What a call costs: by `model.price` of the config, or by the public prices of known vendors.

The vendor is found by `model.base_url`, the model by the name in the request. Behind a proxy, whose
URL tells no vendor, the price is that of the vendor whose model has this name: an estimate, which
is said. Other models of a server of one's own have no price unless the config states it.

What the config states holds for whatever is asked of the server. A public price is that of the
service tier that the server says it has served the call at or, where it says none, of the one that
was asked for; a tier whose price is not known has none. A vendor that charges by the hour charges a
call, as far as we know, by the time of its answer.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property, lru_cache
from threading import Thread
from typing import Any

from msgspec import Struct

from batchgen.config import ModelConfig, Price
from batchgen.endpoints import Endpoint
from batchgen.errors import ConfigError
from batchgen.items import Usage
from batchgen.llm.public_prices import (
    BATCH,
    Way,
    at_tier,
    name_of_maker,
    prices_of_a_day,
    public_price,
    quarter_at,
)

# The most that vendors count for an image or a file.
_ATTACHMENT_TOKENS = 100_000
_BYTES_PER_TOKEN = 4  # of English; other languages are nearer to 3
# What leaves the tier to the server, and what vendors call the one that it takes by itself.
_ANY_TIER = "auto"
_STANDARD_TIERS = frozenset({_ANY_TIER, "default", "standard", "standard_only", "on_demand"})
_MOST_KNOWN = 1000
_SAME_TIERS = {"fast": "priority"}  # OpenAI takes both, and says the second


class WorstCase(Struct, frozen=True):
    """The most that a call can use and cost, and how much of that its answer can; in dollars None
    where the price is not known."""

    tokens: int
    cost_usd: float | None
    answer_usd: float | None


class Prices:
    """The prices of one server in a run; `others` are those of models that steps ask it for beside
    that of the config (None: the public one). The list is read when it is first needed, which takes
    some tenths of a second. With `in_batches` they are those of provider batches."""

    def __init__(
        self, model: ModelConfig, others: Mapping[str, Price | None] = {}, *,
        in_batches: bool = False,
    ) -> None:  # fmt: skip
        self._section = model
        self._others = others
        self._is_of_batches = in_batches
        self._place = model.place.partition(".servers")[0]
        self._known: dict[tuple[str, str | None, int], Price | None] = {}

    @cached_property
    def in_batches(self) -> "Prices":
        """The same for what is sent in provider batches, where the tier of a call does not count.
        A price of the config is half there unless it has one for batches."""
        return Prices(self._section, self._others, in_batches=True)

    def read_beside(self) -> None:
        """Read the list in a thread, so that it is there when the first answer comes and has not
        held up the first call."""

        def read() -> None:
            with suppress(Exception):  # it is met where a price is asked for
                self.of(self._section.model)

        Thread(target=read, name="batchgen-prices", daemon=True).start()

    def of(self, model: str, tier: str | None = None, at_ms: int | None = None) -> Price | None:
        """The price of a model, at a service tier of the server (None: its standard one) and a time
        (None: now); None when it is not known."""
        key = model, tier, quarter_at(at_ms)
        if key not in self._known:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[key] = self._price_in(*key)
        return self._known[key]

    def of_request(self, body: Mapping[str, Any], at_ms: int | None = None) -> Price | None:
        """The price of what a request asks for."""
        return self.of(str(body["model"]), _asked_tier(body), at_ms)

    @property
    def of_section(self) -> Price | None:
        """The price of what the section of the config asks for."""
        return self.of_request({"model": self._section.model, **self._section.params})

    def _price_in(self, model: str, tier: str | None, quarter: int) -> Price | None:
        if own := self._own_of(model):
            return own
        place = self._place_of(model, quarter)
        return None if place is None else public_price(*place, self._way(tier), quarter)

    def _all_of(self, model: str, tier: str | None) -> tuple[Price, ...]:
        """All that hold within a day."""
        if own := self._own_of(model):
            return (own,)
        quarter = quarter_at(None)
        place = self._place_of(model, quarter)
        return () if place is None else prices_of_a_day(*place, self._way(tier), quarter)

    def _way(self, tier: str | None) -> Way | None:
        if self._is_of_batches:
            return BATCH
        known = _known_tier(tier)
        return None if known is None else at_tier(known)

    def _place_of(self, model: str, quarter: int) -> tuple[str, str | None] | None:
        """What the list knows a model by: its name at this server, or, if the server has no price
        for it, that of its maker. None: its maker's price does not hold here."""
        base_url = self._section.base_url
        if public_price(model, base_url, None, quarter) is not None:
            return model, base_url
        name = name_of_maker(model)
        return None if name is None else (name, None)

    def _own_of(self, model: str) -> Price | None:
        """As the config has it."""
        own = self._others.get(model, self._section.price)
        return own.in_batches if own and self._is_of_batches else own

    def estimate_note(self, model: str) -> str | None:
        """What is to be said of costs that are an estimate, as the price is only that of the
        model's name; None: the price is the server's, or there is none."""
        place = self._place_of(model, quarter_at(None))
        is_by_name = place is not None and place[1] is None
        if self._own_of(model) or not is_by_name or not self.of(model):
            return None
        return (
            f"costs are estimates: the price of {model} at {self._section.shown_base_url} is not "
            "known, so its maker's public one is taken. To be exact, set model.price"
        )

    def tier_note(self, body: Mapping[str, Any], usage: Usage) -> str | None:
        """What is to be said of the tier that a call was served at: another one than was asked for,
        or one whose price is not known; None: nothing."""
        asked, served = _known_tier(_asked_tier(body)), _known_tier(_tier_of(body, usage))
        if asked is served is None or self._is_of_batches:
            return None
        model = str(body["model"])
        if self._own_of(model):
            return None
        if self.of(model, served) is None:
            if self.of(model) is None:  # nor has it any other price
                return None
            return (
                f"calls of {model} are served at {_at(served)}, whose price is not known: they "
                "count no cost, and under a budget the most that was reserved for each. Set "
                f"{self._place}.price"
            )
        if asked == served:
            return None
        return (
            f"calls of {model} that asked for {_at(asked)} were served at {_at(served)}, and cost "
            "what that costs"
        )

    def cost_usd(
        self, body: Mapping[str, Any], usage: Usage, at_ms: int | None = None
    ) -> float | None:
        """What the call of a request cost that was answered at that time (None: now); None when the
        price is not known or the server did not count tokens."""
        if usage.prompt_tokens is None and usage.completion_tokens is None:
            return None
        price = self.of(str(body["model"]), _tier_of(body, usage), at_ms)
        return None if price is None else price.cost_usd(usage)

    def worst_case(
        self, body: Mapping[str, Any], endpoint: Endpoint, *, needs_cost: bool = True
    ) -> WorstCase:
        """The most that a request can cost within a day: a token is at least a byte, the answer has
        at most `max_tokens`, and a server may serve it at the standard tier instead of the one that
        was asked for. Raises ConfigError when `max_tokens` is not set, or, with `needs_cost`, when
        the price is not known."""
        completion = endpoint.most_tokens(body)
        if completion is None:
            raise ConfigError(
                f"{self._place}.max_tokens: is not set, so nobody knows the most that a call can "
                "cost; a budget needs it."
            )
        prompt = len(json.dumps(body, ensure_ascii=False).encode(errors="replace"))
        prompt += _ATTACHMENT_TOKENS * _attachments(endpoint, body)
        model, tier = str(body["model"]), _known_tier(_asked_tier(body))
        asked = self._all_of(model, tier)
        if not asked:
            if needs_cost:
                raise ConfigError(self._price_missing(body))
            return WorstCase(prompt + completion, None, None)
        standard = self._all_of(model, None) if tier else ()
        dearest = max((*asked, *standard), key=lambda one: one.most_usd(prompt, completion))
        cost_usd = dearest.most_usd(prompt, completion)
        answer_usd = cost_usd - dearest.most_usd(prompt, 0)
        return WorstCase(prompt + completion, cost_usd, answer_usd)

    def _price_missing(self, body: Mapping[str, Any]) -> str:
        key, where = f"{self._place}.price", ""
        example = "input_usd_per_mtok: ..., output_usd_per_mtok: ..."
        if self._is_of_batches:
            key, where = f"{key}.batch", " in batches"
            example = f"{example}, batch: {{{example}}}"
        elif tier := _known_tier(_asked_tier(body)):
            where = f" with service_tier {tier!r}"
        return (
            f"{key}: the price of {body['model']!r}{where} at {self._section.shown_base_url} is "
            f"not known; a budget in dollars needs it. Set {self._place}.price: {{{example}}}"
        )


class Estimate:
    """What a pool would cost, as far as it can be estimated: a token of a prompt is about four
    bytes, and an answer has as many tokens as earlier ones (`completion_tokens` on average) or,
    where there are none, at most `max_tokens`. Each item is asked `samples` times.
    `batch_cost_usd` is what it would cost in provider batches."""

    def __init__(self, prices: Prices, completion_tokens: float | None, samples: int = 1) -> None:
        self._prices = prices
        self._completion_tokens = completion_tokens
        self._samples = samples
        self.is_measured = completion_tokens is not None
        self.prompt_tokens = 0
        self.completion_tokens: float | None = 0
        self.cost_usd: float | None = 0.0
        self.batch_cost_usd: float | None = 0.0

    def add(self, body: Mapping[str, Any], endpoint: Endpoint, more_tokens: int = 0) -> int:
        """Count one more item, by its request, whose prompt has `more_tokens` than are there; the
        tokens of that prompt."""
        names = (*endpoint.prompt_members, *_COUNTED)
        sent = [body[name] for name in names if name in body]
        texts = [json.dumps(part, ensure_ascii=False).encode(errors="replace") for part in sent]
        prompt = sum(map(len, texts)) // _BYTES_PER_TOKEN + more_tokens
        most = endpoint.most_tokens(body)
        completion = self._completion_tokens if self._completion_tokens and most != 0 else most
        self.prompt_tokens += prompt * self._samples
        if completion is None or self.completion_tokens is None:
            self.completion_tokens = self.cost_usd = self.batch_cost_usd = None
            return prompt
        self.completion_tokens += completion * self._samples
        used = Usage(prompt, round(completion))
        self.cost_usd = self._added(self.cost_usd, self._prices, body, used)
        self.batch_cost_usd = self._added(
            self.batch_cost_usd, self._prices.in_batches, body, used
        )  # fmt: skip
        return prompt

    def _added(
        self, cost_usd: float | None, prices: Prices, body: Mapping[str, Any], used: Usage
    ) -> float | None:
        price = prices.of_request(body)
        if price is None or cost_usd is None:
            return None
        return cost_usd + price.cost_usd(used) * self._samples


# Parameters whose tokens are counted with those of the prompt.
_COUNTED = ("tools", "response_format", "text")
_TEXTS = ("text", "input_text", "output_text")


def _attachments(endpoint: Endpoint, body: Mapping[str, Any]) -> int:
    contents = [one.get("content") for one in endpoint.messages_of(body) if isinstance(one, dict)]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    return sum(not isinstance(part, dict) or part.get("type") not in _TEXTS for part in parts)


def _tier_of(body: Mapping[str, Any], usage: Usage) -> str | None:
    """The tier of a call: that of its answer, where it says one."""
    served = usage.service_tier
    return _asked_tier(body) if served in (None, _ANY_TIER) else served


def _asked_tier(body: Mapping[str, Any]) -> str | None:
    """As a request or the params of a recipe have it."""
    asked, extra = body.get("service_tier"), body.get("extra_body")
    if isinstance(extra, dict):
        asked = extra.get("service_tier") or asked
    return asked if isinstance(asked, str) else None


@lru_cache(maxsize=100)
def _known_tier(tier: str | None) -> str | None:
    """As prices are known by it; None: the standard one."""
    tier = (tier or _ANY_TIER).strip().lower()
    return None if tier in _STANDARD_TIERS else _SAME_TIERS.get(tier, tier)


def _at(tier: str | None) -> str:
    return f"service_tier {tier}" if tier else "the standard service_tier"
