"""The raw numbers as a page of markdown: medians of the rounds, and what went wrong in words."""

from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

_SPEED = (
    "| | items/s, whole run | items/s, while calling | calls at once, at most "
    "| CPU ms/item, whole run | CPU ms/item, less the start | CPU s to start | peak memory MB "
    "| start to first call s |"
)
_REFUSED = (
    "| | items/s, whole run | of the same without refusals | calls refused | calls in all "
    "| results in hand | answers lost |"
)
_CRASH = (
    "| | answers paid for twice | calls in flight at the kill | calls sent again | goes on "
    "| restart took s | results in hand |"
)


def markdown(found: dict[str, Any]) -> str:
    return "\n".join(_page(found)) + "\n"


def _page(found: dict[str, Any]) -> Iterator[str]:
    settings, machine = found["settings"], found["machine"]
    load = machine["load_average_at_start"][0], machine["load_average_at_end"][0]
    yield "# batchgen beside its peers"
    yield ""
    latency_ms = settings["latency_s"] * 1000
    yield (
        f"{settings['items']:,} items, {settings['concurrency']} calls at once, an answer after "
        f"{latency_ms:.0f} ms, give or take {settings['spread']:.0%}; medians of "
        f"{settings['rounds']} rounds. {machine['cpus']} cores, Python {machine['python']}, "
        f"{machine['at'][:10]}. The machine is shared with other work (load average {load[0]:.1f} "
        f"at the start, {load[1]:.1f} at the end): the ratios count, and CPU more than time. How "
        "each is used: [README.md](README.md)."
    )
    compared = {name: peer for name, peer in found["peers"].items() if peer["rounds"]}
    yield from ["", "## Speed", "", _SPEED, _rule(_SPEED)]
    for name, peer in compared.items():
        yield _row(name, *_speed(peer["rounds"], settings["items"], None))
        if peer["part"]:
            yield _row(
                f"{name}: its `{peer['part']}` alone",
                *_speed(peer["rounds"], settings["items"], peer["part"]),
            )
    most = settings["concurrency"] / settings["latency_s"] if settings["latency_s"] else 0
    if most:
        yield from ["", f"With these settings no client can do more than {most:,.0f} items/s.", ""]
    share = settings["refuse"]
    yield from [f"## A 429 for {share:.0%} of the calls, without Retry-After", "", _REFUSED]
    yield _rule(_REFUSED)
    for name, peer in compared.items():
        yield _row(name, *_refused(peer["rounds"], settings["items"]))
    yield from ["", "Time is the median of the rounds; the other numbers are a round each.", ""]
    yield from ["## kill -9 half-way, and the same command again", "", _CRASH, _rule(_CRASH)]
    for name, peer in compared.items():
        yield _row(name, *_crash(peer["rounds"], settings["limit_s"]))
    yield from ["", "Each number is a round."]
    yield from ["", "## Versions and settings", ""]
    for name, peer in found["peers"].items():
        pinned = ", ".join(f"{package} {version}" for package, version in peer["versions"].items())
        if name.startswith("batchgen") and settings["batchgen"]:
            pinned += f" (revision {settings['batchgen']})"
        yield f"- **{name}** {pinned}: {peer['setting']}."
        if "not_compared" in peer:
            yield f"  **Not compared:** {peer['not_compared']}"
        for trouble in _troubles(peer["rounds"], settings["items"]):
            yield f"  **{trouble}**"


def _speed(rounds: list[dict[str, Any]], items: int, part: str | None) -> Iterator[str]:
    """`part`: of that one command alone."""

    def middle(value: Callable[[dict[str, Any]], float], job: str = "whole") -> float:
        return median(value(one[job]) for one in rounds)

    def wall_s(job: dict[str, Any]) -> float:
        return sum(float(ran["wall_s"]) for ran in _commands(job, part))

    def cpu_s(job: dict[str, Any]) -> float:
        return sum(float(ran["cpu_s"]) for ran in _commands(job, part))

    def peak_rss_mb(job: dict[str, Any]) -> float:
        return max(float(ran["peak_rss_mb"]) for ran in _commands(job, part))

    def calling_s(job: dict[str, Any]) -> float:
        return float(job["ledger"]["last_answer_ns"] - job["ledger"]["first_request_ns"]) / 1e9

    def start_s(job: dict[str, Any]) -> float:
        began_ns = _commands(job, part)[0]["began_ns"]
        return float(job["ledger"]["first_request_ns"] - began_ns) / 1e9

    cpu_start_s = middle(cpu_s, "one_item")
    yield f"{items / middle(wall_s):,.0f}"
    yield f"{items / middle(calling_s):,.0f}" if middle(calling_s) else "-"
    yield f"{middle(lambda job: job['ledger']['most_in_flight']):.0f}"
    yield f"{middle(cpu_s) / items * 1000:.2f}"
    yield f"{(middle(cpu_s) - cpu_start_s) / max(1, items - 1) * 1000:.2f}"
    yield f"{cpu_start_s:.2f}"
    yield f"{middle(peak_rss_mb):.0f}"
    yield f"{middle(start_s):.2f}"


def _refused(rounds: list[dict[str, Any]], items: int) -> Iterator[str]:
    def wall_s(job: str) -> float:
        times = (sum(float(ran["wall_s"]) for ran in one[job]["commands"]) for one in rounds)
        return median(times)

    def each(number: Callable[[dict[str, Any]], int | None]) -> str:
        told = (number(one["refused"]) for one in rounds)
        return " / ".join("?" if one is None else str(one) for one in told)

    def in_all(job: dict[str, Any]) -> int:
        ledger = job["ledger"]
        return int(ledger["answers"] + ledger["refused"] + ledger["cut_off"])

    def lost(job: dict[str, Any]) -> int | None:
        """Answered by the server, and not in the user's hands."""
        results = job["results"]
        return None if results is None else max(0, job["ledger"]["items_answered"] - results)

    yield f"{items / wall_s('refused'):,.0f}"
    yield f"{wall_s('whole') / wall_s('refused'):.2f}"
    yield each(lambda job: int(job["ledger"]["refused"]))
    yield each(in_all)
    yield each(lambda job: job["results"])
    yield each(lost)


def _commands(job: dict[str, Any], part: str | None) -> list[dict[str, Any]]:
    """The commands of a job, or that one of batchgen's."""
    return [ran for ran in job["commands"] if part is None or ran["command"].split()[1] == part]


def _crash(rounds: list[dict[str, Any]], limit_s: float) -> Iterator[str]:
    crashes = [one["crash"] for one in rounds]
    yield " / ".join(str(crash["ledger"]["answered_again"]) for crash in crashes)
    yield " / ".join(str(crash["at_kill"]["cut_off"]) for crash in crashes)
    yield " / ".join(str(crash["ledger"]["asked_again"]) for crash in crashes)
    yield _goes_on(crashes, limit_s)
    yield f"{median(sum(ran['wall_s'] for ran in crash['commands']) for crash in crashes):.1f}"
    yield " / ".join(
        "?" if crash["results"] is None else str(crash["results"]) for crash in crashes
    )


def _goes_on(crashes: list[dict[str, Any]], limit_s: float) -> str:
    last = [crash["commands"][-1] for crash in crashes]
    repeated = median(crash["ledger"]["answered_again"] for crash in crashes)
    answered = median(crash["at_kill"]["answers"] for crash in crashes)
    verdict = "no, starts over" if repeated > 0.9 * answered else "yes"
    hung = sum(1 for ran in last if ran["timed_out"])
    failed = sum(1 for ran in last if ran["exit_code"] and not ran["timed_out"])
    if hung:
        verdict += f"; hung in {hung} of {len(last)} rounds, ended after {limit_s:.0f} s"
    if failed:
        verdict += f"; failed in {failed} of {len(last)} rounds"
    return verdict


def _troubles(rounds: list[dict[str, Any]], items: int) -> Iterator[str]:
    jobs = {"whole": "the whole job", "refused": "with refusals", "crash": "the restart"}
    for number, one in enumerate(rounds, start=1):
        for key, job in jobs.items():
            last, answered = one[key]["commands"][-1], one[key]["ledger"]["items_answered"]
            if not last["exit_code"] and answered == items:
                continue
            how = "did not end in time" if last["timed_out"] else f"exit {last['exit_code']}"
            output = " ".join(last["tail"].split())[-300:] or "nothing"
            yield (
                f"Round {number}, {job}: {how}; the server had answered {answered:,} of "
                f"{items:,} items. It printed: {output}"
            )


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _rule(heads: str) -> str:
    return "|---" + "|---:" * (heads.count("|") - 2) + "|"
