"""The words of halts and outages: why nothing is answered, and what to look at. Pure."""

import re
from urllib.parse import urlsplit

from batchgen.errors import Remedy
from batchgen.items import Failure, Trouble
from batchgen.llm.error_replies import REFUSES_NOW, UNKNOWN_MODEL, WRONG_ENDPOINT
from batchgen.store import Budget, Condemned, Failed, Spent
from batchgen.store.trial import Accusation, accusation_of
from batchgen.text.sentences import as_sentence
from batchgen.worker.report import BudgetWait
from batchgen.worker.spec import ServerSpec
from batchgen.worker.stats import Halt

_LIKE_AZURE = re.compile(r"\.azure\.com|/openai/deployments/|404 Resource not found")
# What each of several servers has of its own is not to be looked for in `model`.
_SERVERS_OWN = re.compile(r"\bmodel\.(?=(?:base_url|api_key|headers|query)\b)")
NOT_TRUE = (
    "the server says in its headers that nothing is left for longer than work.stall_s, and answers "
    "all the same; what they say is passed over from now on."
)


def nobody_answered(why: Condemned, server: ServerSpec) -> Halt:
    """When nothing was answered by a server in a run, or meanwhile, and all that was asked failed
    alike."""
    if why.halt is not None:
        return _refused_all(why, why.halt, server)
    asked = "the only item failed"
    if why.items > 1:
        asked = f"{why.items} different items failed alike"
    of = f" of {why.experiment}" if why.experiment else ""
    by = "" if server.is_alone else " by this server"
    if accusation_of(why.alike) is Accusation.TRUNCATED:
        words = (
            f"nothing{of} has been answered to its end{by} in this run: {why.items} different "
            f"items tell that {why.message}. Raise model.max_tokens."
        )
        return Halt(words, Remedy.REPLACE_RECIPE)
    look_at, remedy = _look_at(why, f"{server.place}.base_url ({server.shown_url})")
    words = (
        f"nothing{of} has been answered{by} in this run, and {asked}. {look_at} "
        f"The server said: {as_sentence(why.message)}"
    )
    return Halt(words, remedy)


def _refused_all(why: Condemned, halt: str, server: ServerSpec) -> Halt:
    """When several got what says that no request would work."""
    several = f"{why.items} different items got this, and nothing was answered meanwhile. "
    return _no_request_works(halt, several if why.items > 1 else "", why.message, server)


def refused(failure: Failure, server: ServerSpec) -> Halt:
    """When the server's words say that no request would work."""
    return _no_request_works(failure.halt or "", "", failure.message, server)


def _no_request_works(halt: str, several: str, message: str, server: ServerSpec) -> Halt:
    look_at = _SERVERS_OWN.sub(f"{server.place}.", halt)
    words = f"{look_at} {several}The server said: {message}"
    if halt.startswith((UNKNOWN_MODEL, WRONG_ENDPOINT)):
        return Halt(as_sentence(words), Remedy.REPLACE_RECIPE)
    if halt == REFUSES_NOW:
        return Halt(as_sentence(words), Remedy.LET_ITEMS_FAIL)
    return Halt(words)


def outage(failure: Failure, server: ServerSpec, stall_s: float, *, is_alone: bool) -> str:
    """When nobody gets through, as it begins; unless the worker `is_alone`, others may."""
    what = "the server answers nobody"
    if failure.trouble is Trouble.UNREACHABLE:
        what = "the server cannot be reached"
    elif failure.trouble is Trouble.UNAVAILABLE and not is_alone:
        what = "the server has no room for one of the workers, or for none"
    where = f"{server.shown_url} ({server.place}.base_url)"
    said = as_sentence(failure.message)
    return (
        f"{what}: {where}: {said} It is asked again now and then, for {stall_s:g} s "
        "(work.stall_s) at most; no item is charged."
    )


def no_room_in_budget(budget: Budget, spent: Spent, wait: BudgetWait, *, in_dollars: bool) -> str:
    """When what is spent leaves too little for a call."""
    is_fresh = spent == Spent()
    head = f"the budget {'is too small for a call' if is_fresh else 'has no room for another call'}"
    if in_dollars:
        return (
            f"{head}: ${spent.cost_usd:,.4f} of ${budget.max_cost_usd:,.4f} are spent, and the "
            f"next call may cost ${wait.cost_usd:,.4f}.{_share_of_answer(wait)}"
        )
    limit = (
        f", with max_tokens {wait.max_tokens}; a lower one needs less" if wait.max_tokens else ""
    )
    return (
        f"{head}: {spent.tokens:,} of {budget.max_tokens:,} tokens are spent, and the next call "
        f"may need {wait.tokens:,}{limit}."
    )


def _share_of_answer(wait: BudgetWait) -> str:
    if not wait.max_tokens:  # of an embedding
        return ""
    return (
        f" max_tokens {wait.max_tokens} reserves ${wait.answer_usd:,.4f} of that; a lower one "
        "needs less."
    )


def too_many_failed(failed: Failed, allowed: str) -> str:
    """When as many items failed as may."""
    reasons = ", ".join(f"{reason} {n:,}" for reason, n in failed.reasons.most_common())
    return (
        f"{failed.items:,} of {failed.total:,} have failed ({reasons}), and {allowed} is the "
        f"most that may. The newest: {as_sentence(failed.newest_error)}"
    )


def shown_url(url: str) -> str:
    """Without what may be a secret: a user's name and password, and a query."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _look_at(why: Condemned, place: str) -> tuple[str, Remedy | None]:
    match accusation_of(why.alike):
        case Accusation.PLACE if "404" in why.alike:
            shape = "it mostly ends in /v1"
            if _LIKE_AZURE.search(f"{place} {why.message}"):
                shape = (
                    "of an Azure deployment it ends in /openai/deployments/NAME, and model.query "
                    "has its api-version, for example {api-version: 2024-10-21}"
                )
            return (
                f"Check {place}: {shape}. Some servers say 404 of a model, or of an endpoint that "
                "they do not have: check model.model and model.endpoint too.",
                Remedy.REPLACE_RECIPE,
            )
        case Accusation.PLACE:
            return f"Check {place}: it mostly ends in /v1; and model.endpoint.", None
        case Accusation.NONSENSE:
            what = "That is no answer."
            return f"{what} Check {place}, model.model and the account of the key.", None
        case Accusation.CUT:
            what = "The answers break off."
            return f"{what} Check {place}, and what is between (a proxy that ends streams).", None
        case Accusation.EMPTY:
            what = "The answers are empty."
        case Accusation.REQUEST:
            what = "The server refuses what the config asks for."
    return f"{what} Check model.model, its other parameters and {place}.", Remedy.REPLACE_RECIPE
