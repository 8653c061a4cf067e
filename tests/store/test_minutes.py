"""What was done in each minute: kept as calls and results are written, on both engines."""

import json
import math
from collections import Counter, defaultdict
from typing import Any

import pytest
from msgspec.structs import replace

from batchgen.items import Done, Fail, KeepAnswer, Outcome, ParserVersion, Reason, Release, Retry
from batchgen.store import (
    AnswerChoice,
    Budget,
    Reparsed,
    Reservation,
    Series,
    open_store,
    percentiles,
    read_store,
    start_of_bucket,
)
from batchgen.store.minutes import bucket_of
from batchgen.store.transactions import admin, budget, intake, repair
from tests.kits.engines import SqliteEngine
from tests.kits.table import START, Table, answered, broken

MINUTE = START // 60_000
_COLUMNS = (
    "done", "failed", "calls", "latency_ms", "prompt_tokens", "completion_tokens", "cached_tokens",
    "reasoning_tokens", "cost_usd", "latencies", "lengths", "reasons", "slowest_ms",
)  # fmt: skip

Minutes = dict[tuple[int, int], dict[str, Any]]


def kept(table: Table) -> Minutes:
    found = table.query(f"select experiment_id, minute, {', '.join(_COLUMNS)} from minutes")
    return {
        (experiment_id, minute): {
            name: dict(sorted(json.loads(value).items()))
            if isinstance(value, str) else value
            for name, value in zip(_COLUMNS, values, strict=True)
        }
        for experiment_id, minute, *values in found
    }  # fmt: skip


def nothing() -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(_COLUMNS, 0)
    return row | {"latencies": Counter(), "lengths": Counter(), "reasons": Counter(),
                  "slowest_ms": None}  # fmt: skip


def recounted(table: Table) -> Minutes:
    """From all calls and results, without any statement of the store."""
    rows: defaultdict[tuple[int, int], dict[str, Any]] = defaultdict(nothing)
    used = _COLUMNS[3:9]
    for experiment_id, at, outcome, reason, response, *numbers in table.query(
        "select experiment_id, finished_at, outcome, reason, response,"
        f" {', '.join(used)} from attempts join items on id = item_id"
    ):
        row = rows[experiment_id, at // 60_000]
        for name, n in zip(used, numbers, strict=True):
            row[name] += n or 0
        row["calls"] += outcome != "unknown"
        latency_ms = numbers[0]
        if latency_ms is not None:
            row["slowest_ms"] = max(latency_ms, row["slowest_ms"] or 0)
        if reason:
            row["reasons"][reason] += 1
        elif response is not None:
            row["latencies"][str(math.floor(math.log(latency_ms, 1.1)))] += 1
            row["lengths"][str(math.floor(math.log(len(response), 1.1)))] += 1
    for experiment_id, at, state in table.query(
        "select experiment_id, finished_at, state from results join items on id = item_id"
        " where reparsed = 0"
    ):
        rows[experiment_id, at // 60_000][state] += 1
    return {key: row for key, row in rows.items() if row != nothing()}


def done(item: Any, text: str = "an answer", at: int = START, latency_ms: int = 700) -> Outcome:
    attempt = replace(answered(text, at), latency_ms=latency_ms, cost_usd=0.125)
    return Outcome(item, (attempt,), Done("[1]"))


def test_a_minute_has_what_ended_in_it(table: Table) -> None:
    table.enqueue(*"abcd")
    worker = table.join()
    one, two, three, four = table.claim(worker, 4)
    slow = done(two, "x" * 1000, latency_ms=5000)
    failed = Outcome(three, (broken(Reason.REJECTED),), Fail(Reason.REJECTED, "no"))
    again = Outcome(four, (broken(Reason.RATE_LIMIT),), Retry(None, charged=False))
    table.exchange(worker, [done(one), slow, failed, again])
    assert kept(table) == recounted(table) == {
        (1, MINUTE): {
            "done": 2, "failed": 1, "calls": 4, "latency_ms": 5710, "prompt_tokens": 20,
            "completion_tokens": 40, "cached_tokens": 6, "reasoning_tokens": 8, "cost_usd": 0.25,
            "latencies": {"68": 1, "89": 1}, "lengths": {"23": 1, "72": 1},
            "reasons": {"rate_limit": 1, "rejected": 1}, "slowest_ms": 5000,
        }
    }  # fmt: skip
    assert table.query("select slowest from minutes") == [(2,)]


def test_what_comes_later_is_added_to_its_minute_or_begins_another(table: Table) -> None:
    table.enqueue(*"abcdef")
    worker = table.join()
    one, two, three, four, five, six = table.claim(worker, 6)
    table.exchange(worker, [done(one)])
    table.exchange(worker, [done(two), done(three, "a longer answer", latency_ms=90)])
    table.now += 61_000
    table.exchange(worker, [done(four, at=START + 30_000), done(five, at=table.now)])
    table.now -= 3_600_000  # the clock was set back
    table.exchange(worker, [done(six, at=table.now)])
    found = kept(table)
    assert found == recounted(table)
    assert {minute - MINUTE: (row["done"], row["calls"]) for (_, minute), row in found.items()} == {
        0: (3, 4), 1: (2, 1), -59: (1, 1)
    }  # fmt: skip


def test_unknown_calls_are_left_out_and_counted_when_their_end_is_known(table: Table) -> None:
    table.enqueue("a", "b")
    dead = table.join()
    late, _ = table.claim(dead, 2)
    table.take_over(dead)
    assert (kept(table), table.one("select unknown_calls from totals")) == ({}, 2)
    table.now += 60_000
    table.exchange(dead, [done(late, at=START)])
    assert kept(table) == recounted(table)
    assert table.query("select minute, done, calls from minutes") == [(MINUTE, 0, 1)]
    assert table.query("select calls, unknown_calls from totals") == [(2, 1)]


def test_what_a_budget_has_booked_for_an_unknown_call_stays(table: Table) -> None:
    table.enqueue("a")
    dead = table.join()
    (item,) = table.claim(dead, 1)
    table.run(budget.reserve, dead, [Reservation(item, 500, 0.5)], Budget(max_cost_usd=9.0))
    table.take_over(dead)
    assert table.query("select calls, cost_usd from minutes") == [(0, 0.5)]
    table.exchange(dead, [done(item)])
    assert table.query("select calls, cost_usd from minutes") == [(1, 0.625)]
    assert table.one("select cost_usd from totals") == 0.625
    assert kept(table) == recounted(table)


def test_a_row_counts_each_time_it_ends_but_not_when_it_is_parsed_again(table: Table) -> None:
    table.enqueue("a", "b")
    worker = table.join()
    one, two = table.claim(worker, 2)
    no_json = Outcome(two, (answered("7"),), Fail(Reason.PARSE, "no JSON"))
    table.exchange(worker, [done(one), no_json])
    ended = repair.ended_item(table.transaction, 1)
    assert ended is not None
    table.run(repair.reopen, [ended], None, table.now)
    (again,) = table.claim(worker, 1)
    table.exchange(worker, [done(again)])
    (was,) = repair.answer_page(table.transaction, 1, AnswerChoice(False, False), 0, 9)
    number = table.run(intake.parser_number, ParserVersion("json"), table.now)
    table.run(repair.write_reparsed, [Reparsed(was, Done("7"))], number, table.now)
    assert table.states() == {1: "done", 2: "done"}
    assert table.query("select done, failed, calls from minutes") == [(2, 1, 3)]
    assert kept(table) == recounted(table)


def test_an_answer_that_was_kept_counts_once_and_its_row_when_it_ends(table: Table) -> None:
    table.enqueue("a")
    worker = table.join()
    (item,) = table.claim(worker, 1)
    kept_seq = table.finish(worker, item, KeepAnswer(), answered()).attempt_seqs[0]
    assert table.query("select done, calls from minutes") == [(0, 1)]
    table.now += 60_000
    parsed = replace(item, answer_seq=kept_seq, answer_text="an answer")
    table.exchange(worker, [Outcome(parsed, (), Done("[1]"))])
    by_minute = table.query("select minute, done, calls from minutes order by 1")
    assert by_minute == [(MINUTE, 0, 1), (MINUTE + 1, 1, 0)]
    assert kept(table) == recounted(table)


def test_what_was_never_sent_makes_no_minute(table: Table) -> None:
    table.enqueue("a")
    worker = table.join()
    (item,) = table.claim(worker, 1)
    table.exchange(worker, [Outcome(item, (), Release())])
    assert table.query("select * from minutes") == []


def test_two_workers_add_up_and_so_does_what_they_leave(table: Table) -> None:
    table.enqueue(*"abcd")
    first, second = table.join(), table.join()
    (one, two), (three, four) = table.claim(first, 2), table.claim(second, 2)
    table.exchange(first, [done(one)])
    table.exchange(second, [done(three, latency_ms=800)])
    table.exchange(first, [done(two)])
    table.exchange(second, [Outcome(four, (broken(),), Fail(Reason.SERVER, "no"))])
    both = kept(table)
    assert both == recounted(table)
    assert both[1, MINUTE]["latencies"] == {"68": 2, "70": 1}
    assert table.query("select slowest, slowest_ms from minutes") == [(2, 800)]
    table.leave(first)
    assert kept(table) == both
    table.take_over(second)
    assert kept(table) == both
    if not isinstance(table.engine, SqliteEngine):
        assert table.query("select worker_id from minutes_by_worker") == [(0,)]


def test_a_deleted_experiment_takes_its_minutes_along_and_a_renamed_one_keeps_them(
    table: Table,
) -> None:
    table.enqueue("a", experiment="e")
    table.enqueue("b", experiment="f")
    worker = table.join()
    table.exchange(worker, [done(item) for item in table.claim(worker, 2)])
    table.run(admin.rename_experiment, 1, "g")
    assert [experiment_id for experiment_id, _ in kept(table)] == [1, 2]
    table.delete(1)
    assert [experiment_id for experiment_id, _ in kept(table)] == [2]


def test_an_answer_with_nul_or_none_has_its_length(table: Table) -> None:
    table.enqueue(*"abc")
    worker = table.join()
    one, two, three = table.claim(worker, 3)
    vector = replace(answered(""), vector="[0.5]")
    table.exchange(
        worker,
        [done(one, "a\0" + "b" * 98), done(two, "中文" * 50), Outcome(three, (vector,), Done())],
    )
    (row,) = kept(table).values()
    assert row["lengths"] == {"48": 2}
    assert table.problems() == []


def test_buckets_are_the_same_wherever_they_are_counted(table: Table) -> None:
    bounds = {math.ceil(1.1**n) + one for n in range(150) for one in (-1, 0, 1)}
    numbers = sorted({*range(2_000), *bounds})
    assert all(start_of_bucket(bucket_of(n)) <= n < start_of_bucket(bucket_of(n) + 1)
               for n in numbers if n)  # fmt: skip
    if not isinstance(table.engine, SqliteEngine):
        there = table.query("select bucket(n) from unnest(numbers(?)) n", json.dumps(numbers))
        assert [bucket for (bucket,) in there] == [bucket_of(n) for n in numbers]


def test_percentiles_are_right_to_one_twentieth() -> None:
    latencies = [37 * n % 9_973 + 20 for n in range(5_000)]
    found = percentiles(Counter(map(bucket_of, latencies)), [0.5, 0.95, 0.99])
    exact = [sorted(latencies)[int(share * 5_000) - 1] for share in (0.5, 0.95, 0.99)]
    assert found == pytest.approx(exact, rel=0.05)
    assert percentiles({}, [0.5, 0.99]) == [None, None]
    assert percentiles({0: 1}, [0.5, 0.99, 1.0]) == [1.05] * 3


# As plots have them


def fill(table: Table, experiment_id: int, minutes: range, calls: int = 3) -> None:
    """Rows as workers write them, without the calls; not for `verify`."""
    for n in minutes:
        table.query(
            f"insert into {rows_in(table)} (experiment_id, minute, done, calls, cost_usd,"
            " latencies, lengths, reasons, slowest, slowest_ms)"
            f" values ({experiment_id}, {n}, {calls}, {calls}, 0.5,"
            f" '{{\"{n % 7}\":{calls}}}', '{{\"40\":{calls}}}', '{{\"server\":1}}', {n}, {n % 50})"
        )

    count_calls(table)


def rows_in(table: Table, name: str = "minutes") -> str:
    return name if isinstance(table.engine, SqliteEngine) else f"{name}_by_worker"


def change(table: Table, how: str) -> None:
    table.query(f"update {rows_in(table)} {how}")


def count_calls(table: Table) -> None:
    table.query(f"delete from {rows_in(table, 'totals')}")
    table.query(
        f"insert into {rows_in(table, 'totals')} (experiment_id, calls)"
        " select experiment_id, sum(calls) from minutes group by experiment_id"
    )


def forget(table: Table) -> None:
    table.query(f"delete from {rows_in(table)}")
    table.query(f"delete from {rows_in(table, 'totals')}")


def is_whole(series: Series, minutes: int, calls: int = 3) -> bool:
    lengths, latencies = Counter[int](), 0.0
    for point in series.points:
        lengths.update(point.lengths)
        latencies += sum(point.latencies.values())
    return (
        sum(point.calls for point in series.points) == calls * minutes
        and lengths == {40: calls * minutes}
        and latencies == calls * minutes
        and sum(point.reasons.get("server", 0) for point in series.points) == minutes
        and sum(point.cost_usd for point in series.points) == minutes / 2
    )


async def test_a_series_has_its_points_without_gaps_and_at_most_600(
    table: Table, database: Any
) -> None:
    fill(table, 1, range(1_000, 1_010))
    fill(table, 1, range(3_000, 3_400))
    fill(table, 2, range(1_000, 1_001))
    async with open_store(database) as store:
        whole = await store.minutes.series([1])
        part = await store.minutes.series([1], 1_005, 3_003)
        both = await store.minutes.series([1, 2], 1_000, 1_004)
        none = await store.minutes.series([3])
        later = await store.minutes.series([1], 9_000)
    forget(table)
    assert (whole.every, whole.before.calls, whole.sampled_until) == (5, 0, 0)
    assert [point.minute for point in whole.points] == [*range(1_000, 3_400, 5)]
    assert is_whole(whole, 410)
    assert whole.points[1].slowest == 1_009
    assert (part.every, part.points[0].minute, part.before.cost_usd) == (5, 1_005, 2.5)
    assert is_whole(part, 5 + 5)
    assert (both.every, len(both.points), both.points[0].calls) == (1, 5, 6)
    assert (none.points, later.points) == ([], [])


async def test_a_series_has_what_came_since_it_was_last_asked_for(
    table: Table, database: Any
) -> None:
    fill(table, 1, range(10_000, 10_100))
    async with open_store(database) as store:
        assert is_whole(await store.minutes.series([1]), 100)
        fill(table, 1, range(10_100, 10_103))
        assert is_whole(await store.minutes.series([1]), 103)
        fill(table, 1, range(9_990, 9_992))  # by a clock that was set back
        assert is_whole(await store.minutes.series([1]), 105)
        change(table, "set calls = 4, latencies = '{\"9\":4}' where minute = 10001")
        (point,) = (await store.minutes.series([1], 10_001, 10_001)).points
        assert point.latencies == {9: 4}
        whole = await store.minutes.series([1])
        assert whole.points[11].latencies == {9: 4}
    forget(table)


async def test_only_the_last_points_are_read_again_while_none_is_missed(
    table: Table, database: Any
) -> None:
    fill(table, 1, range(10_000, 10_100))
    async with open_store(database) as store:
        await store.minutes.series([1])
        change(table, "set cost_usd = 9 where minute = 10050")  # as nobody does
        assert (await store.minutes.series([1])).points[50].cost_usd == 0.5
        change(table, "set calls = 5 where minute = 10099")
        count_calls(table)
        found = await store.minutes.series([1])
        assert (found.points[50].cost_usd, found.points[99].calls) == (0.5, 5)
    forget(table)


async def test_a_series_of_many_minutes_is_read_in_parts_the_newest_first(
    table: Table, database: Any
) -> None:
    fill(table, 1, range(1_000_000, 1_000_000 + 3 * 1440, 10))
    with read_store(database) as store:
        parts = [await store.minutes.series([1], budget_s=0)]
        while not parts[-1].is_whole:
            parts.append(await store.minutes.series([1], budget_s=0))
        again = await store.minutes.series([1], budget_s=0)
    forget(table)
    first, *_, last = parts
    assert len(parts) == 3
    assert first.calls == last.calls  # what has no buckets is there at once
    assert (first.points[0].latencies, first.points[-1].latencies) == ({}, {6: 3})
    assert is_whole(last, 3 * 144)
    assert again == last


async def test_a_series_goes_on_until_now_where_nothing_was_done(
    table: Table, database: Any
) -> None:
    fill(table, 1, range(10_000, 10_010))
    with read_store(database) as store:
        series = await store.minutes.series([1], last=10_019)
        fill(table, 1, range(10_010, 10_012))
        later = await store.minutes.series([1], last=10_020)
    forget(table)
    assert ([point.minute for point in series.points], is_whole(series, 10)) == (
        [*range(10_000, 10_020)], True,
    )  # fmt: skip
    assert (later.points[-1].minute, is_whole(later, 12)) == (10_020, True)


@pytest.mark.quick("sqlite")
async def test_the_memory_of_series_is_bounded_and_many_months_fit(
    table: Table, database: Any
) -> None:
    fill(table, 1, range(1_000_000, 2_000_000, 999))
    with read_store(database) as store:
        for begin in range(1_000_000, 1_900_000, 100_000):
            assert len((await store.minutes.series([1], begin)).points) <= 600
        whole = await store.minutes.series([1])
        assert len(store.minutes._points) <= 3_000
    forget(table)
    assert len(whole.points) <= 600
    assert is_whole(whole, len(range(1_000_000, 2_000_000, 999)))
