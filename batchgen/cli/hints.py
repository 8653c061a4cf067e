"""What the user can type: the command line's words for the remedy of an error or a halt, and for
what a display suggests. Commands stand in backticks where a page shows them as such."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from batchgen.cli.group import global_options
from batchgen.display.commands import Commands
from batchgen.errors import BatchgenError, Remedy

if TYPE_CHECKING:  # jobs take a while to import, which --help need not wait for
    from batchgen.jobs.failures import FailedLike

HINTS: Mapping[Remedy, str] = {
    Remedy.NAME_DATABASE: "Name another database with --db.",
    Remedy.NAME_NEW_DATABASE:
        "Go on there: name it with --db, or as database: in the config. If there is no work table "
        "in it, the move was cut off; begin the same move again.",
    Remedy.MOVE_AGAIN: "Begin the same move again when it can be reached.",
    Remedy.ONLY_LOOK: "Who may only read them may only look: {batchgen} status, show, failures.",
    Remedy.ENQUEUE_FIRST:
        "Enqueue a data pool first ({batchgen} enqueue), or name the database with --db.",
    Remedy.MOVE_DATABASE:
        "Put it on a local disk with --db, or on a PostgreSQL server (--db postgresql://...); "
        "prompts and output may stay where they are.",
    Remedy.STOP_WORKERS: "Stop the worker first: {batchgen} stop --wait",
    Remedy.END_BATCHES:
        "Collect them first ({batchgen} work --batch), or have them cancelled before: {batchgen} "
        "batches --cancel-all",
    Remedy.RUN_AGAIN: "Then run the same command again.",
    Remedy.NAME_EXPERIMENT: "Choose with --experiment.",
    Remedy.NAME_EXPERIMENTS: "Choose with --experiment, or take --all.",
    Remedy.SHOW_ITEM: "See: {batchgen} show {item}",
    Remedy.GIVE_DONE_BY_ID: "--done goes with --id alone.",
    Remedy.ASK_DONE_AGAIN: "Say --done to ask for it again.",
    Remedy.GIVE_FUNCTION: "Run that script to parse them.",
    Remedy.GIVE_TEMPLATE: "Or give it here: --prompt 'Translate into French: {{text}}'",
    Remedy.LOOK_AT_STATUS: "See: {batchgen} status",
    Remedy.STOP_A_WORKER: "Stop one ({batchgen} stop --worker ID), or take more.",
    Remedy.CHOOSE_RECIPE:
        "Say which, or choose another --experiment:\n"
        "  --recipe replace   rows not done are asked with the new one, done ones stay: {replace}\n"
        "  --recipe again     all are asked again; old answers stay stored, the export takes the "
        "new ones: {again}\n"
        "  --recipe add       each once more, beside the old: {add}",
    Remedy.CHOOSE_STEPS:
        "Say which, or choose another --experiment:\n"
        "  --recipe replace   what is not done goes by the new steps, what is done stays: {replace}"
        "\n"
        "  --recipe again     the rows of what has changed are asked again; old answers stay "
        "stored: {again}",
    Remedy.REPLACE_RECIPE:
        "A change of the model or its parameters is taken by run or enqueue with --recipe replace.",
    Remedy.NAME_FILE: "Name one with -o.",
    Remedy.REPLACE_FILE: "Name another with -o, or replace it with --force.",
    Remedy.LEAVE_OUT_ITEM: "Leave the item out with --where, or export another --format.",
    Remedy.CHOOSE_IN_EXPORT: "To choose what is exported: {batchgen} export --where EXPR",
    Remedy.CHOOSE_MESSAGES: "Use --format messages, or leave the item out with --where.",
    Remedy.FOLLOW_TO_STDOUT: "To stdout: {batchgen} export --follow -o -",
    Remedy.CLAIM_SO_MANY: "To claim so many rows, take --max-items.",
    Remedy.RAISE_COST_BUDGET: "Raise --max-cost to go on.",
    Remedy.RAISE_TOKEN_BUDGET: "Raise --max-tokens-total to go on.",
    Remedy.ASK_AGAIN: "Ask again: `{batchgen} retry{which}`",
    Remedy.LOOK_AND_ASK_AGAIN:
        "See what came (`{batchgen} show {item}`) before you ask again: `{batchgen} retry{which}`",
    Remedy.RAISE_MAX_TOKENS: "Give it more room: `{batchgen} retry{which} --set {setting}`",
    Remedy.MEND_PARSER:
        "Mend the parser, then, without a call: `{batchgen} reparse{scope}`. For other answers: "
        "`{batchgen} retry{which}`",
    Remedy.MEND_FUNCTION:
        "Mend the function; `{batchgen} work` runs these rows again then, without a call. To run "
        "it as it is: `{batchgen} retry{which}`",
    Remedy.MEND_LIST:
        "Mend the path of that step's each, and run with --recipe replace; or mend the parser. "
        "What was answered is read again then, without a call. For other answers: `{batchgen} "
        "retry{which}`",
    Remedy.CHANGE_STEP:
        "The same request fails again, or none can be made of what the steps before it said. See "
        "it: `{batchgen} show {item}`. Ask with another parameter: `{batchgen} retry{which} --set "
        "KEY=VALUE`. Or change the step, and run with --recipe replace",
    Remedy.MEND_GATHERED:
        "Mend what failed before it, or the list or the condition that ended it: as soon as one of "
        "the rows that it gathers is done, it is asked by itself. See them: "
        "`{batchgen} show {item}`",
    Remedy.ASK_ANOTHER_MODEL:
        "The same request mostly fails again. Ask another model: `{batchgen} retry{which} --set "
        "model=NAME`. Or change the templates, and run with --recipe replace",
    Remedy.CHANGE_REQUEST:
        "The same request fails again. See it: `{batchgen} show {item}`. Ask with another "
        "parameter (null: without it): `{batchgen} retry{which} --set KEY=VALUE`. Or change the "
        "templates, and run with --recipe replace",
    Remedy.ALLOW_MORE_FAILURES:
        "See them all: {batchgen} failures. Mend the cause, or raise --max-failures.",
    Remedy.LET_ITEMS_FAIL:
        "If these items are at fault themselves, say with --max-failures how many may fail.",
    Remedy.LIST_BATCHES: "See: {batchgen} batches --all",
    Remedy.FIND_BATCH:
        "If the provider has it: {batchgen} batches --adopt NUMBER ITS-ID; if it does not: "
        "{batchgen} batches --create NUMBER. Then run the same command again.",
    Remedy.ADOPT_BATCH: "If that is it: {batchgen} batches --adopt {number} {batch_id}",
    Remedy.END_LATE_BATCHES:
        "{batchgen} batches --cancel NUMBER, and the same command again collects what is answered; "
        "where that is of no use, {batchgen} batches --abandon NUMBER.",
    Remedy.STOP_SENDER: "Stop it first: {batchgen} stop --wait --worker {worker}",
}  # fmt: skip

# Facts that are words of a command, and may have any characters.
_FROM_OUTSIDE = ("item", "batch_id")


def batchgen() -> str:
    """How batchgen is to be called for the same config and database as this time."""
    context = click.get_current_context(silent=True)
    given = global_options(context) if context else {}
    options = (("--config", given.get("config_path")), ("--db", _shown(given.get("database"))))
    typed = (f" {name} {quoted(str(value))}" for name, value in options if value)
    return f"batchgen{''.join(typed)}"


def _shown(database: str | None) -> str | None:
    """As it can be typed again, but without the password."""
    if not database or "://" not in database:
        return database
    from batchgen.database_address import address_of, masked  # here: most are files

    try:
        return address_of(database).without_password()[0]
    except ValueError:
        return masked(database)


def quoted(text: str) -> str:
    """As a shell takes it for one word."""
    from shlex import quote  # here: mostly there is nothing to quote

    return quote(text)


def of_experiment() -> str:
    """The option for the experiment that this command was given, if it was given one."""
    context = click.get_current_context(silent=True)
    name = context.params.get("experiment") if context else None
    return f" --experiment {quoted(name)}" if name else ""


def of_step() -> str:
    """The same for the step."""
    context = click.get_current_context(silent=True)
    name = context.params.get("step") if context else None
    return f" --step {quoted(name)}" if name else ""


def commands() -> Commands:
    """What a display suggests."""
    called = batchgen()
    return Commands(
        enqueue=f"{called} enqueue",
        work=f"{called} work",
        reparse=f"{called} reparse --all",
        failures=f"{called} failures",
        show=f"{called} show",
        resume=f"{called} resume",
        retry_stale=f"{called} retry --stale",
        batches=f"{called} batches",
        work_in_batches=f"{called} work --batch",
    )


def failure_hint(failed: "FailedLike", experiment: str | None = None) -> str:
    """What to type about a group of failed items; `experiment`: there are others."""
    return _filled(HINTS[failed.remedy].replace("`", ""), failed, experiment)


def marked_hint(failed: "FailedLike", experiment: str | None = None) -> str:
    """The same, with each command in backticks."""
    return _filled(HINTS[failed.remedy], failed, experiment)


def _filled(words: str, failed: "FailedLike", experiment: str | None) -> str:
    scope = "" if experiment is None else f" --experiment {quoted(experiment)}"
    which = f" --reason {failed.group.reason}"
    if failed.message is not None:
        which += f" --message {quoted(failed.message)}"
    facts = {
        "which": which + scope, "scope": scope, "item": quoted(failed.example),
        "setting": failed.setting,
    }  # fmt: skip
    return words.format(batchgen=batchgen(), **facts)


def with_hint(message: str, remedy: Remedy | None, facts: Mapping[str, object] = {}) -> str:
    """The message, and what to type about it."""
    if remedy is None:
        return message
    typed = {name: quoted(str(fact)) if name in _FROM_OUTSIDE else fact
             for name, fact in facts.items()}  # fmt: skip
    words = HINTS[remedy].replace("`", "")
    return f"{message} {words.format(batchgen=batchgen(), **typed)}"


def error_line(exc: BatchgenError) -> str:
    return with_hint(str(exc), exc.remedy, exc.facts)
