"""What the config asks of the items of a pool: by one recipe, or by the steps of a chain."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from msgspec import Struct

from batchgen.config import Config
from batchgen.items import ParserVersion, Recipe
from batchgen.jobs.recipe import recipe_of
from batchgen.parsers import Parser, load_parser

if TYPE_CHECKING:  # what has no steps need not load them
    from batchgen.jobs.chain import ConfiguredChain
    from batchgen.parsers import StepFunction


class Asked(Struct, frozen=True):
    """The `recipe` of the items, and what reads the answers. With a `chain` both are those of its
    first step."""

    recipe: Recipe
    reader: "Parser | StepFunction"
    chain: "ConfiguredChain | None" = None

    @property
    def version(self) -> ParserVersion:
        """How results name what made their values."""
        return self.reader.version

    @property
    def readers(self) -> "tuple[Parser | StepFunction, ...]":
        """Those of all steps."""
        return (
            (self.reader,) if self.chain is None else tuple(one.reader for one in self.chain.steps)
        )

    def reader_of(self, step: str | None) -> "Parser | StepFunction | None":
        """What reads the answers of a step; None: there is no such step."""
        if self.chain is None or step is None:
            return self.reader if self.chain is None and step is None else None
        return next((one.reader for one in self.chain.steps if one.name == step), None)

    def recipe_of(self, step: str | None) -> Recipe | None:
        """What a step is asked with; None: there is no such step."""
        if self.chain is None or step is None:
            return self.recipe if self.chain is None and step is None else None
        return next((one.recipe for one in self.chain.steps if one.name == step), None)


def asked_of(
    config: Config,
    parsers: Mapping[str, Parser] | None = None,
    functions: "Mapping[str, StepFunction] | None" = None,
) -> Asked:
    """Raises ConfigError or TemplateError when something that the config names cannot be used.
    `parsers` and `functions` are those that are given as objects, by the names of the steps."""
    if not config.steps:
        parser = load_parser(config.parser, config.directory)
        return Asked(recipe_of(config, parser), parser)
    from batchgen.jobs.chain import configured_chain  # here: most configs have no steps

    chain = configured_chain(config, parsers or {}, functions or {})
    first = chain.steps[0]
    return Asked(first.recipe, first.reader, chain)
