"""Stored answers parsed once more, by another parser or a mended one, without any call: those that
another parser than the present one has read, or those that are chosen."""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct

from batchgen.config import Config
from batchgen.errors import Remedy, UsageError
from batchgen.items import ParserVersion
from batchgen.jobs.lookup import chosen_experiments, rows_called
from batchgen.jobs.present_parser import present_spec
from batchgen.jobs.reparsing import Progress, ReparseResult, Reparsing
from batchgen.parsers import Parser, load_parser
from batchgen.store import AnswerChoice, EndedAnswer, Experiment, Store
from batchgen.worker.requests import Present, PresentFunction, PresentParser

if TYPE_CHECKING:  # what has no steps need not load them
    from batchgen.parsers import StepFunction


class ReparseRequest(Struct, frozen=True):
    """Which answers: of an `experiment` (None: of all), those that failed at their parser, and with
    `done_too` those of its done items; or, done or not, of the items with these `ids` or numbers,
    if any are given. Of experiments with steps all of these, or one `step`."""

    experiment: str | None = None
    done_too: bool = False
    ids: tuple[str, ...] = ()
    step: str | None = None


class UpToDate(NamedTuple):
    """The parser that reads the experiment's answers from now on, or the function that ends its
    rows; what the parser made of answers that another one had read, if there were any; and how many
    rows the function ends once more."""

    present: Present
    reparsed: ReparseResult | None = None
    run_again: int = 0


async def bring_up_to_date(
    store: Store,
    experiment: Experiment,
    parser: "Parser | StepFunction",
    progress: Progress | None = None,
    *,
    timeout_s: float = 30.0,
    say: Callable[[str], None] = lambda _: None,
) -> UpToDate:
    """Make it the experiment's parser, and parse the stored answers that another one has read,
    without a call. What another function has ended is pending, to be run by this one. Wherever it
    stops, the next time goes on from there.

    `progress` is told how many are parsed, and of how many; `say`, at how many an earlier process
    died: those come last, one at a time, and what kills its process twice fails as `crash`. Raises
    BatchgenError when the parser hangs again and again.
    """
    parser_id = await _made_present(store, experiment, parser.version)
    if not isinstance(parser, Parser):
        run_again = await _run_again(store, experiment, parser_id)
        return UpToDate(PresentFunction(parser_id, parser), run_again=run_again)
    present = PresentParser(parser_id, parser)
    counts = await store.parsers.counts()
    left = sum(
        one.n for one in counts if one.experiment_id == experiment.id and one.parser_id != parser_id
    )
    if not left:
        return UpToDate(present)
    pages = _outdated_pages(store, experiment, parser_id)
    chain = await store.chain_if_step(experiment)
    reparsing = Reparsing(store, present, timeout_s, progress, left, say, chain)
    return UpToDate(present, await reparsing.run(pages))


async def _run_again(store: Store, experiment: Experiment, parser_id: int) -> int:
    """Rows that another function has ended; what was made of them is stale until the function says
    the same once more."""
    n = after = 0
    while page := await store.parsers.run_by_others(experiment.id, parser_id, after):
        after = page[-1].item_id
        n += await store.reopen(page)
    return n


async def _made_present(store: Store, experiment: Experiment, version: ParserVersion) -> int:
    """Its number. Nothing is written where nothing has changed."""
    stored = await store.parsers.present(experiment.id)
    if stored.version == version and stored.version.sources == version.sources:
        return stored.id
    return await store.parsers.use(experiment.id, version)


async def still_up_to_date(
    store: Store, experiment: Experiment, present: Present, *, timeout_s: float
) -> ReparseResult | None:
    """After the work: what a worker has read meanwhile that has an earlier version of the parser is
    parsed again, unless the experiment has got another one since. What functions have ended, the
    next work looks after."""
    if isinstance(present, PresentFunction):
        return None
    if (await store.parsers.present(experiment.id)).id != present.id:
        return None
    up_to_date = await bring_up_to_date(store, experiment, present.parser, timeout_s=timeout_s)
    return up_to_date.reparsed


async def _outdated_pages(
    store: Store, experiment: Experiment, parser_id: int
) -> AsyncIterator[Sequence[EndedAnswer]]:
    after = 0
    while page := await store.parsers.outdated_page(experiment.id, parser_id, after):
        after = page[-1].item_id
        yield page


class ReparsedExperiment(NamedTuple):
    """What came of the answers of an experiment, by the parser that is called `spec`."""

    experiment: Experiment
    spec: str
    result: ReparseResult


async def reparse(
    store: Store,
    config: Config,
    request: ReparseRequest,
    spec: str | None = None,
    *,
    dry_run: bool = False,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> list[ReparsedExperiment]:
    """Parse the chosen answers with the parser `spec`, or each experiment's with its own, and write
    what is new; `dry_run` writes nothing.

    Raises UsageError when an experiment or an item is not there, or has no answer, and when done
    items of several experiments would get one parser; otherwise as `reparse_experiment`.
    """
    experiments = await _experiments_of(store, request)
    if experiments and all(one.runs_code for one in experiments):
        raise UsageError(
            f"{experiments[0].own_name}: a function ends these rows, so there are no answers to "
            "parse; when its code changes, the next work runs it again."
        )
    has_steps = any(one.step is not None for one in experiments)
    needs_one = request.done_too or has_steps
    if len(experiments) > 1 and needs_one and spec is not None and not request.ids:
        names = ", ".join(one.own_name for one in experiments)
        raise UsageError(
            f"there are several experiments ({names}), and each may have a parser of its own.",
            Remedy.NAME_EXPERIMENT,
        )
    found = []
    for experiment in experiments:
        if experiment.runs_code:
            continue
        named = spec or await present_spec(store, config, experiment)
        everything = AnswerChoice(request.done_too, cut_off_too=True)
        is_one_of_several = len(experiments) > 1 and not request.ids
        if is_one_of_several and not await store.parsers.answer_page(
            experiment.id, everything, 0, 1
        ):
            continue  # its parser need not be there
        parser = load_parser(named, config.directory)
        result = await reparse_experiment(
            store, request, experiment, parser, config.work.parse_timeout_s,
            dry_run=dry_run, progress=progress, say=say,
        )  # fmt: skip
        found.append(ReparsedExperiment(experiment, named, result))
    return found


async def reparse_experiment(
    store: Store,
    request: ReparseRequest,
    experiment: Experiment,
    parser: Parser,
    timeout_s: float,
    *,
    dry_run: bool = False,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> ReparseResult:
    """Parse the chosen answers of an experiment and write what is new, a page a transaction;
    `dry_run` writes nothing. When all are chosen it is the experiment's parser from then on.

    Raises UsageError when an item is not there, or has no answer; BatchgenError when the parser
    hangs again and again. The pages before are written.
    """
    pages = answer_pages(store, request, experiment, parser)
    version = parser.version
    if dry_run:
        parser_id = await store.parsers.find(version) or 0
    elif request.done_too and not request.ids:
        parser_id = await store.parsers.use(experiment.id, version)
    else:
        parser_id = await store.parsers.number(version)
    present = PresentParser(parser_id, parser)
    chain = await store.chain_if_step(experiment)
    reparsing = Reparsing(store, present, timeout_s, progress, say=say, chain=chain)
    return await reparsing.run(pages, dry_run=dry_run)


async def _experiments_of(store: Store, request: ReparseRequest) -> list[Experiment]:
    """Those that the request is about. Raises UsageError when an item or an experiment is not
    there."""
    experiments = await chosen_experiments(store, request.experiment, request.step)
    if not request.ids:
        return experiments
    named = set()
    for given in request.ids:
        for number in await rows_called(store, given, request.experiment, request.step):
            item = await store.item(number)
            named |= {item.experiment} if item else set()
    return [one for one in experiments if one.name in named]


async def answer_pages(
    store: Store, request: ReparseRequest, experiment: Experiment, parser: Parser
) -> AsyncIterator[Sequence[EndedAnswer]]:
    """The chosen answers, a page at a time. Raises UsageError as `reparse`."""
    if request.ids:
        yield [
            one
            for one in await _answers_by_id(store, request)
            if one.experiment_id == experiment.id
        ]
        return
    choice, after = AnswerChoice(request.done_too, not parser.needs_whole), 0
    while page := await store.parsers.answer_page(experiment.id, choice, after):
        after = page[-1].item_id
        yield page


async def _answers_by_id(store: Store, request: ReparseRequest) -> list[EndedAnswer]:
    chosen: dict[int, EndedAnswer] = {}
    for given in request.ids:
        numbers = await rows_called(store, given, request.experiment, request.step)
        found = [one for number in numbers if (one := await store.parsers.answer_of(number))]
        if not found:
            raise UsageError(
                f"item {given} is neither done nor failed at its parser, so there is no answer to "
                "parse again.",
                Remedy.SHOW_ITEM,
                item=given,
            )
        chosen |= {one.item_id: one for one in found}
    return list(chosen.values())
