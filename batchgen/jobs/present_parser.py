"""The parser that an experiment's answers are to be read with now, and how many of them another one
has read.

That is the config's parser for the config's own experiment, if the config names one; for others the
one that the experiment has, whose code may have changed since. A function that only a Python script
has stays what it was: the script is run to change it.
"""

from collections import defaultdict
from typing import TYPE_CHECKING

from msgspec import Struct

from batchgen.config import Config
from batchgen.errors import ConfigError
from batchgen.items import ParserVersion
from batchgen.parsers import is_function_parser, is_script_parser, shown_spec
from batchgen.store import Experiment, ParserCount, ReadStore, StoredParser

if TYPE_CHECKING:
    from batchgen.parsers import Parser


class Outdated(Struct, frozen=True):
    """`n` items of an experiment have the value of another parser than its present one, `spec`.
    `problem`: why that one cannot be loaded."""

    experiment: str
    spec: str
    n: int
    problem: str | None = None


async def present_spec(store: ReadStore, config: Config, experiment: Experiment) -> str:
    """What the experiment's parser is called now."""
    stored = await store.parsers.present(experiment.id)
    return _spec(config, experiment, stored)


async def outdated(
    store: ReadStore, config: Config, experiments: list[Experiment]
) -> dict[int, Outdated]:
    """Of these experiments, by their numbers, those that have items with the value of another
    parser. A user's code is loaded only when its files have changed."""
    counts: defaultdict[int, list[ParserCount]] = defaultdict(list)
    for count in await store.parsers.counts():
        counts[count.experiment_id].append(count)
    found = {}
    for experiment in experiments:
        mine = counts[experiment.id]
        if mine and (one := await _outdated(store, config, experiment, mine)):
            found[experiment.id] = one
    return found


async def _outdated(
    store: ReadStore, config: Config, experiment: Experiment, counts: list[ParserCount]
) -> Outdated | None:
    stored = await store.parsers.present(experiment.id)
    spec, problem = _spec(config, experiment, stored), None
    number: int | None = stored.id
    if spec != stored.version.spec or not _is_unchanged(stored.version):
        from batchgen.parsers import load_parser  # here: it loads all kinds of parsers

        try:
            number = await store.parsers.find(load_parser(spec, config.directory).version)
        except ConfigError as exc:
            number, problem = None, str(exc)
    n = sum(one.n for one in counts if one.parser_id != number)
    return Outdated(experiment.name, spec, n, problem) if n else None


def _spec(config: Config, experiment: Experiment, stored: StoredParser) -> str:
    is_own = experiment.name == config.output_data.experiment_name
    if is_own and config.names_parser and not is_script_parser(stored.version.spec):
        return config.parser
    return stored.version.spec


def _is_unchanged(parser: ParserVersion) -> bool:
    """As far as one can tell without loading it."""
    if is_script_parser(parser.spec) or not is_function_parser(parser.spec):
        return True
    from batchgen.parsers import file_digest  # here, too

    files = parser.sources.items()
    return bool(files) and all(file_digest(path) == digest for path, digest in files)


def unseen_changes(parser: "Parser") -> str | None:
    """What the user should know of a parser whose changes cannot all be noticed."""
    if not parser.unknown:
        return None
    return (
        f"parser {shown_spec(parser.spec)!r} depends on {', '.join(parser.unknown)}: a change "
        "there is not noticed, so parse again by hand after one"
    )
