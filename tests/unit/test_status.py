"""The objects of `status`, `show` and `failures` with `--json`: scripts rely on their keys."""

from collections import Counter
from typing import Any

import pytest

from batchgen.display.status import waits_for
from batchgen.errors import Remedy
from batchgen.jobs.failures import FailedLike, Failures
from batchgen.jobs.show import ItemDetails
from batchgen.jobs.status import Status
from batchgen.jobs.unknown_cost import UnknownCost
from batchgen.store import Counts, FailureGroup, StoredAttempt, StoredItem
from batchgen.worker.report import Straggler
from tests.kits.looks import NOON_MS, experiment, worker

NOON = "2025-11-25T12:00:00.000Z"
COUNTS = Counts(
    pending=4, running=3, done=2, failed=1, reasons=Counter(parse=1), calls=5, unknown_calls=1,
    retried=1, latency_ms=900, prompt_tokens=20, completion_tokens=30, cached_tokens=6,
    reasoning_tokens=8, cost_usd=0.1234567,
)  # fmt: skip
COUNTS_OBJECT = {
    "total": 10, "pending": 4, "running": 3, "done": 2, "failed": 1, "reasons": {"parse": 1},
    "calls": 5, "unknown_calls": 1, "latency_ms": 900, "prompt_tokens": 20,
    "completion_tokens": 30, "cached_tokens": 6, "reasoning_tokens": 8, "cost_usd": 0.123457,
}  # fmt: skip
WORKER_OBJECT = {
    "id": 3, "host": "box", "pid": 71, "slots": 20, "started_at": NOON, "alive": True,
    "paused": False, "in_flight": 12, "waits_for": "waiting", "late_after_s": 1.5,
    "stragglers": [{"item": 17, "for_s": 95.2}],
}  # fmt: skip
REQUEST = {
    "model": "m", "messages": [{"role": "user", "content": "Say a"}], "max_tokens": 9,
}  # fmt: skip
CALL = StoredAttempt(
    seq=9, finished_at=NOON_MS, latency_ms=300, outcome="answered", reason=None, error=None,
    http_status=200, request_id="r", model="m", finish_reason="stop", prompt_tokens=10,
    completion_tokens=5, cost_usd=0.01, response="an answer", body="{}",
)  # fmt: skip
ITEM = StoredItem(
    id=7, experiment="e", custom_id="mine", sample=None, input='{"word": "a"}', recipe_id=1,
    state="done", reason=None, error=None, parsed=None, finished_at=NOON_MS,
    response="the answer",
)  # fmt: skip


def test_the_object_of_a_status() -> None:
    busy = worker(
        waits_for_server=True, late_after_ms=1500,
        stragglers=(Straggler(17, NOON_MS - 95_204),),
    )  # fmt: skip
    status = Status(
        at_ms=NOON_MS, experiments=(experiment("e", COUNTS),), total=COUNTS,
        items_per_s=1.23456, latency_p50_s=0.5, latency_p95_s=1.5, learned_rpm=99.96,
        workers=(busy, worker(2, alive=False)), unknown=UnknownCost(4, 3, 700, 0.02),
    )  # fmt: skip
    gone = {name: WORKER_OBJECT[name] for name in list(WORKER_OBJECT)[:7]}
    assert status.to_json(waits_for) == {
        "experiments": [{"name": "e", "created_at": NOON, **COUNTS_OBJECT}],
        "total": {
            **COUNTS_OBJECT, "unknown_calls": 4, "unknown_max_tokens": 700,
            "unknown_max_cost_usd": 0.02, "unknown_max_calls": 3,
        },
        "items_per_s": 1.235,
        "learned_requests_per_minute": 100.0,
        "latency_p50_s": 0.5,
        "latency_p95_s": 1.5,
        "workers": [WORKER_OBJECT, gone | {"id": 2, "alive": False}],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("report", "words"),
    [
        ({}, None),
        ({"paused": True, "waits_for_server": True}, "paused"),
        ({"waits_for_server": True}, "waiting"),
        ({"waits_for_server": True, "trouble": "429"}, "waiting for the server: 429"),
        ({"trouble": "429"}, None),
        ({"limited_to_rpm": 1234.5}, "limited to about 1,234 requests/min"),
        ({"limited_to_rpm": 0.5}, "limited to one call in 2.0 min"),
    ],
)
def test_why_a_worker_sends_less_than_it_could(report: dict[str, Any], words: str | None) -> None:
    assert waits_for(worker(**report)) == words


def test_the_object_of_an_item() -> None:
    shown = ItemDetails(ITEM, REQUEST, (CALL,)).to_json()
    assert shown == {
        "id": "mine", "number": 7, "experiment": "e", "state": "done", "reason": None,
        "error": None, "input": {"word": "a"}, "messages": [{"role": "user", "content": "Say a"}],
        "settings": {"model": "m", "max_tokens": 9},
        "parsed": "the answer", "finished_at": NOON,
        "attempts": [CALL._asdict() | {"finished_at": NOON}],
    }  # fmt: skip


def test_what_an_item_may_lack() -> None:
    dropped = ITEM._replace(custom_id=None, sample=2, state=None, finished_at=None)
    shown = ItemDetails(dropped, REQUEST, ()).to_json()
    assert (shown["id"], shown["sample"], shown["state"]) == (7, 2, "dropped")
    assert (shown["parsed"], shown["finished_at"]) == (None, None)


def test_what_was_parsed_is_a_value() -> None:
    done = ITEM._replace(parsed='{"a": [1]}')
    assert ItemDetails(done, REQUEST, (CALL,)).parsed == {"a": [1]}


def test_the_objects_of_failures() -> None:
    group = FailureGroup("parse", "no JSON", 3, 17)
    failures = Failures("e", (FailedLike(group, Remedy.MEND_PARSER),))
    assert failures.to_json() == [
        {"experiment": "e", "reason": "parse", "error": "no JSON", "count": 3, "example": 17}
    ]
