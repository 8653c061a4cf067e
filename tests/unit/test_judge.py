"""What a reply means for its item, and how its answer is parsed: no server, no database."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from batchgen.clock import clock_ms
from batchgen.config import ModelConfig, Price
from batchgen.endpoints import CHAT
from batchgen.items import (
    Answer,
    Attempt,
    Decision,
    Done,
    Fail,
    Failure,
    Item,
    ItemInput,
    KeepAnswer,
    Reason,
    Recipe,
    Release,
    Reply,
    Retry,
    Suspect,
    Template,
    Trouble,
    Usage,
)
from batchgen.llm.decide import RetryPolicy
from batchgen.llm.error_replies import REFUSES_NOW, UNKNOWN_MODEL
from batchgen.llm.prices import Prices
from batchgen.parsers import load_parser
from batchgen.prompts import Renderer
from batchgen.store import Exchange
from batchgen.worker.controller import Call
from batchgen.worker.judge import CallResult, Judge, Sent
from batchgen.worker.pacer import Pacer
from batchgen.worker.parsing import AnswerParser
from batchgen.worker.rejected_parameters import RejectedParameters
from batchgen.worker.requests import Prepared
from batchgen.worker.servers import Connection
from batchgen.worker.spec import WorkSpec
from batchgen.worker.stats import Halt, Stats
from tests.kits.servers import NO_CLIENT, SERVER, servers_of

POLICY = RetryPolicy(max_attempts=2, parse_attempts=2)
SPEC = WorkSpec(max_attempts=2, parse_attempts=2)
PRICES = Prices(ModelConfig(base_url="http://127.0.0.1/v1", model="m", price=Price(1.0, 2.0, 0.5)))
ANSWER = Answer("Hello", '{"choices": []}', "stop", "m-1", Usage(1_000_000, 500_000))
REFUSED_PARAMETER = '{"error": {"message": "no", "param": "seed", "code": "unknown_parameter"}}'
CUT_OFF = Failure(Reason.CONNECTION, "reset")


def item(number: int = 1, tries: int = 0) -> Item:
    return Item(number, 1, 1, 1, None, '{"word": "a"}', tries=tries)


def prepared(parser: str = "raw", *, shared_recipe: bool = True, **params: Any) -> Prepared:
    recipe = Recipe(None, Template("Say {word}"), "m", {"seed": 1})
    given = {"word": "a"}
    item_input = ItemInput(given, params=params, user_variables=given)
    renderer = Renderer(recipe)
    body = renderer.request_body(item_input, None)
    added = frozenset(renderer.added_params(item_input))
    return Prepared(item_input, load_parser(parser), renderer, body, added, shared_recipe, CHAT)


def called(verdict: Answer | Failure, after_ms: int = 0, **reply: Any) -> CallResult:
    return CallResult(
        Reply(1_700_000_000_000, 250, **reply),
        verdict,
        Call(1, clock_ms() + after_ms, has_ended=True),
        SERVER.key,
    )


def sent(verdict: Answer | Failure, **reply: Any) -> Sent:
    return Sent(called(verdict, **reply))


class Court:
    """A judge, and what it says to the worker around it."""

    def __init__(self, *, on_trial: bool = False) -> None:
        self.halts: list[Halt] = []
        self.late: list[Item] = []
        self.left_out: list[tuple[int, str]] = []
        self.warnings: list[str] = []
        self.stats = Stats()
        self.pacer = Pacer(10, 1800, 0)
        servers = servers_of(
            self.pacer, connection=Connection(NO_CLIENT, PRICES), halt=self.halts.append
        )
        if not on_trial:
            proven = Exchange([], [], None, proven={SERVER.key: frozenset({1})})
            servers[SERVER.key].trials.observe(proven)
        parameters = RejectedParameters(self.leave_out, self.warnings.append)
        self.judge = Judge(
            servers, self.stats, parameters, SPEC,
            charge_late=self.late.append, warn=self.warnings.append,
        )  # fmt: skip

    def leave_out(self, _: str, recipe_id: int, name: str) -> bool:
        self.left_out.append((recipe_id, name))
        return True

    def decide(self, verdict: Answer | Failure, of: Item | None = None, **reply: Any) -> Any:
        return self.judged(of or item(), prepared(), sent(verdict, **reply)).decision

    def judged(self, of: Item, request: Prepared, what: Sent) -> "Judged":
        record = self.judge.record(of, request, what)
        return Judged(record.attempts, self.judge.decide(of, request, record.decisive))


class Judged(NamedTuple):
    attempts: tuple[Attempt, ...]
    decision: Decision


def test_an_answer_is_kept_with_what_it_cost_and_then_parsed() -> None:
    court = Court()
    reply = sent(ANSWER, status=200, headers={"x-request-id": "r-1"})
    judged = court.judged(item(), prepared(), reply)
    assert judged.decision == KeepAnswer()
    (kept,) = judged.attempts
    assert (kept.outcome, kept.response, kept.body) == ("answered", "Hello", ANSWER.rest)
    assert (kept.http_status, kept.request_id, kept.cost_usd) == (200, "r-1", 2.0)
    assert (kept.latency_ms, kept.finished_at) == (250, 1_700_000_000_250)
    assert (court.stats.calls, list(court.stats.latencies_ms)) == (1, [250])
    assert (court.stats.calls, court.stats.trouble) == (1, "")


@pytest.mark.parametrize(
    ("second", "outcome"),
    [(None, "unknown"), (called(Failure(Reason.SERVER, "500"), status=500), "failed")],
)
def test_of_two_calls_the_one_that_counts_comes_first(
    second: CallResult | None, outcome: str
) -> None:
    both = Sent(called(ANSWER, status=200), (second,))
    judged = Court().judged(item(), prepared(), both)
    assert judged.decision == KeepAnswer()
    assert [attempt.outcome for attempt in judged.attempts] == ["answered", outcome]


def test_of_a_failure_no_more_than_the_beginning_of_what_came_is_kept() -> None:
    failure = Failure(Reason.BAD_RESPONSE, "200, but no choices in it")
    record = Court().judge.record(item(), prepared(), sent(failure, status=200, body="x" * 9**7))
    assert record.attempts[0].body == "x" * 1024 * 1024


def test_the_first_answer_counts_or_else_the_first_reply() -> None:
    answer, failure = called(ANSWER), called(Failure(Reason.SERVER, "500"))
    assert Sent.of([failure, answer]) == Sent(answer, (failure,))
    assert Sent.of([failure, None]) == Sent(failure, (None,))
    assert Sent.of([None, failure]) == Sent(failure, (None,))
    assert Sent.of([answer]) == Sent(answer)
    assert Sent.of([None, None]) is None


@pytest.mark.parametrize(
    ("reason", "was_sent", "may_be_charged"),
    [
        (Reason.TIMEOUT, True, True),
        (Reason.CONNECTION, True, True),
        (Reason.CONNECTION, False, False),
        (Reason.SERVER, True, False),
    ],
)
def test_a_call_of_which_we_did_not_see_the_end_may_be_charged(
    reason: Reason, was_sent: bool, may_be_charged: bool
) -> None:
    judged = Court().judged(item(), prepared(), sent(Failure(reason, "so"), sent=was_sent))
    (kept,) = judged.attempts
    assert (kept.outcome, kept.reason, kept.error) == ("failed", reason, "so")
    assert kept.may_be_charged is may_be_charged


def test_what_no_request_can_help_halts_and_gives_the_item_back() -> None:
    court = Court(on_trial=True)
    failure = Failure(Reason.REJECTED, "401 no", halt="the key is wrong.")
    assert court.decide(failure) == Release()
    assert court.halts == [Halt("the key is wrong. The server said: 401 no")]


def test_once_others_were_answered_it_may_be_about_the_item() -> None:
    court = Court()
    failure = Failure(Reason.REJECTED, "401 no", halt="the key is wrong.")
    decision = court.decide(failure)
    assert isinstance(decision, Suspect)
    assert (decision.halt, court.halts) == ("the key is wrong.", [])
    assert isinstance(decision.own, Retry)  # one of several keys of a gateway, perhaps


def test_a_model_that_the_item_itself_asked_for_halts_nobody() -> None:
    court = Court()
    failure = Failure(Reason.REJECTED, "404 no model", halt=UNKNOWN_MODEL)
    judged = court.judged(item(), prepared(model="m-9"), sent(failure, status=404))
    assert judged.decision == Fail(Reason.REJECTED, "404 no model")
    assert court.halts == []


@pytest.mark.parametrize(("tries", "kind"), [(0, Retry), (1, Fail)])
def test_a_try_is_used_up_until_none_is_left(tries: int, kind: type) -> None:
    decision = Court().decide(Failure(Reason.SERVER, "500"), item(tries=tries))
    assert isinstance(decision, kind)


def test_an_item_whose_call_was_cut_off_is_charged_when_others_are_served() -> None:
    court = Court()
    decision = court.decide(CUT_OFF, item(1))
    assert isinstance(decision, Retry)
    assert not decision.charged
    assert court.decide(ANSWER, item(2)) == KeepAnswer()
    assert court.late == [item(1)]


def test_one_that_is_charged_late_while_it_is_asked_again_has_no_more_tries_for_that() -> None:
    court = Court()
    court.decide(CUT_OFF, item(1))
    court.decide(ANSWER, item(2))
    unusable = Failure(Reason.BAD_RESPONSE, "no JSON", finish_reason="stop")
    assert court.decide(unusable, item(1)) == Fail(Reason.BAD_RESPONSE, "no JSON")
    assert POLICY.max_attempts == 2


def test_one_whose_last_try_that_was_ends_without_another_call() -> None:
    court = Court()
    last = item(1, tries=POLICY.max_attempts - 1)
    court.decide(CUT_OFF, last)
    assert court.judge.take_failure(last) is None
    court.decide(ANSWER, item(2))
    assert court.late == []
    assert court.judge.take_failure(last) == Fail(Reason.CONNECTION, "reset")
    assert court.judge.take_failure(last) is None


@pytest.mark.parametrize(
    ("failure", "params", "shared_recipe", "suspected"),
    [
        (Failure(Reason.REJECTED, "404"), {}, True, "404 place"),
        (Failure(Reason.REJECTED, "400"), {}, True, "400 request"),
        (Failure(Reason.REJECTED, "400"), {"top_p": 2}, True, None),
        (Failure(Reason.REJECTED, "400"), {}, False, None),  # of `retry --set`
        (Failure(Reason.REJECTED, "404"), {"top_p": 2}, True, "404 place"),
        (Failure(Reason.BAD_RESPONSE, "200"), {}, True, "200 nonsense"),
        (Failure(Reason.REFUSAL, "200"), {}, True, None),
        (Failure(Reason.TIMEOUT, "200"), {}, True, None),
        (Failure(Reason.RATE_LIMIT, "429"), {}, True, None),
    ],
)
def test_before_the_first_answer_an_item_that_failed_is_a_suspect(
    failure: Failure, params: dict[str, Any], shared_recipe: bool, suspected: str | None
) -> None:
    request = prepared(shared_recipe=shared_recipe, **params)
    reply = sent(failure, status=int(failure.message))
    decision = Court(on_trial=True).judged(item(), request, reply).decision
    assert (decision.alike if isinstance(decision, Suspect) else None) == suspected
    proven = Court().judged(item(), request, reply).decision
    assert isinstance(proven, Suspect) == (suspected == "400 request")


def test_an_outage_is_told_at_once_by_the_url_and_how_long_it_goes_on() -> None:
    court = Court()
    refused = Failure(Reason.CONNECTION, "refused", trouble=Trouble.UNREACHABLE)
    for number in range(3):
        court.decide(refused, item(number))
    assert court.warnings == [
        "the server cannot be reached: http://127.0.0.1/v1 (model.base_url): refused. It is asked "
        "again now and then, for 1800 s (work.stall_s) at most; no item is charged."
    ]


@pytest.mark.parametrize(
    ("workers", "told"),
    [(1, "the server answers nobody"), (4, "the server has no room for one of the workers, or")],
)
def test_a_worker_beside_others_does_not_say_that_nobody_is_answered(
    monkeypatch: pytest.MonkeyPatch, workers: int, told: str
) -> None:
    court, now = Court(), [100_000]
    monkeypatch.setattr("batchgen.worker.judge.clock_ms", lambda: now[0])
    court.pacer.server.workers = workers
    for number in range(10):
        now[0] += 10_000
        court.decide(Failure(Reason.SERVER, "503", trouble=Trouble.UNAVAILABLE), item(number))
    assert [warning.startswith(told) for warning in court.warnings] == [True]


def test_an_outage_that_may_be_bad_items_is_told_once_a_call_was_sent_to_see(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    court, now = Court(), [100_000]
    monkeypatch.setattr("batchgen.worker.judge.clock_ms", lambda: now[0])
    failure = Failure(Reason.SERVER, "500 oops")
    for number in range(5):
        court.decide(failure, item(number))
    assert court.warnings == []
    now[0] += 2000  # its reply took 250 ms
    court.decide(failure, item(9))
    assert [words[:27] for words in court.warnings] == ["the server answers nobody: "]
    now[0] += 2000
    court.decide(failure, item(10))
    assert len(court.warnings) == 1


NOT_FOUND = Failure(Reason.REJECTED, "404 Not Found")


def test_a_404_after_answers_fails_its_item_without_another_call_once_others_are_answered() -> None:
    court = Court()
    waits = court.decide(NOT_FOUND, item(7), status=404)
    assert isinstance(waits, Retry)
    assert not waits.charged
    assert court.judge.take_failure(item(7)) is None
    court.decide(ANSWER, item(8), status=200, after_ms=1000)
    assert court.judge.take_failure(item(7)) == Fail(Reason.REJECTED, "404 Not Found")
    assert court.late == []


def test_a_404_for_everybody_after_answers_is_an_outage_and_costs_no_item_anything() -> None:
    court = Court()
    decisions = [court.decide(NOT_FOUND, item(number), status=404) for number in range(20)]
    assert not any(decision.charged for decision in decisions)
    court.decide(ANSWER, item(20), status=200, after_ms=1000)
    assert [court.judge.take_failure(item(number)) for number in range(20)] == [None] * 20


def test_an_item_that_is_refused_after_answers_is_a_suspect_as_all_others_may_be_too() -> None:
    refused = Failure(Reason.REJECTED, "400 too long")
    own = Fail(Reason.REJECTED, "400 too long")
    suspect = Suspect("400 request", "400 too long", own, REFUSES_NOW)
    assert Court().decide(refused, item(), status=400) == suspect


def test_a_stale_connection_costs_nothing_once() -> None:
    court = Court()
    stale = Failure(Reason.CONNECTION, "reset", trouble=Trouble.STALE_CONNECTION)
    assert court.decide(stale) == Retry(None, charged=False)
    again = court.decide(stale)
    assert again.available_at is not None  # as for any reset: after a while


@pytest.mark.parametrize(
    ("shared_recipe", "answered", "params", "halts"),
    [
        (True, False, {}, True),
        (False, False, {}, False),  # of `retry --set`: items chosen
        (True, True, {}, False),
        (True, False, {"seed": 7}, False),  # the item's own
    ],
)
def test_a_parameter_that_the_server_takes_from_nobody_halts(
    shared_recipe: bool, answered: bool, params: dict[str, Any], halts: bool
) -> None:
    court = Court(on_trial=True)
    if answered:
        court.decide(ANSWER)
    failure = sent(Failure(Reason.REJECTED, "400 no"), status=400, body=REFUSED_PARAMETER)
    request = prepared(shared_recipe=shared_recipe, **params)
    judged = court.judged(item(), request, failure)
    assert (bool(court.halts), judged.decision == Release()) == (halts, halts)
    if isinstance(judged.decision, Fail):
        assert judged.decision.error.startswith("the server rejects ")


# Parsing


@pytest.fixture
def parse() -> Any:
    parser = AnswerParser(POLICY, timeout_s=5)
    yield parser.parse
    parser.close()


@pytest.mark.parametrize(
    ("spec", "text", "decision"),
    [
        ("raw", "no JSON", Done(None)),
        ("json", 'so: {"n": 1}', Done('{"n": 1}')),
        ("tag:a", "<a>1</a><a>2</a>", Done('["1", "2"]')),
    ],
)
async def test_an_answer_is_parsed(
    parse: Callable[..., Any], spec: str, text: str, decision: Done
) -> None:
    assert await parse(item(), prepared(spec), text) == decision


async def test_one_that_cannot_be_is_asked_for_again_while_tries_are_left(
    parse: Callable[..., Any],
) -> None:
    error = "no JSON in the answer"
    again = Retry(None, charged=True, parse_failed=True, error=error)
    assert await parse(item(), prepared("json"), "no") == again
    assert await parse(item(tries=1), prepared("json"), "no") == Fail(Reason.PARSE, error)


async def test_a_function_gets_the_item_as_it_was_given(
    parse: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text("def read(text, item):\n    return [text, item['word']]\n")
    spec = f"{tmp_path}/mine.py:read"
    assert await parse(item(), prepared(spec), "Hello") == Done('["Hello", "a"]')
