"""The servers that a config names: for its section `model`, and for steps that have some of their
own."""

from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct, field, to_builtins
from msgspec.structs import replace

from batchgen.config import Config, ModelConfig, Price, server_names
from batchgen.llm.prices import Prices
from batchgen.store import server_keys
from batchgen.worker.halts import shown_url
from batchgen.worker.spec import ServerSpec


class ConfiguredServer(Struct, frozen=True):
    """One server, as the section `model` is for it. It answers the rows of these `steps` and, with
    `answers_rest`, those that no other names. `model_prices` are those of other models that steps
    ask it for; None: the public one."""

    model: ModelConfig
    steps: tuple[str, ...] = ()
    answers_rest: bool = True
    model_prices: Mapping[str, Price | None] = field(default_factory=dict)

    @property
    def prices(self) -> Prices:
        return Prices(self.model, self.model_prices)

    def for_step(self, name: str, section: ModelConfig, *, named: bool) -> "ConfiguredServer":
        """The same, as a step asks it, too."""
        asks_other = section.model != self.model.model
        other = {section.model: section.price} if asks_other else {}
        return replace(
            self,
            steps=(*self.steps, name) if named else self.steps,
            model_prices={**self.model_prices, **other},
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values, with the API key and all that is secret: for a private pipe alone."""
        values: dict[str, Any] = to_builtins(self)
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "ConfiguredServer":
        """What `to_json` was called on."""
        given = values["model_prices"].items()
        return cls(
            ModelConfig.from_json(values["model"]), tuple(values["steps"]), values["answers_rest"],
            {name: price and Price.from_json(price) for name, price in given},
        )  # fmt: skip


def configured_servers(config: Config) -> tuple[ConfiguredServer, ...]:
    """All of them, each once, those of the section `model` first. These are left out where each
    step has some of its own, or makes no call."""
    of_all = config.model.of_each_server()
    if not config.steps:
        return tuple(map(ConfiguredServer, of_all))
    sections = list(_sections(config))
    found: list[ConfiguredServer] = []
    if any(_are_same(section, config.model) for _, section in sections):
        found = list(map(ConfiguredServer, of_all))
    for name, section in sections:
        named = not _are_same(section, config.model)
        for one in section.of_each_server():
            place = next(
                (n for n, old in enumerate(found) if _asks_as(old.model) == _asks_as(one)), None
            )
            if place is None:
                place = len(found)
                found.append(ConfiguredServer(one, answers_rest=False))
            found[place] = found[place].for_step(name, section, named=named)
    return tuple(found)


def sections_of(config: Config) -> list[ModelConfig]:
    """What is asked for, by each step that makes calls, or by all items."""
    return [section for _, section in _sections(config)] if config.steps else [config.model]


def prices_of(config: Config) -> Prices:
    """Those of all models that are asked for, by their names."""
    model = config.model
    others = {one.model: one.price for one in sections_of(config) if one.model != model.model}
    return Prices(model, others)


def estimate_note(config: Config) -> str | None:
    """What is to be said of costs that are an estimate, of all models that are asked for; None:
    there is nothing."""
    notes = {
        (one.model, one.shown_base_url): note
        for one in sections_of(config)
        if (note := Prices(one).estimate_note(one.model))
    }
    if len(notes) < 2:
        return next(iter(notes.values()), None)
    models = ", ".join(dict.fromkeys(model for model, _ in notes))
    return (
        f"costs are estimates: the prices of {models} at these servers are not known, so their "
        "makers' public ones are taken. To be exact, set the price of each model"
    )


def server_specs(servers: tuple[ConfiguredServer, ...]) -> tuple[ServerSpec, ...]:
    """The same, as a worker needs them."""
    models = [server.model for server in servers]
    keys = server_keys([one.base_url for one in models])
    names = server_names([one.shown_base_url for one in models])
    return tuple(
        ServerSpec(
            key=key, name=name, place=model.place, shown_url=shown_url(model.shown_base_url),
            slots=model.concurrency, rpm=model.rate_limit, tpm=model.token_limit,
            stream=model.stream, steps=one.steps, answers_rest=one.answers_rest,
        )
        for one, model, key, name in zip(servers, models, keys, names, strict=True)
    )  # fmt: skip


def _sections(config: Config) -> Iterator[tuple[str, ModelConfig]]:
    """Of each step that makes calls, by its name."""
    from batchgen.config import model_of  # here: most configs have no steps

    for number, step in enumerate(config.steps):
        if step.function is None:
            yield step.name, model_of(config, number)


def _are_same(one: ModelConfig, other: ModelConfig) -> bool:
    """Whether both name the same servers."""
    ours, theirs = (
        [_asks_as(each) for each in section.of_each_server()] for section in (one, other)
    )
    return len(ours) == len(theirs) and all(each in theirs for each in ours)


def _asks_as(model: ModelConfig) -> tuple[object, ...]:
    """By what two of them are one."""
    key = model.api_key if model.sends_api_key else None
    return model.base_url, key, model.headers, model.query, model.stream
