"""Who is at work, and orders for them: the ones that pause, resume, set and stop give."""

from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web
from msgspec import Struct

from batchgen.clock import now_ms
from batchgen.display.held import waits_for
from batchgen.display.status import gone_text
from batchgen.errors import UsageError
from batchgen.jobs import steer
from batchgen.jobs.status import WorkerStatus
from batchgen.store import Store
from batchgen.web.forms import form_of
from batchgen.web.language import Text
from batchgen.web.shown import path
from batchgen.web.view import View

_MOST_SLOTS, _MOST = 10_000, 10**12
_LIMITS = {"slots": (1, _MOST_SLOTS), "rpm": (0, _MOST), "tpm": (0, _MOST)}
_OPTIONS = {"slots": "-c", "rpm": "--rpm", "tpm": "--tpm"}


class _Asked(Struct, frozen=True):
    """What a form asks for: of this worker, or of all (None)."""

    worker: int | None
    limits: Mapping[str, int]
    now: bool


_Order = Callable[[Store, _Asked], Awaitable[steer.SteerResult]]
_ORDERS: Mapping[str, _Order] = {
    "pause": lambda store, asked: steer.pause(store, asked.worker),
    "resume": lambda store, asked: steer.resume(store, asked.worker),
    "set": lambda store, asked: steer.set_limits(store, asked.worker, **asked.limits),
    "stop": lambda store, asked: steer.stop(store, asked.worker, now=asked.now),
}


async def workers(view: View, request: web.Request) -> web.StreamResponse:
    rows = await view.pages.read(lambda store: store.workers())
    counts = await view.pages.read(lambda store: store.counts())
    found = [WorkerStatus.of(row) for row in rows]
    at_ms = now_ms()
    return view.frame.page(
        request, "workers.html", title=view.frame.text(request)("workers"), section="workers",
        command=("status",), at_ms=at_ms, found=found, counts=counts,
        held={one.id: waits_for(one, at_ms) if one.alive else gone_text(one) for one in found},
        alive=[one for one in found if one.alive],
        commands={name: view.frame.command(name) for name in ("pause", "resume", "stop")}
        | {"set": view.frame.command("set", "-c", "N", "--rpm", "N", "--tpm", "N")},
    )  # fmt: skip


async def stop(view: View, request: web.Request) -> web.StreamResponse:
    """What an order to stop would mean, of one `?worker=` or of all, and the buttons for it."""
    view.writing()
    worker = _number(request.query, "worker", 0, _MOST)
    rows = await view.pages.read(lambda store: store.workers())
    found = [one for one in rows if one.alive and worker in (None, one.id)]
    which = [] if worker is None else ["--worker", worker]
    return view.frame.page(
        request, "stop.html", title=view.frame.text(request)("stop_title"), section="workers",
        found=found, worker=worker, in_flight=sum(one.calls for one in found),
        commands=[view.frame.command("stop", *which, *more) for more in ((), ("--now",))],
    )  # fmt: skip


async def order(view: View, request: web.Request) -> web.StreamResponse:
    """Give the order, and say on the page what came of it."""
    store = view.writing()
    name = request.match_info["order"]
    asked = _asked(await form_of(request))
    if name == "set" and not asked.limits:
        raise UsageError(view.frame.text(request)("nothing_to_set"))
    result = await _ORDERS[name](store, asked)
    told = _told(view.frame.text(request), name, asked, result)
    view.say(f"{name}, from the page: {told}")
    return view.frame.lead(path("workers"), told, command=(name, *_options(asked)))


def _asked(form: Mapping[str, str]) -> _Asked:
    """Raises UsageError for what is no number, or none that there can be."""
    limits = {
        name: number
        for name, (least, most) in _LIMITS.items()
        if (number := _number(form, name, least, most)) is not None
    }
    return _Asked(_number(form, "worker", 0, _MOST), limits, now=form.get("now") == "yes")


def _number(form: Mapping[str, str], name: str, least: int, most: int) -> int | None:
    text = form.get(name, "").strip()
    if not text:
        return None
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else -1
    if not least <= number <= most:
        raise UsageError(f"{name}: {text!r:.40} is not a whole number from {least:,} to {most:,}.")
    return number


def _options(asked: _Asked) -> list[object]:
    """As the command has them."""
    found: list[object] = [] if asked.worker is None else ["--worker", asked.worker]
    for name, number in asked.limits.items():
        found += [_OPTIONS[name], number]
    return [*found, "--now"] if asked.now else found


def _told(t: Text, name: str, asked: _Asked, result: steer.SteerResult) -> str:
    told = t("told", n=len(result.workers), what=t(f"told_{name}"))
    if name in ("pause", "stop") and result.in_flight:
        key = "will_be_abandoned" if asked.now else "will_be_finished"
        return f"{told} {t(key, n=result.in_flight)}"
    if result.slots:
        changes = ", ".join(
            f"{worker.id}: {worker.slots} → {now}"
            for worker, now in zip(result.workers, result.slots, strict=True)
        )
        return f"{told} {t('slots_now', changes=changes)}"
    return told
