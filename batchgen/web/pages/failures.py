"""What failed, and what helps; and asking again: first what it would cost, then it is done."""

from collections.abc import Iterable, Mapping, Sequence

from aiohttp import web
from msgspec import Struct

from batchgen.display.status import outdated_line
from batchgen.display.steps import stale_result_text
from batchgen.endpoints import LIMITS
from batchgen.errors import Remedy, UsageError
from batchgen.items import Reason
from batchgen.jobs.browse import BUDGET_S
from batchgen.jobs.configured_servers import estimate_note
from batchgen.jobs.failures import FailedLike, Failures, fails_again, last_failures_of
from batchgen.jobs.lookup import chosen_experiments
from batchgen.jobs.present_parser import Outdated, outdated
from batchgen.jobs.retry import Outlook, RetryRequest, RetryResult, outlook
from batchgen.jobs.retry import retry as retry_items
from batchgen.jobs.retry_stale import retry_stale
from batchgen.store import Counts, Experiment, FailedCalls, ReadStore
from batchgen.web.language import Text
from batchgen.web.shown import path
from batchgen.web.view import View

MOST_GROUPED = 10_000  # of each step, unless all are asked for
ALL_S = 2.0  # so long all of them are looked at
_MOST_CHARS = 1000
_MOST_TOKENS = 10**9


class Group(Struct, frozen=True):
    """Failures of one kind: `hint` says what helps, `example` and `rows` lead to one of them and to
    all, and `retry` to asking them again, where that may help."""

    like: FailedLike
    hint: str
    example: str
    rows: str
    retry: str | None


class Part(Struct, frozen=True):
    """An experiment or, where there are several, a `step` of it. `reasons` has each with how many
    items, and where they are."""

    found: Failures
    step: str | None
    reasons: tuple[tuple[str, int, str], ...]
    groups: tuple[Group, ...]
    calls: tuple[FailedCalls, ...]


class _Read(Struct, frozen=True):
    chosen: Sequence[Experiment]
    counts: Mapping[int, Counts]
    found: Sequence[Failures]


async def failures(view: View, request: web.Request) -> web.StreamResponse:
    """All kinds of them, of the last rows that failed; `?all=yes`: of all, as far as time goes."""
    name, is_all = request.match_info["name"], request.query.get("all") == "yes"

    async def read(store: ReadStore) -> _Read:
        chosen = await chosen_experiments(store, name)
        counts = await store.counts_by_experiment()
        budget_s, most = (ALL_S, None) if is_all else (BUDGET_S, MOST_GROUPED)
        return _Read(chosen, counts, await last_failures_of(store, chosen, budget_s, most))

    read_ = await view.scans.read(read)
    parts = [
        _part(view, name, one, read_.counts.get(one.id, Counts()), found, len(read_.chosen) > 1)
        for one, found in zip(read_.chosen, read_.found, strict=True)
    ]
    stale = sum(read_.counts.get(one.id, Counts()).stale for one in read_.chosen)
    return view.frame.page(
        request, "failures.html", title=name, experiment=name, section="failures",
        command=("failures", "--experiment", name), parts_of_it=parts,
        whys={reason: view.frame.text(request)(f"why_{reason}") for reason in Reason},
        is_clean=all(one.found.is_clean for one in parts),
        all_url=None if is_all else path("e", name, "failures", all="yes"),
        retry_all=path("e", name, "retry") if any(one.found.failed for one in parts) else None,
        stale=stale, retry_stale=path("e", name, "retry", stale="yes"),
    )  # fmt: skip


def _part(
    view: View, name: str, one: Experiment, counts: Counts, found: Failures, is_step: bool
) -> Part:
    step = one.step if is_step else None
    reasons = tuple(
        (reason, n, _rows(name, step, reason)) for reason, n in counts.reasons.most_common() if n
    )
    groups = tuple(_group(view, name, step, like, found) for like in found.groups)
    return Part(found, step, reasons, groups, found.calls)


def _group(view: View, name: str, step: str | None, like: FailedLike, found: Failures) -> Group:
    reason, number = like.group.reason, like.group.example
    setting, _, tokens = (like.setting or "").partition("=")
    again = None
    if like.remedy is not Remedy.MEND_GATHERED:  # which is asked by itself
        more = {setting: tokens} if setting in LIMITS else {}
        again = path("e", name, "retry", reason=reason, message=like.message, step=step, **more)
    example = path(
        "items", number, e=name, step=step, state="failed", reason=reason, at=str(number)
    )  # fmt: skip
    hint = view.hint_of(like, found.experiment if step else name)
    return Group(like, hint, example, _rows(name, step, reason, like.message), again)


def _rows(name: str, step: str | None, reason: str, message: str | None = None) -> str:
    return path("e", name, "items", state="failed", step=step, reason=reason, q=message)


# Asking again


class _Asked(Struct, frozen=True):
    """What is to be asked again, and with what; or all rows that are `stale`."""

    request: RetryRequest
    stale: bool

    @property
    def command(self) -> list[object]:
        """As it is typed."""
        one, words = self.request, list[object](["retry"])
        words += ["--stale"] if self.stale else []
        for reason in one.reasons:
            words += ["--reason", reason.value]
        words += ["--message", one.message] if one.message is not None else []
        words += ["--experiment", one.experiment or ""]
        words += ["--step", one.step] if one.step else []
        for name, value in one.settings.items():
            words += ["--set", f"{name}={value}"]
        return words


async def retry(view: View, request: web.Request) -> web.StreamResponse:
    """How many rows would be asked again, what that would cost, and the button."""
    asked = _asked(request)
    read = await view.scans.read(lambda store: _look(view, store, asked))
    name, t = request.match_info["name"], view.frame.text(request)
    one = asked.request
    limit = next(iter(one.settings), None)
    return view.frame.page(
        request, "retry.html", title=t("retry_title", name=name), experiment=name,
        section="failures", command=None if view.store is None else asked.command, asked=one,
        is_stale=asked.stale, look=read.look, stale=read.stale,
        stale_usd=read.stale_usd, failures_url=path("e", name, "failures"),
        own_url=_own_url(name, request.query), limit=limit,
        wants_limit=one.reasons == (Reason.TRUNCATED,),
        limit_name=limit or LIMITS[0], outdated=_notes(view, read.outdated),
        may_do=view.store is not None and not _reads_first(read.outdated),
        command_first=bool(_reads_first(read.outdated)),
        alive=read.alive, cost_note=_cost_note(view, read),
        in_vain=not one.settings and any(map(fails_again, one.reasons)),
    )  # fmt: skip


def _cost_note(view: View, read: "_Look") -> str | None:
    """What is to be said of a cost that is an estimate by a public price."""
    usd = read.look.cost.cost_usd if read.look else read.stale_usd
    note = estimate_note(view.config) if usd else None
    return note and f"{note}."


async def ask_again(view: View, request: web.Request) -> web.StreamResponse:
    """Put the rows back to pending, and say how many; nothing is asked here."""
    store = view.writing()
    asked, name = _asked(request), request.match_info["name"]
    t = view.frame.text(request)
    if asked.stale:
        done = await retry_stale(store, name, asked.request.step)
        told = "\n".join(map(t.said, stale_result_text(done, view.commands).splitlines()))
    else:
        old = await view.scans.read(lambda reading: _outdated(view, reading, asked.request))
        if _reads_first(old):
            raise UsageError(t("retry_reads_first"))
        told = _told(t, await retry_items(store, asked.request))
    view.say(f"retry, from the page: {told}")
    return view.frame.lead(path("e", name, "failures"), told, command=asked.command)


class _Look(Struct, frozen=True):
    """`alive` workers would ask them; `look` is None of `stale` rows."""

    outdated: Sequence[Outdated]
    alive: int
    look: Outlook | None = None
    stale: int = 0
    stale_usd: float = 0.0


async def _look(view: View, store: ReadStore, asked: _Asked) -> _Look:
    one = asked.request
    alive = sum(worker.alive for worker in await store.workers())
    if asked.stale:
        chosen = await chosen_experiments(store, one.experiment, one.step)
        counts = await store.counts_by_experiment()
        of = [counts[step.id] for step in chosen if step.id in counts]
        usd = sum(step.stale * step.cost_of_a_call for step in of)
        return _Look((), alive, None, sum(step.stale for step in of), usd)
    return _Look(await _outdated(view, store, one), alive, await outlook(store, one, BUDGET_S))


async def _outdated(view: View, store: ReadStore, one: RetryRequest) -> tuple[Outdated, ...]:
    if not one.is_at_parser:
        return ()
    chosen = await chosen_experiments(store, one.experiment, one.step)
    return tuple((await outdated(store, view.config, chosen)).values())


def _reads_first(found: Iterable[Outdated]) -> list[Outdated]:
    """What the parser that has changed may read without a call, which the page cannot run."""
    return [one for one in found if one.problem is None]


def _notes(view: View, found: Iterable[Outdated]) -> list[str]:
    return [outdated_line(one, view.commands) for one in found]


def _asked(request: web.Request) -> _Asked:
    """Raises UsageError for what cannot be."""
    query = request.query
    given = query.get("reason", "").strip()
    known = [one.value for one in Reason]
    if given and given not in known:
        raise UsageError(f"reason: there is no {given[:60]!r}; there is: {', '.join(known)}.")
    message = query.get("message", "")
    if len(message) > _MOST_CHARS:
        raise UsageError(f"message: {_MOST_CHARS:,} characters are looked for at most.")
    settings = {name: _tokens(name, query[name]) for name in LIMITS if query.get(name, "").strip()}
    return _Asked(
        RetryRequest(
            request.match_info["name"], (Reason(given),) if given else (), message or None,
            settings=settings, step=query.get("step") or None,
        ),
        stale=query.get("stale") == "yes",
    )  # fmt: skip


def _tokens(name: str, text: str) -> int:
    text = text.strip()
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else 0
    if not 1 <= number <= _MOST_TOKENS:
        raise UsageError(f"{name}: {text!r:.40} is not a whole number from 1 to {_MOST_TOKENS:,}.")
    return number


def _own_url(name: str, query: Mapping[str, str]) -> str:
    names = ("reason", "message", "step", "stale", *LIMITS)
    kept = {one: query[one] for one in names if query.get(one)}
    return path("e", name, "retry", **kept)


def _told(t: Text, result: RetryResult) -> str:
    words = [t("retried", n=result.retried)]
    if result.overridden:
        words.append(t("retry_overridden", n=result.overridden))
    if result.unmade:
        words.append(t("retry_unmade", n=result.unmade))
    return " ".join(words)
