"""What calls cost: by the config and by public prices, at a service tier, in provider batches."""

from datetime import UTC, datetime
from typing import Any

import pytest
from genai_prices import Usage as Counted
from genai_prices import calc_price
from genai_prices.data_snapshot import get_snapshot
from msgspec.structs import replace

from batchgen.config import ModelConfig, Price
from batchgen.endpoints import CHAT
from batchgen.errors import ConfigError
from batchgen.items import Usage
from batchgen.llm.prices import Prices

OPENAI = Prices(ModelConfig())
AZURE = Prices(ModelConfig(base_url="https://mine.openai.azure.com/openai/v1"))
GROQ = Prices(ModelConfig(base_url="https://api.groq.com/openai/v1"))
GOOGLE = Prices(ModelConfig(base_url="https://generativelanguage.googleapis.com/v1beta/openai"))
OWN = Price(1.0, 4.0, 0.5, larger=(1000, Price(2.0, 8.0, 1.0)))
USED = Usage(1_000_000, 1_000_000, 500_000)


def asking(model: str, **params: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "Hello"}]
    return {"model": model, "messages": messages, "max_tokens": 1000, **params}


def test_the_price_of_a_known_model_is_that_of_its_vendor() -> None:
    prices = Prices(ModelConfig())
    usage = Usage(prompt_tokens=1000, completion_tokens=100, cached_tokens=200)
    price = prices.of("gpt-4o-2024-11-20")
    assert price == Price(2.5, 10.0, 1.25)
    assert prices.cost_usd({"model": "gpt-4o-2024-11-20"}, usage) == pytest.approx(
        (800 * 2.5 + 200 * 1.25 + 100 * 10) / 1e6
    )
    assert prices.cost_usd({"model": "gpt-4o-2024-11-20"}, Usage()) is None


@pytest.mark.parametrize("base_url", ["http://localhost:8000/v1", "https://api.openai.com/v1"])
@pytest.mark.parametrize("model", ["nobody-s-model", "openai/gpt-oss-120b", "a/b"])
def test_a_model_that_nobody_knows_has_no_price(base_url: str, model: str) -> None:
    prices = Prices(ModelConfig(base_url=base_url))
    assert (prices.of(model), prices.estimate_note(model)) == (None, None)


@pytest.mark.parametrize("model", ["gpt-4o", "openai/gpt-4o", "gpt-4o-2024-11-20"])
def test_behind_a_proxy_a_price_is_that_of_the_name_and_said_to_be_an_estimate(model: str) -> None:
    prices = Prices(ModelConfig(base_url="http://proxy:4000/v1"))
    assert prices.of(model) == Price(2.5, 10.0, 1.25)
    note = prices.estimate_note(model)
    assert note is not None
    assert note.startswith(f"costs are estimates: the price of {model} at http://proxy:4000/v1 is")
    exact = [ModelConfig(), ModelConfig(base_url="http://proxy/v1", price=Price(1.0, 1.0, 1.0))]
    assert [Prices(one).estimate_note("gpt-4o") for one in exact] == [None, None]


def test_a_long_prompt_has_the_price_of_its_tier() -> None:
    url = "https://generativelanguage.googleapis.com/v1beta/openai"
    price = Prices(ModelConfig(base_url=url)).of("gemini-2.5-pro")
    assert price is not None
    assert price.larger is not None
    start, dearer = price.larger
    assert dearer.input_usd_per_mtok > price.input_usd_per_mtok
    few, many = Usage(start - 1, 0), Usage(start, 0)
    assert price.cost_usd(few) == pytest.approx((start - 1) * price.input_usd_per_mtok / 1e6)
    assert price.cost_usd(many) == pytest.approx(start * dearer.input_usd_per_mtok / 1e6)


def test_an_image_counts_as_many_tokens_at_most() -> None:
    prices = Prices(ModelConfig(price=Price(1.0, 1.0, 1.0)))
    image = {"type": "image_url", "image_url": {"url": "http://a/b.png"}}
    text = {"type": "text", "text": "What is it?"}
    body = {"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": [text]}]}
    least = prices.worst_case(body, CHAT).tokens
    body["messages"] = [{"role": "user", "content": [text, image]}]
    assert prices.worst_case(body, CHAT).tokens > least + 50_000


def test_without_max_tokens_or_a_price_the_most_is_not_known() -> None:
    prices = Prices(ModelConfig(base_url="http://localhost/v1"))
    with pytest.raises(ConfigError, match=r"model\.max_tokens: is not set"):
        prices.worst_case({"model": "m", "messages": []}, CHAT)
    with pytest.raises(ConfigError, match=r"model\.price: the price of 'm'"):
        prices.worst_case({"model": "m", "messages": [], "max_tokens": 1}, CHAT)
    assert (
        prices.worst_case({"model": "m", "max_tokens": 5}, CHAT, needs_cost=False).cost_usd is None
    )


# Service tiers


@pytest.mark.parametrize(
    ("asked", "served", "costs"),
    [
        (None, None, Price(0.25, 2.0, 0.025)),
        ("flex", None, Price(0.125, 1.0, 0.0125)),
        ("flex", "flex", Price(0.125, 1.0, 0.0125)),
        ("flex", "auto", Price(0.125, 1.0, 0.0125)),
        ("flex", "default", Price(0.25, 2.0, 0.025)),
        ("flex", "standard", Price(0.25, 2.0, 0.025)),
        ("priority", "default", Price(0.25, 2.0, 0.025)),
        ("priority", "priority", Price(0.45, 3.6, 0.045)),
        ("fast", "priority", Price(0.45, 3.6, 0.045)),
        ("auto", "default", Price(0.25, 2.0, 0.025)),
        ("auto", "priority", Price(0.45, 3.6, 0.045)),
        (None, "flex", Price(0.125, 1.0, 0.0125)),
        ("flex", "nobody-s", None),
    ],
)
def test_a_call_costs_the_price_of_the_tier_that_served_it(
    asked: str | None, served: str | None, costs: Price | None
) -> None:
    body = asking("gpt-5-mini", **({"service_tier": asked} if asked else {}))
    cost_usd = OPENAI.cost_usd(body, replace(USED, service_tier=served))
    assert cost_usd == (None if costs is None else pytest.approx(costs.cost_usd(USED)))


def test_every_tier_and_batch_of_the_list_costs_what_the_list_says() -> None:
    openai = next(one for one in get_snapshot().providers if one.id == "openai")
    looked_at = set()
    for model in openai.models:
        for variant in model.price_variants or ():
            [(name, value)] = variant.when.items()
            prices = OPENAI.in_batches if value == "batch" else OPENAI
            body = {"model": model.id} | ({"service_tier": value} if value != "batch" else {})
            if not model.is_match(model.id) or prices.of_request(body) is None:
                continue
            for prompt in (1000, 500_000):
                theirs = calc_price(
                    Counted(input_tokens=prompt, cache_read_tokens=200, output_tokens=50),
                    model.id, provider_id="openai", price_context={name: value},
                )  # fmt: skip
                ours = prices.cost_usd(body, Usage(prompt, 50, 200))
                assert ours == pytest.approx(float(theirs.total_price)), (model.id, value)
            looked_at.add((model.id, value))
    assert {value for _, value in looked_at} == {"default", "flex", "priority", "fast", "batch"}
    assert len(looked_at) > 100


@pytest.mark.parametrize(
    ("prices", "model"), [(OPENAI, "gpt-4.1"), (AZURE, "gpt-5-mini"), (GOOGLE, "gemini-2.5-flash")]
)
def test_the_price_of_a_tier_that_the_list_does_not_have_is_not_known(
    prices: Prices, model: str
) -> None:
    body = asking(model, service_tier="flex")
    assert prices.of(model) is not None
    assert prices.cost_usd(body, USED) is None
    assert prices.worst_case(body, CHAT, needs_cost=False).cost_usd is None
    said = rf"model\.price: the price of '{model}' with service_tier 'flex' at https.* is not known"
    with pytest.raises(ConfigError, match=said):
        prices.worst_case(body, CHAT)
    assert "whose price is not known" in (prices.tier_note(body, USED) or "")


def test_a_vendor_that_charges_a_tier_as_its_standard_one() -> None:
    body = asking("openai/gpt-oss-120b", service_tier="flex")
    assert GROQ.of_request(body) == GROQ.of("openai/gpt-oss-120b") == Price(0.15, 0.6, 0.075)


def test_behind_a_proxy_the_price_of_a_tier_is_that_of_the_name() -> None:
    proxy = Prices(ModelConfig(base_url="http://proxy:4000/v1"))
    assert proxy.of("openai/gpt-5-mini", "flex") == Price(0.125, 1.0, 0.0125)
    assert proxy.in_batches.of("gpt-5-mini") == Price(0.125, 1.0, 0.0125)


def test_a_price_of_the_config_holds_at_any_tier() -> None:
    prices = Prices(ModelConfig(price=OWN))
    for tier in ("flex", "nobody-s"):
        body = asking("gpt-5-mini", service_tier=tier)
        assert prices.of_request(body) == OWN
        assert prices.cost_usd(body, replace(USED, service_tier="default")) == OWN.cost_usd(USED)
        assert prices.tier_note(body, replace(USED, service_tier="default")) is None


def test_a_tier_may_stand_in_extra_body_and_is_the_one_of_the_section() -> None:
    params = {"extra_body": {"service_tier": "flex"}}
    prices = Prices(ModelConfig(model="gpt-5-mini", params=params))
    assert prices.of_section == prices.of("gpt-5-mini", "flex") != prices.of("gpt-5-mini")


@pytest.mark.parametrize(("tier", "at"), [("flex", None), ("priority", "priority"), ("auto", None)])
def test_the_most_that_a_call_can_cost_is_at_the_dearer_of_two_tiers(
    tier: str, at: str | None
) -> None:
    body = asking("gpt-5-mini", service_tier=tier)
    worst, price = OPENAI.worst_case(body, CHAT), OPENAI.of("gpt-5-mini", at)
    assert price is not None
    prompt = worst.tokens - 1000
    assert worst.cost_usd == pytest.approx(price.cost_usd(Usage(prompt, 1000)))
    assert worst.answer_usd == pytest.approx(price.cost_usd(Usage(0, 1000)))


def test_a_cached_token_that_is_dearer_counts_in_the_most_that_a_call_can_cost() -> None:
    prices = Prices(ModelConfig(price=Price(1.0, 0.0, 3.0)))
    worst = prices.worst_case(asking("m"), CHAT)
    assert worst.cost_usd == pytest.approx((worst.tokens - 1000) * 3 / 1e6)


@pytest.mark.parametrize(
    ("asked", "served", "said"),
    [
        ("flex", "default", "asked for service_tier flex were served at the standard service_tier"),
        (None, "priority", "asked for the standard service_tier were served at service_tier prio"),
        ("priority", "scale", "calls of gpt-5-mini are served at service_tier scale, whose price"),
        ("flex", "flex", None),
        ("fast", "priority", None),
        (None, "default", None),
        (None, None, None),
    ],
)
def test_what_is_said_of_a_tier(asked: str | None, served: str | None, said: str | None) -> None:
    body = asking("gpt-5-mini", **({"service_tier": asked} if asked else {}))
    note = OPENAI.tier_note(body, replace(USED, service_tier=served))
    assert (note is None) == (said is None)
    assert (said or "") in (note or "")


# Prices by the hour


DEEPSEEK = Prices(ModelConfig(base_url="https://api.deepseek.com/v1"))


@pytest.mark.parametrize("hour", range(24))
def test_a_call_costs_the_price_of_the_hour_of_its_answer(hour: int) -> None:
    at = datetime(2026, 11, 3, hour, 20, tzinfo=UTC)
    body, used = asking("deepseek-flash"), Usage(1000, 50, 200)
    theirs = calc_price(
        Counted(input_tokens=1000, cache_read_tokens=200, output_tokens=50),
        "deepseek-flash", provider_id="deepseek", genai_request_timestamp=at,
    )  # fmt: skip
    ours = DEEPSEEK.cost_usd(body, used, int(at.timestamp() * 1000))
    assert ours == pytest.approx(float(theirs.total_price))


def test_the_most_that_a_call_can_cost_is_at_the_dearest_hour() -> None:
    body = asking("deepseek-flash")
    worst = DEEPSEEK.worst_case(body, CHAT)
    used = Usage(worst.tokens - 1000, 1000)
    hours = [datetime(2026, 11, 3, hour, tzinfo=UTC).timestamp() for hour in range(24)]
    by_hour = {DEEPSEEK.cost_usd(body, used, int(one * 1000)) for one in hours}
    assert len(by_hour) == 2
    assert worst.cost_usd == pytest.approx(max(filter(None, by_hour)))


def test_a_price_that_changes_on_a_day_does_so_in_a_run() -> None:
    before, after = (int(datetime(2025, 6, day, tzinfo=UTC).timestamp()) * 1000 for day in (9, 10))
    assert OPENAI.of("o3", None, before) == Price(10.0, 40.0, 0.5)
    assert OPENAI.of("o3", None, after) == Price(2.0, 8.0, 0.5)


# Provider batches


def test_the_price_in_batches_is_the_vendor_s_own() -> None:
    assert OPENAI.in_batches.of("gpt-4o-2024-11-20") == Price(1.25, 5.0, 1.25)
    found, full = GOOGLE.in_batches.of("gemini-2.5-pro"), GOOGLE.of("gemini-2.5-pro")
    assert found is not None
    assert full is not None
    assert (found.input_usd_per_mtok, found.output_usd_per_mtok) == (
        full.input_usd_per_mtok / 2, full.output_usd_per_mtok / 2,
    )  # fmt: skip
    assert found.cached_input_usd_per_mtok == full.cached_input_usd_per_mtok
    assert found.larger is not None
    assert full.larger is not None
    assert found.larger[0] == full.larger[0]
    assert found.larger[1].output_usd_per_mtok == full.larger[1].output_usd_per_mtok / 2


def test_in_a_batch_no_tier_counts() -> None:
    body = asking("gpt-5-mini", service_tier="priority")
    batch = Price(0.125, 1.0, 0.0125)
    prices, used = OPENAI.in_batches, replace(USED, service_tier="default")
    assert prices.cost_usd(body, used) == pytest.approx(batch.cost_usd(USED))
    worst = prices.worst_case(body, CHAT)
    assert worst.cost_usd == pytest.approx(batch.cost_usd(Usage(worst.tokens - 1000, 1000)))
    assert prices.tier_note(body, used) is None


@pytest.mark.parametrize(("prices", "model"), [(OPENAI, "gpt-5.3-codex"), (AZURE, "gpt-4o")])
def test_a_price_in_batches_that_the_list_does_not_have_is_not_guessed(
    prices: Prices, model: str
) -> None:
    assert prices.of(model) is not None
    assert prices.in_batches.of(model) is None
    said = rf"^model\.price\.batch: the price of '{model}' in batches at .*batch: {{input_usd_per"
    with pytest.raises(ConfigError, match=said):
        prices.in_batches.worst_case(asking(model), CHAT)


def test_a_price_of_the_config_is_half_in_batches_unless_it_says_another_one() -> None:
    half = Prices(ModelConfig(price=OWN)).in_batches
    assert half.of("m") == Price(0.5, 2.0, 0.25, larger=(1000, Price(1.0, 4.0, 0.5)))
    stated = replace(OWN, batch=Price(0.9, 3.0, 0.9))
    assert Prices(ModelConfig(price=stated)).in_batches.of("m") == Price(0.9, 3.0, 0.9)
    assert Prices(ModelConfig(price=stated)).of("m") == stated
    others = Prices(ModelConfig(price=OWN), {"gpt-4o": None, "b": stated})
    assert others.in_batches.of("gpt-4o") == Price(1.25, 5.0, 1.25)
    assert others.in_batches.of("b") == stated.batch
