"""The objects of `status`, `show` and `failures` with `--json`: scripts rely on their keys."""

from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import asdict, replace

from batchgen.display.held import waits_for
from batchgen.display.status import server_lines
from batchgen.endpoints import CHAT
from batchgen.errors import Remedy
from batchgen.jobs.failures import FailedLike, Failures
from batchgen.jobs.show import ItemDetails
from batchgen.jobs.status import Status
from batchgen.jobs.unknown_cost import UnknownCost
from batchgen.store import CallFailure, Counts, FailureGroup, StoredAttempt, StoredItem
from batchgen.worker.report import (
    BudgetWait,
    Held,
    HeldBy,
    ServerReport,
    Straggler,
    WorkerReport,
)
from tests.kits.looks import NOON_MS, experiment, worker

NOON = "2025-11-25T12:00:00.000Z"
COUNTS = Counts(
    pending=4, running=3, done=2, failed=1, reasons=Counter(parse=1), calls=5, unknown_calls=1,
    retried=1, latency_ms=900, prompt_tokens=20, completion_tokens=30, cached_tokens=6,
    reasoning_tokens=8, cost_usd=0.1234567,
    failed_calls=Counter({CallFailure("timeout", 0): 1, CallFailure("server", 503): 3}),
)  # fmt: skip
COUNTS_OBJECT = {
    "total": 10, "pending": 4, "running": 3, "done": 2, "failed": 1, "reasons": {"parse": 1},
    "calls": 5, "unknown_calls": 1, "latency_ms": 900, "prompt_tokens": 20,
    "completion_tokens": 30, "cached_tokens": 6, "reasoning_tokens": 8, "cost_usd": 0.123457,
    "retried": 1, "failed_calls": {"503 server": 3, "timeout": 1},
}  # fmt: skip
WORKER_OBJECT = {
    "id": 3, "kind": "caller", "host": "box", "pid": 71, "slots": 20, "started_at": NOON,
    "alive": True, "paused": False, "in_flight": 12, "waits_for": "paused for 3 s",
    "held_by": {"by": "pause", "until_ms": NOON_MS + 2500},
    "failed_calls": {}, "late_after_s": 1.5,
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
    response="the answer", parser="raw",
)  # fmt: skip


def test_the_object_of_a_status() -> None:
    busy = worker(
        held_by=Held(HeldBy.PAUSE, NOON_MS + 2500), late_after_ms=1500,
        stragglers=(Straggler(17, NOON_MS - 95_204),),
    )  # fmt: skip
    status = Status(
        at_ms=NOON_MS, experiments=(experiment("e", COUNTS),), total=COUNTS,
        items_per_s=1.23456, latency_p50_s=0.5, latency_p95_s=1.5, learned_rpm=99.96,
        workers=(busy, worker(2, alive=False)), unknown=UnknownCost(4, 3, 700, 0.02),
    )  # fmt: skip
    gone = {name: WORKER_OBJECT[name] for name in list(WORKER_OBJECT)[:8]}
    assert status.to_json(waits_for) == {
        "experiments": [
            {"name": "e", "created_at": NOON, "endpoint": "", **COUNTS_OBJECT, "outdated": None},
        ],
        "total": {
            **COUNTS_OBJECT, "unknown_calls": 4, "unknown_max_tokens": 700,
            "unknown_max_cost_usd": 0.02, "unknown_max_calls": 3,
        },
        "batches": None,
        "items_per_s": 1.235,
        "learned_requests_per_minute": 100.0,
        "latency_p50_s": 0.5,
        "latency_p95_s": 1.5,
        "workers": [WORKER_OBJECT, gone | {"id": 2, "alive": False}],
        "servers": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("report", "words"),
    [
        ({}, None),
        ({"paused": True, "held_by": Held(HeldBy.PAUSE, NOON_MS + 9000)}, "paused"),
        ({"held_by": Held(HeldBy.PAUSE, NOON_MS + 9000)}, "paused for 9 s"),
        ({"held_by": Held(HeldBy.PAUSE, NOON_MS + 500)}, None),
        ({"trouble": "429"}, None),
        (
            {"held_by": Held(HeldBy.OUTAGE, NOON_MS + 9000), "trouble": "500 no"},
            "the server answers nobody, asked again in 9 s: 500 no",
        ),
        ({"held_by": Held(HeldBy.OUTAGE)}, "the server answers nobody"),
        ({"held_by": Held(HeldBy.FIRST)}, "few calls go out until the first answer"),
        (
            {"held_by": Held(HeldBy.LIMIT, per_minute=1234.5, limit="rpm")},
            "limited to about 1,234 requests/min (the limit of requests)",
        ),
        (
            {"held_by": Held(HeldBy.LIMIT, per_minute=0.5, limit="tpm")},
            "limited to one call in 2.0 min (the limit of tokens)",
        ),
        (
            {"held_by": Held(HeldBy.LIMIT, per_minute=1280, limit="sought")},
            "finding out what the server takes: 1,280 requests/min so far",
        ),
        (
            {"held_by": Held(HeldBy.LIMIT, per_minute=90, limit="learned")},
            "holding to about 90 requests/min: as many as the server takes, by its 429s",
        ),
        (
            {"held_by": Held(HeldBy.BUDGET, budget=BudgetWait(5400, 0.0512, 5012, 0.05))},
            "held by the budget: max_tokens 5012 reserves $0.05 a call; lower it",
        ),
        (
            {"held_by": Held(HeldBy.BUDGET, budget=BudgetWait(5400, 0.0, 5012, 0.0))},
            "held by the budget: max_tokens 5012 reserves 5,400 tokens a call; lower it",
        ),
        (
            {"held_by": Held(HeldBy.SLOTS, slots=12, refused_with="503")},
            "holding to 12 calls at once: the server refuses more (503)",
        ),
        (
            {"held_by": Held(HeldBy.SLOTS, slots=0)},
            "other workers have all the calls that the server takes at once",
        ),
        (
            {"held_by": Held(HeldBy.SLOTS, slots=1)},
            "holding to 1 call at once: the server refuses more",
        ),
        (
            {"held_by": Held(HeldBy.SLOTS, slots=9, share=0.1, refused_with="429")},
            "holding to 9 calls at once: 10 % of the newest calls are refused (429)",
        ),
        (
            {"held_by": Held(HeldBy.REFUSALS, share=0.031, refused_with="429")},
            "3 % of the calls are refused (429); they are sent again",
        ),
        ({"held_by": Held(HeldBy.MORE)}, "nothing is left: it waits for more items"),
    ],
)
def test_why_a_worker_sends_less_than_it_could(report: dict[str, Any], words: str | None) -> None:
    assert waits_for(worker(**report), NOON_MS) == words


@pytest.mark.parametrize(
    ("ordered", "heeded", "words"),
    [
        (True, False, "told to pause, not followed yet"),
        (False, True, "told to go on, not followed yet"),
        (True, True, "paused"),
        (False, False, None),
    ],
)
def test_an_order_is_told_apart_from_what_came_of_it(
    ordered: bool, heeded: bool, words: str | None
) -> None:
    report = WorkerReport(paused=heeded, held_by=Held(HeldBy.ORDER) if heeded else None)
    assert waits_for(worker(paused=ordered, report=report), NOON_MS) == words
    stopping = worker(paused=ordered, report=report, stop="drain")
    assert waits_for(stopping, NOON_MS) == "told to stop: what is in flight is finished first"


@pytest.mark.parametrize("kind", [HeldBy.ANNOUNCED, HeldBy.ITEMS])
def test_a_long_wait_is_told_by_the_clock(kind: HeldBy) -> None:
    at = datetime.fromtimestamp((NOON_MS + 3_600_000) / 1000, UTC).astimezone()
    held = waits_for(worker(held_by=Held(kind, NOON_MS + 3_600_000)), NOON_MS)
    assert held is not None
    assert held.endswith(f" until {at:%H:%M}")


def test_the_object_of_an_item() -> None:
    shown = ItemDetails(ITEM, CHAT, REQUEST, (CALL,)).to_json()
    assert shown == {
        "id": "mine", "number": 7, "experiment": "e", "state": "done", "reason": None,
        "error": None, "input": {"word": "a"}, "endpoint": "chat",
        "messages": [{"role": "user", "content": "Say a"}],
        "settings": {"model": "m", "max_tokens": 9},
        "parsed": "the answer", "parser": "raw", "finished_at": NOON,
        "attempts": [asdict(CALL) | {"finished_at": NOON}],
    }  # fmt: skip


def test_what_an_item_may_lack() -> None:
    pending = replace(ITEM, custom_id=None, sample=2, state="pending", finished_at=None)
    shown = ItemDetails(pending, CHAT, REQUEST, ()).to_json()
    assert (shown["id"], shown["sample"], shown["state"]) == (7, 2, "pending")
    assert (shown["parsed"], shown["finished_at"]) == (None, None)


def test_what_was_parsed_is_a_value() -> None:
    done = replace(ITEM, parsed='{"a": [1]}')
    assert ItemDetails(done, CHAT, REQUEST, (CALL,)).parsed == {"a": [1]}


def test_the_objects_of_failures() -> None:
    group = FailureGroup("parse", "no JSON", 3, 17)
    failures = Failures("e", (FailedLike(group, Remedy.MEND_PARSER, str(group.example)),))
    assert failures.to_json() == [
        {"experiment": "e", "reason": "parse", "error": "no JSON", "count": 3, "example": 17}
    ]


def test_several_servers_have_a_line_each_by_all_workers_together() -> None:
    out: dict[str, Any] = {"left_out": "no quota.", "left_out_at": NOON_MS - 60_000}
    down: dict[str, Any] = {
        "held_by": Held(HeldBy.OUTAGE, NOON_MS + 9000), "trouble": "503", "trouble_at": NOON_MS,
    }  # fmt: skip
    reports = (
        (
            ServerReport("a", "gpu-1", 1200, 30, {"429": 2}, 400),
            ServerReport("b", "gpu-2", 3, **out),
        ),
        (ServerReport("a", "gpu-1", 10, 1), ServerReport("b", "gpu-2", 4, 0, {"402": 4}, **out)),
    )
    workers = tuple(worker(n, servers=servers) for n, servers in enumerate(reports))
    status = Status(at_ms=NOON_MS, experiments=(), total=COUNTS, workers=workers)
    at = datetime.fromtimestamp(NOON_MS / 1000 - 60, UTC).astimezone()
    assert server_lines(status) == [
        "server gpu-1: 1,210 calls, 31 in flight, 400 answers in the last minute; failed calls: "
        "429 x 2",
        "server gpu-2: 7 calls, 0 in flight, 0 answers in the last minute; left out since "
        f"{at:%H:%M:%S}: no quota; failed calls: 402 x 4",
    ]
    alone = (worker(servers=(ServerReport("a", "gpu-1", 5, **down),)),)
    only = replace(status, workers=alone)
    assert server_lines(only) == []
    assert [one.to_json(waits_for(one, NOON_MS)) for one in only.servers] == [
        {
            "name": "gpu-1", "calls": 5, "in_flight": 0, "answers_per_minute": 0,
            "failed_calls": {}, "trouble": "503", "left_out": None, "left_out_since": None,
            "waits_for": "the server answers nobody, asked again in 9 s: 503",
        }
    ]  # fmt: skip
