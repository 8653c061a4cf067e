"""What commands say of parsers, and of stored answers that are parsed again by another one."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from batchgen.cli.hints import batchgen, commands
from batchgen.cli.progress import Pace, showing_progress
from batchgen.cli.session import Session, counted
from batchgen.config import Config
from batchgen.display.parsed import kinds_text
from batchgen.display.status import outdated_line
from batchgen.jobs.asked import Asked
from batchgen.jobs.lookup import named
from batchgen.jobs.present_parser import load_reader, outdated, present_spec, unseen_changes
from batchgen.jobs.reparse import UpToDate, bring_up_to_date, still_up_to_date
from batchgen.jobs.reparsing import ReparseResult
from batchgen.parsers import Parser, shown_spec
from batchgen.store import Experiment, Store
from batchgen.worker.requests import Present, PresentParser

if TYPE_CHECKING:  # what has no steps need not load them
    from batchgen.parsers import StepFunction


async def load_present_parsers(
    session: Session, store: Store, config: Config, experiments: Sequence[int] | None
) -> dict[int, Present]:
    """The parsers of these experiments (None: of all), as far as there is something to parse; what
    others have read is parsed again. One that cannot be loaded holds nobody up where nothing is
    left to answer and the config does not ask for it."""
    chosen = [
        one for one in await store.experiments() if experiments is None or one.id in experiments
    ]
    old = await outdated(store, config, chosen)
    counts = await store.counts_by_experiment()
    found = {}
    for one in chosen:
        is_open = one.id in counts and counts[one.id].open
        is_own = one.name == config.output_data.experiment_name
        if one.id in old and old[one.id].problem and not is_open and not is_own:
            session.warn(outdated_line(old[one.id], commands()))
        elif one.id in old or is_open:
            found[one.id] = await _use_present_parser(session, store, config, one)
    return found


async def use_asked(
    session: Session, store: Store, config: Config, asked: Asked
) -> dict[int, Present]:
    """The config's experiment, as far as it is there, has from now on what the config names to read
    its answers; by the numbers of its steps."""
    name = config.output_data.experiment_name
    found = {}
    for one in named(await store.experiments(), name):
        reader = asked.reader_of(one.step)
        if reader is not None and isinstance(reader, Parser) != bool(one.runs_code):
            found[one.id] = await use_parser(session, store, config, one, reader)
    return found


async def update_outdated(
    session: Session, store: Store, config: Config, experiments: Sequence[Experiment]
) -> None:
    """What other parsers than the present ones have read is parsed again, where these can be
    loaded."""
    old = await outdated(store, config, list(experiments))
    for one in experiments:
        if one.id in old and old[one.id].problem is None:
            await _use_present_parser(session, store, config, one)
        elif one.id in old:
            session.warn(outdated_line(old[one.id], commands()))


async def _use_present_parser(
    session: Session, store: Store, config: Config, experiment: Experiment
) -> Present:
    reader = load_reader(await present_spec(store, config, experiment), config, experiment)
    return await use_parser(session, store, config, experiment, reader)


async def use_parser(
    session: Session, store: Store, config: Config, experiment: Experiment,
    parser: "Parser | StepFunction",
) -> Present:  # fmt: skip
    """The experiment has this parser from now on; the stored answers that another one has read are
    parsed again, and what comes of it is said. Rows that another function has ended are run
    again."""
    is_new = await store.parsers.find(parser.version) is None
    timeout_s = config.work.parse_timeout_s
    told = _Told(session, experiment)
    with showing_progress(session, told.so_far):
        done = await bring_up_to_date(
            store, experiment, parser, told.put, timeout_s=timeout_s, say=session.warn
        )
    say_up_to_date(session, experiment, done)
    if is_new:
        warn_of_parser(session, parser)
    return done.present


async def stay_up_to_date(
    session: Session, store: Store, config: Config, parsers: Mapping[int, Present]
) -> None:
    """After the work: what a worker with an earlier version of the parser has read meanwhile."""
    for experiment in await store.experiments():
        if (present := parsers.get(experiment.id)) is None:
            continue
        reparsed = await still_up_to_date(
            store, experiment, present, timeout_s=config.work.parse_timeout_s
        )
        say_up_to_date(session, experiment, UpToDate(present, reparsed))


class _Told:
    """What is said before answers are parsed again, and meanwhile."""

    def __init__(self, session: Session, experiment: Experiment) -> None:
        self._session = session
        self._experiment = experiment
        self._parsed, self._total, self._pace = 0, 0, Pace()

    def so_far(self) -> str:
        return (
            f"{self._experiment.own_name}: {self._parsed:,} of {self._total:,} answers parsed, "
            f"{self._pace.of(self._parsed)}"
        )

    def put(self, parsed: int, total: int) -> None:
        self._parsed, self._total = parsed, total
        if not parsed:
            self._session.say(
                f"{self._experiment.own_name}: the parser is another one now; "
                f"{counted(total, 'stored answer')} {'is' if total == 1 else 'are'} parsed again, "
                "without a call"
            )


def say_up_to_date(session: Session, experiment: Experiment, done: UpToDate) -> None:
    if done.run_again:
        session.say(
            f"{experiment.own_name}: the function is another one now; "
            f"{counted(done.run_again, 'row')} {'is' if done.run_again == 1 else 'are'} run again, "
            "without a call"
        )
    if done.reparsed is None or not isinstance(done.present, PresentParser):
        return
    session.say(f"{experiment.own_name}: {reparsed_text(done.reparsed, done.present.parser.spec)}")
    if done.reparsed.broken:
        session.say(
            "What they were before is kept. See why they failed, and what to do about each: "
            f"{batchgen()} failures"
        )


def warn_of_parser(session: Session, parser: "Parser | StepFunction") -> None:
    if said := unseen_changes(parser):
        session.warn(f"{said}: {batchgen()} reparse --all")


def reparsed_text(result: ReparseResult, spec: str) -> str:
    found = kinds_text(result)
    line = f"{counted(result.answers, 'answer')} parsed with {shown_spec(spec)}"
    if found:
        line += f": {found}"
    be = "would be" if result.dry_run else "is"
    if result.made:
        line += f"; made of them {be} {counted(result.made, 'row')} of later steps"
    if result.stale:
        line += f"; what was made of other values {be} stale: {counted(result.stale, 'row')}, and "
        line += "what follows"
    return f"{line}."
