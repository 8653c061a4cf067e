"""The parser that an experiment's answers are to be read with now, and how many of them another one
has read. Of a step that runs code it is the function that ends its rows.

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
    from batchgen.parsers import Parser, StepFunction


class Outdated(Struct, frozen=True):
    """`n` items of an experiment have the value of another parser than its present one, `spec`; or
    of another function, if its step runs code. `problem`: why that one cannot be loaded."""

    experiment: str
    spec: str
    n: int
    problem: str | None = None
    runs_code: bool = False


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
        try:
            reader = load_reader(spec, config, experiment)
            number = await store.parsers.find(reader.version)
        except ConfigError as exc:
            number, problem = None, str(exc)
    n = sum(one.n for one in counts if one.parser_id != number)
    runs_code = bool(experiment.runs_code)
    return Outdated(experiment.own_name, spec, n, problem, runs_code) if n else None


def load_reader(spec: str, config: Config, experiment: Experiment) -> "Parser | StepFunction":
    """What makes the values of the experiment's results. Raises ConfigError."""
    # Here: it loads all kinds of parsers.
    from batchgen.parsers import load_parser, load_step_function

    load = load_step_function if experiment.runs_code else load_parser
    return load(spec, config.directory)


def _spec(config: Config, experiment: Experiment, stored: StoredParser) -> str:
    own = None if is_script_parser(stored.version.spec) else _configured(config, experiment)
    return own or stored.version.spec


def _configured(config: Config, experiment: Experiment) -> str | None:
    """What the config names for it; None: nothing."""
    own = config.output_data.experiment_name
    if experiment.step is None:
        return config.parser if experiment.name == own and config.names_parser else None
    if experiment.name not in (own, f"{own}/{experiment.step}"):
        return None
    step = next((one for one in config.steps if one.name == experiment.step), None)
    if step is None or (step.function is None) == bool(experiment.runs_code):
        return None
    return step.function or step.parser


def _is_unchanged(parser: ParserVersion) -> bool:
    """As far as one can tell without loading it."""
    if is_script_parser(parser.spec) or not is_function_parser(parser.spec):
        return True
    from batchgen.parsers import file_digest  # here, too

    files = parser.sources.items()
    return bool(files) and all(file_digest(path) == digest for path, digest in files)


def unseen_changes(parser: "Parser | StepFunction") -> str | None:
    """What the user should know of a parser whose changes cannot all be noticed."""
    if not parser.unknown:
        return None
    what = "parser" if hasattr(parser, "kind") else "function"
    return (
        f"{what} {shown_spec(parser.spec)!r} depends on {', '.join(parser.unknown)}: a change "
        "there is not noticed, so parse again by hand after one"
    )
