"""What can be done about an error or a halt, in Python's words, and how a run that ended early is
said."""

import shlex
import sys
from collections.abc import Mapping
from types import TracebackType

from batchgen.display.commands import Commands
from batchgen.display.visible import visible
from batchgen.errors import BatchgenError, Remedy
from batchgen.jobs.failures import FailedLike
from batchgen.jobs.work import WorkResult
from batchgen.shutdown import Stop
from batchgen.userfunctions import is_foreign

REMEDIES: Mapping[Remedy, str] = {
    Remedy.NAME_DATABASE: "Name another one with database=...",
    Remedy.NAME_NEW_DATABASE: "Go on there, with database=...",
    Remedy.MOVE_AGAIN: "Begin the same move again when it can be reached.",
    Remedy.ONLY_LOOK: "Who may only read them may only look: batchgen status, show, failures.",
    Remedy.ENQUEUE_FIRST: "Run a data pool first, or name the database with database=...",
    Remedy.MOVE_DATABASE:
        "Put it on a local disk with database=..., or on a PostgreSQL server "
        "(database='postgresql://...'); prompts and output may stay where they are.",
    Remedy.STOP_WORKERS: "Stop the workers first: pipeline.stop().",
    Remedy.END_BATCHES:
        "Collect or cancel them first, on the command line: see batchgen batches.",
    Remedy.RUN_AGAIN: "Then run the same script again.",
    Remedy.NAME_EXPERIMENT: "Choose with experiment_name=...",
    Remedy.NAME_EXPERIMENTS: "Choose with experiment_name=...",
    Remedy.SHOW_ITEM: "See it on the command line: batchgen show {item}",
    Remedy.GIVE_DONE_BY_ID: "done=True goes with ids=[...] alone.",
    Remedy.ASK_DONE_AGAIN: "Pass done=True to ask for it again.",
    Remedy.GIVE_FUNCTION: "Pass it as extract_function.",
    Remedy.GIVE_TEMPLATE: 'Or pass user_prompt="Translate into French: {{text}}".',
    Remedy.LOOK_AT_STATUS: "See pipeline.status().",
    Remedy.STOP_A_WORKER: "Stop one, or take more.",
    Remedy.CHOOSE_RECIPE:
        'Pass recipe="replace" (rows not done are asked with the new one, done ones stay: '
        '{replace}), recipe="again" (all that are passed are asked again; old answers stay stored, '
        'the export takes the new ones: {again}) or recipe="add" (each once more, beside the old: '
        "{add}), or choose another experiment_name.",
    Remedy.CHOOSE_STEPS:
        'Pass recipe="replace" (what is not done goes by the new steps, what is done stays: '
        '{replace}) or recipe="again" (the rows of what has changed are asked again; old answers '
        "stay stored: {again}), or choose another experiment_name.",
    Remedy.REPLACE_RECIPE:
        'A change of the model or its parameters is taken with recipe="replace".',
    Remedy.NAME_FILE: "Name one with path=...",
    Remedy.REPLACE_FILE:
        "Remove it, or choose another experiment_name or output_dir (or export(..., force=True)).",
    Remedy.LEAVE_OUT_ITEM: "Leave the item out with where=..., or export in another format",
    Remedy.CHOOSE_IN_EXPORT: "To choose what is exported: export(where=...).",
    Remedy.CHOOSE_MESSAGES: 'Use format="messages", or leave the item out with where=...',
    Remedy.FOLLOW_TO_STDOUT: "Name a regular file.",
    Remedy.RAISE_COST_BUDGET: "Raise max_cost to go on.",
    Remedy.ALLOW_MORE_FAILURES:
        "See them all: pipeline.failures(). Mend the cause, or raise max_failures.",
    Remedy.LET_ITEMS_FAIL:
        "If these items are at fault themselves, say with max_failures how many may fail.",
    Remedy.ASK_AGAIN: "Ask again: pipeline.retry({which})",
    Remedy.LOOK_AND_ASK_AGAIN:
        "See what came (batchgen show {item}) before you ask again: pipeline.retry({which})",
    Remedy.RAISE_MAX_TOKENS:
        "Give it more room: pipeline.retry({which}, params={{{setting}}})",
    Remedy.MEND_PARSER:
        "Mend extract_function and run again: no call is made. For other answers: "
        "pipeline.retry({which})",
    Remedy.MEND_FUNCTION:
        "Mend the function: the next run runs these rows again, without a call. To run it as it "
        "is: pipeline.retry({which})",
    Remedy.MEND_LIST:
        "Mend the path of that step's each, and run with recipe=\"replace\"; or mend the parser. "
        "What was answered is read again then, without a call. For other answers: "
        "pipeline.retry({which})",
    Remedy.CHANGE_STEP:
        "The same request fails again, or none can be made of what the steps before it said. See "
        "it: batchgen show {item}. Change the step, and run with recipe=\"replace\"",
    Remedy.MEND_GATHERED:
        "Mend what failed before it, or the list or the condition that ended it: as soon as one of "
        "the rows that it gathers is done, it is asked by itself. See them: batchgen show {item}",
    Remedy.ASK_ANOTHER_MODEL:
        'The same request mostly fails again. Ask another model: pipeline.retry({which}, '
        'params={{"model": ...}}). Or change the prompts, and run with recipe="replace"',
    Remedy.CHANGE_REQUEST:
        "The same request fails again. See it: batchgen show {item}. Ask with another parameter "
        "(None: without it): pipeline.retry({which}, params={{...}}). Or change the prompts, and "
        'run with recipe="replace"',
    Remedy.CLAIM_SO_MANY: "Leave until out.",
    Remedy.RAISE_TOKEN_BUDGET: "Raise the limit of tokens to go on.",
    Remedy.LIST_BATCHES: "See them on the command line: batchgen batches",
    Remedy.FIND_BATCH: "Say on the command line what has become of it: batchgen batches",
    Remedy.ADOPT_BATCH: "Adopt it on the command line: batchgen batches",
    Remedy.END_LATE_BATCHES: "End them on the command line: batchgen batches",
    Remedy.STOP_SENDER: "Stop it first: pipeline.stop().",
}  # fmt: skip

COMMANDS = Commands(
    enqueue="pipeline.run(data_pool)",
    work="pipeline.run(data_pool)",
    reparse="pipeline.reparse(extract_function)",
    failures="pipeline.failures()",
    show="batchgen show",
    resume="batchgen resume",
    retry_stale="pipeline.retry(stale=True)",
    batches="batchgen batches",
    work_in_batches="batchgen work in batches",
)


class StoppedError(BatchgenError):
    """A run ended early: it was stopped, or it halted as no request would work. All that was
    answered is kept, and the next run goes on from there. It is no error of the script, so it is
    shown as one line, without a traceback."""

    def __init__(self, message: str, remedy: Remedy | None = None, **facts: object) -> None:
        super().__init__(message, remedy, **facts)
        _show_in_one_line()

    def _render_traceback_(self) -> list[str]:
        """What IPython and Jupyter show of it."""
        return [f"batchgen: {self}"]


class ErrorsInPython:
    """Inside, an error's message gets what to do about it, in Python's words, and what it has from
    outside, such as the names in a pool, cannot steer a terminal. Its traceback shows where the
    user called us, and for what the user's own code raised that code: not what of ours is in
    between."""

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, _kind: object, exc: BaseException | None, _trace: object) -> None:
        if isinstance(exc, BatchgenError):
            _say_remedy(exc)
            exc.__traceback__ = exc.__context__ = None
            if isinstance(exc.__cause__, BatchgenError):
                exc.__cause__ = None
        elif exc is not None:
            exc.__traceback__ = _from_the_users_code(exc.__traceback__) or exc.__traceback__


def _say_remedy(exc: BatchgenError) -> None:
    message = visible(str(exc))
    words = with_words("", exc.remedy, exc.facts)
    # It is there already when one run is within another's callback.
    exc.args = (message if message.endswith(words) else message + words,)


def _from_the_users_code(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None and is_foreign(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    return trace


def with_words(message: str, remedy: Remedy | None, facts: Mapping[str, object] = {}) -> str:
    if remedy is None:
        return message
    typed = {name: shlex.quote(str(fact)) if name == "item" else fact
             for name, fact in facts.items()}  # fmt: skip
    return f"{message} {REMEDIES[remedy].format(**typed)}"


def failure_hint(failed: FailedLike, step: str | None) -> str:
    """What to do about a group of failed rows, of a step where there are some."""
    which = repr(failed.group.reason)
    if step is not None:
        which += f", step={step!r}"
    if failed.message is not None:
        which += f", message={failed.message!r}"
    name, _, value = (failed.setting or "").partition("=")
    facts = {"which": which, "item": shlex.quote(failed.example), "setting": f'"{name}": {value}'}
    return REMEDIES[failed.remedy].format(**facts)


def unfinished(result: WorkResult) -> StoppedError:
    """Why a run ended before all was answered, and what to do."""
    counts, halted = result.counts, result.stats.halted
    why = with_words(halted.why, halted.remedy) if halted else "the run was stopped."
    if result.signum is not None:
        why = "the run was stopped by a signal."
    end = "" if why.endswith((".", "!", "?", ")")) else "."
    return StoppedError(
        visible(
            f"{why}{end} {counts.done} of {counts.total} items are done and kept; "
            "run it again to go on."
        )
    )


def stopping(stop: Stop) -> str:
    if stop.now.is_set():
        return "stopping now; the calls in flight are abandoned"
    return "stopping: waiting for the calls in flight; a second Ctrl-C stops at once"


def stop_next(stop: Stop) -> None:
    """What a signal does to a run that is in a thread, and so gets none."""
    stop.next_stage()
    sys.stderr.write(f"batchgen: {stopping(stop)}\n")


def _show_in_one_line() -> None:
    """Let the interpreter end with one line for a StoppedError that nobody catches. Any other
    exception goes to the hook that was there."""
    before = sys.excepthook
    if getattr(before, "is_batchgens", False):
        return

    def hook(kind: type[BaseException], exc: BaseException, trace: TracebackType | None) -> None:
        if isinstance(exc, StoppedError):
            sys.stderr.write(f"batchgen: {visible(str(exc))}\n")
        else:
            before(kind, exc, trace)

    hook.is_batchgens = True  # type: ignore[attr-defined]
    sys.excepthook = hook
