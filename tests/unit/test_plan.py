"""What a transaction will write, decided without a database."""

from msgspec.structs import replace

from batchgen.items import (
    Attempt,
    Done,
    Fail,
    Item,
    KeepAnswer,
    Outcome,
    ParseLater,
    Reason,
    Release,
    Retry,
    Usage,
)
from batchgen.limits import Limits
from batchgen.store import (
    Budget,
    EndedAnswer,
    EndedItem,
    Grant,
    Reparsed,
    Reservation,
    ServerWant,
    Spent,
)
from batchgen.store.grants import plan_grants
from batchgen.store.plan import (
    ClaimRow,
    Known,
    Plan,
    Reserved,
    plan_finish,
)
from batchgen.store.plan_removal import plan_removal
from batchgen.store.plan_repair import plan_reopened, plan_reparsed
from batchgen.store.returned import returned_of

NOW = 1_700_000_000_000
ITEM = Item(1, 3, 7, 1, None, "{}")  # in its third claim, of experiment 7
ANSWERED = Attempt(finished_at=NOW, latency_ms=5, response="yes", usage=Usage(10, 20))
UNKNOWN = Attempt(finished_at=NOW)
REFUSED = Attempt(finished_at=NOW, latency_ms=5, reason=Reason.RATE_LIMIT, error="429")
HELD = Known(held={(1, 3)}, last_attempt_seq=40, last_result_seq=30)


def finish(outcome: Outcome, *more: Outcome, known: Known = HELD) -> Plan:
    return plan_finish([outcome, *more], known, worker_id=9, now=NOW)


def moved(plan: Plan) -> dict[tuple[int, str, str], int]:
    return {key: n for key, n in plan.deltas.moved.items() if n}


def test_an_answer_ends_its_item() -> None:
    plan = finish(Outcome(ITEM, (ANSWERED,), Done("[1]")))
    assert [(row["seq"], row["response"]) for row in plan.attempts] == [(41, "yes")]
    assert [(row["seq"], row["attempt_seq"], row["parsed"]) for row in plan.results] == [
        (31, 41, "[1]")
    ]
    (settled,) = plan.settled
    assert (settled["state"], settled["result_seq"], settled["charged"]) == ("done", 31, True)
    assert moved(plan) == {(7, "running", ""): -1, (7, "done", ""): 1}
    assert (plan.deltas.totals()[7].calls, plan.deltas.totals()[7].completion_tokens) == (1, 20)
    assert (plan.attempt_seqs, plan.lost) == ([41], [])


def test_the_first_attempt_of_two_is_the_one_that_counts() -> None:
    plan = finish(Outcome(ITEM, (ANSWERED, UNKNOWN), KeepAnswer()))
    assert [row["outcome"] for row in plan.attempts] == ["answered", "unknown"]
    assert plan.kept_answers == [{"item_id": 1, "epoch": 3, "answer_seq": 41}]
    assert (plan.attempt_seqs, plan.settled, moved(plan)) == ([41], [], {})
    assert plan.deltas.totals()[7].unknown_calls == 1


def test_an_answer_to_be_parsed_later_waits_with_its_item_for_whoever_claims_it() -> None:
    plan = finish(Outcome(ITEM, (ANSWERED,), ParseLater()))
    (settled,) = plan.settled
    assert (settled["state"], settled["answer_seq"], settled["charged"]) == ("pending", 41, 0)
    assert (plan.results, moved(plan)) == ([], {(7, "running", ""): -1, (7, "pending", ""): 1})
    gone = finish(
        Outcome(ITEM, (ANSWERED,), ParseLater()), known=replace(HELD, outdated={(1, 3): 2})
    )
    assert [(row["state"], row["answer_seq"]) for row in gone.settled] == [("stale", None)]


def test_an_answer_that_was_kept_before_is_the_one_that_the_result_names() -> None:
    parsed = Item(1, 3, 7, 1, None, "{}", answer_seq=12, answer_text="yes")
    plan = finish(Outcome(parsed, (), Done()))
    assert [row["attempt_seq"] for row in plan.results] == [12]
    again = finish(Outcome(parsed, (), Retry(None, charged=True, error="no JSON")))
    assert again.parse_errors == [{"seq": 12, "error": "no JSON"}]


def test_a_retry_gives_the_item_back_with_its_time() -> None:
    plan = finish(Outcome(ITEM, (REFUSED,), Retry(NOW + 9, charged=False)))
    (settled,) = plan.settled
    assert (settled["state"], settled["available_at"]) == ("pending", NOW + 9)
    assert (settled["charged"], settled["result_seq"]) == (False, None)
    assert plan.deltas.totals()[7].retried == 1


def test_what_comes_too_late_moves_nothing_and_takes_the_place_of_an_unknown_call() -> None:
    late = Outcome(ITEM, (ANSWERED,), Done())
    plan = finish(late, known=Known(late={(1, 3): 1}))
    assert (plan.lost, plan.settled, plan.results, moved(plan)) == ([late], [], [], {})
    assert plan.replaced == [{"item_id": 1, "epoch": 3}]
    totals = plan.deltas.totals()[7]
    assert (totals.calls, totals.unknown_calls, totals.prompt_tokens) == (0, -1, 10)


def test_a_parse_error_that_comes_too_late_says_nothing_of_the_answer() -> None:
    parsed = Item(1, 3, 7, 1, None, "{}", answer_seq=12, answer_text="yes")
    retry = Outcome(parsed, (), Retry(None, charged=True, parse_failed=True, error="no JSON"))
    assert finish(retry, known=Known(late={(1, 3): 0})).parse_errors == []
    done = Outcome(parsed, (), Done("[1]"))
    assert finish(done, retry).parse_errors == []


def test_of_an_item_that_is_gone_nothing_is_written() -> None:
    plan = finish(Outcome(ITEM, (ANSWERED,), Done()), known=Known())
    assert (plan.attempts, plan.results, plan.settled, plan.attempt_seqs) == ([], [], [], [None])


def test_the_second_outcome_of_a_claim_that_has_ended_is_lost() -> None:
    outcome = Outcome(ITEM, (ANSWERED,), Done())
    plan = finish(outcome, outcome)
    assert (len(plan.settled), plan.lost, plan.attempt_seqs) == (1, [outcome], [41, 42])


def test_an_unknown_call_is_booked_with_what_was_reserved_for_it() -> None:
    known = Known(held={(1, 3)}, reserved={(1, 3): Reserved(Spent(500, 0.25), 500)})
    plan = finish(Outcome(ITEM, (UNKNOWN,), Release()), known=known)
    assert [row["cost_usd"] for row in plan.attempts] == [0.25]
    assert plan.deltas.totals()[7].unknown_tokens == 500
    whole = finish(Outcome(ITEM, (replace(ANSWERED, cost_usd=0.01),), Done()), known=known)
    assert (whole.attempts[0]["cost_usd"], whole.deltas.totals()[7].unknown_tokens) == (0.01, 0)


def claim(
    item_id: int, epoch: int, answer_seq: int | None, crashes: int, second_call: int
) -> ClaimRow:
    return ClaimRow(item_id, 7, epoch, answer_seq, 4, crashes=crashes, second_call=second_call)


def removal(*claims: ClaimRow, crashed: bool = True, sends: bool = False) -> Plan:
    return plan_removal(claims, Known(), 9, crashed=crashed, sends=sends, max_crashes=3, now=NOW)


def test_a_crash_leaves_an_unknown_call_for_each_that_may_have_been_sent() -> None:
    plan = removal(claim(1, 3, None, 0, 0), claim(2, 1, None, 0, 1))
    assert [row["item_id"] for row in plan.attempts] == [1, 2, 2]
    assert plan.taken_back == [{"item_id": 1, "crashed": 1}, {"item_id": 2, "crashed": 1}]
    assert moved(plan) == {(7, "running", ""): -2, (7, "pending", ""): 2}


def test_who_leaves_in_order_gives_back_untouched_items() -> None:
    plan = removal(claim(1, 3, None, 2, 0), crashed=False)
    assert (plan.attempts, plan.taken_back) == ([], [{"item_id": 1, "crashed": 0}])


def test_who_leaves_in_order_has_handed_in_what_it_sent_also_second_calls() -> None:
    plan = removal(claim(1, 3, None, 0, 1), crashed=False)
    assert (plan.attempts, plan.taken_back) == ([], [{"item_id": 1, "crashed": 0}])


def test_an_item_that_saw_too_many_workers_die_fails() -> None:
    plan = removal(claim(1, 3, None, 2, 0))
    assert [row["reason"] for row in plan.results] == ["crash"]
    assert moved(plan) == {(7, "running", ""): -1, (7, "failed", "crash"): 1}


def test_while_a_parser_ran_only_its_items_are_suspected() -> None:
    plan = removal(claim(1, 3, None, 2, 0), claim(2, 1, 12, 2, 0))
    assert plan.taken_back == [{"item_id": 1, "crashed": 0}]
    assert [(row["item_id"], row["attempt_seq"]) for row in plan.results] == [(2, 12)]
    assert plan.deltas.parsed == {(7, 4): 1}


def test_a_budget_grants_what_fits_and_tells_waiting_from_never() -> None:
    item = Item(1, 3, 7, 1, None, "{}")
    wanted = [Reservation(item, tokens, 0.0) for tokens in (30, 30, 90)]
    wanted.append(Reservation(Item(2, 1, 7, 1, None, "{}"), 1, 0.0))  # another's by now
    budget = Budget(max_tokens=100)
    grants, made = plan_grants(wanted, budget, Spent(20), Spent(30), {(1, 3)}, {})
    assert grants == [Grant.YES, Grant.WAIT, Grant.NEVER, Grant.WAIT]
    assert made == [(wanted[0], Spent(30))]


def test_where_calls_used_more_than_was_asked_as_much_more_is_held_back() -> None:
    known = Known(held={(1, 3)}, reserved={(1, 3): Reserved(Spent(100), 50)})
    used = replace(ANSWERED, usage=Usage(30, 120))
    assert finish(Outcome(ITEM, (used,), Done()), known=known).deltas.overused == {7: 3.0}
    less = replace(ANSWERED, usage=Usage(30, 20))
    assert finish(Outcome(ITEM, (less,), Done()), known=known).deltas.overused == {}
    wanted = [Reservation(Item(1, 3, 7, 1, None, "{}"), 30, 0.5)]
    held = {(1, 3)}
    grants, made = plan_grants(wanted, Budget(max_tokens=100), Spent(), Spent(), held, {7: 3.0})
    assert (grants, made) == ([Grant.YES], [(wanted[0], Spent(90, 1.5))])


def test_a_call_that_was_dearer_than_was_asked_lets_as_much_more_be_held_back() -> None:
    known = Known(held={(1, 3)}, reserved={(1, 3): Reserved(Spent(100, 0.5), 50)})  # asked: 0.25
    dearer = replace(ANSWERED, cost_usd=0.75)
    assert finish(Outcome(ITEM, (dearer,), Done()), known=known).deltas.overused == {7: 3.0}
    cheaper = replace(ANSWERED, cost_usd=0.2)
    assert finish(Outcome(ITEM, (cheaper,), Done()), known=known).deltas.overused == {}


def test_a_call_whose_price_is_not_known_counts_with_what_was_reserved() -> None:
    known = Known(held={(1, 3)}, reserved={(1, 3): Reserved(Spent(100, 0.5), 50)})
    plan = finish(Outcome(ITEM, (ANSWERED,), Done()), known=known)
    assert [row["cost_usd"] for row in plan.attempts] == [0.5]
    assert plan.deltas.overused == {}
    no_dollars = Known(held={(1, 3)}, reserved={(1, 3): Reserved(Spent(100), 50)})
    for held in (no_dollars, HELD):
        (row,) = finish(Outcome(ITEM, (ANSWERED,), Done()), known=held).attempts
        assert row["cost_usd"] is None
    refused = finish(Outcome(ITEM, (REFUSED,), Fail(Reason.SERVER, "no")), known=known)
    assert [row["cost_usd"] for row in refused.attempts] == [None]


def test_a_wrong_count_of_tokens_does_not_end_all_reservations_for_good() -> None:
    known = Known(held={(1, 3)}, reserved={(1, 3): Reserved(Spent(50), 50)})
    used = replace(ANSWERED, usage=Usage(30, 2**52))
    assert finish(Outcome(ITEM, (used,), Done()), known=known).deltas.overused == {7: 100.0}


def test_calls_that_were_not_sent_and_tokens_that_were_not_used_are_given_back() -> None:
    item = Item(1, 3, 7, 1, None, "{}", reserved_tokens=100)
    outcomes = [
        Outcome(item, (), Release()),
        Outcome(item, (ANSWERED,), Done()),
        Outcome(item, (UNKNOWN,), Release()),
        Outcome(item, (REFUSED,), Retry(None, charged=False)),
    ]
    returned = returned_of(
        outcomes, ServerWant("", limits=Limits(tpm=1000, adaptive=True), pause_ms=5)
    )
    assert (returned.requests, returned.tokens) == (1, 100 + 70 + 0 + 100)
    assert (returned.refused_at, returned.pause_ms) == ((NOW - 5,), 5)


def test_only_items_that_still_ended_so_are_reopened() -> None:
    items = [
        EndedItem(1, 7, "parse", "no"),
        EndedItem(2, 7, None, None),
        EndedItem(3, 7, None, None),
    ]
    by_now = {1: EndedItem(1, 7, "server", "no"), 2: EndedItem(2, 7, None, None, 4)}
    plan = plan_reopened(items, by_now)
    assert plan.reopened == [{"item_id": 2}]
    assert (plan.deltas.superseded[7], plan.deltas.moved[7, "pending", ""]) == (1, 1)
    assert plan.deltas.parsed == {(7, 4): -1}


def test_another_result_replaces_the_one_that_was_parsed_anew() -> None:
    was = EndedAnswer(1, 7, None, 30, 40, "parse", "no", None, 4, "{}", "yes", "stop")
    done, same = Reparsed(was, Done("1")), Reparsed(was, None)
    plan = plan_reparsed([done, done, same], 5, {1: 30}, 30, NOW)
    assert [(row["seq"], row["state"], row["parser_id"]) for row in plan.results] == [
        (31, "done", 5)
    ]
    assert plan.deltas.parsed == {(7, 4): -1, (7, 5): 1}
    assert plan.items == [1]  # the others are about a result that is not the item's any more
    still = plan_reparsed([Reparsed(was, Fail(Reason.PARSE, "yes"))], 5, {1: 31}, 31, NOW)
    assert (still.items, still.results) == ([], [])
    confirmed = plan_reparsed([same], 5, {1: 30}, 30, NOW)
    assert (confirmed.results, confirmed.confirmed) == ([], [{"seq": 30, "parser_id": 5}])
    assert confirmed.deltas.parsed == {(7, 4): -1, (7, 5): 1}
