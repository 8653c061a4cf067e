"""What batchgen says itself, on the Chinese page."""

import ast
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import batchgen
from batchgen.cli.hints import HINTS
from batchgen.display.commands import Commands
from batchgen.display.held import waits_for
from batchgen.display.status import GONE, SENDER_GONE, outdated_line, unknown_line
from batchgen.errors import Remedy
from batchgen.items import Reason
from batchgen.jobs.failures import remedies
from batchgen.jobs.present_parser import Outdated
from batchgen.jobs.server_status import ServerStatus
from batchgen.jobs.unknown_cost import UnknownCost
from batchgen.web.said import Sayings, read_table
from batchgen.worker.report import BudgetWait, Held, HeldBy, WorkerReport
from tests.kits.looks import worker

SOURCES = Path(batchgen.__file__).parent
TABLE = read_table("zh")
CHINESE = Sayings(TABLE)
NOW = 1_800_000_000_000
SOON = NOW + 200_000
COMMANDS = Commands("E", "W", "R", "F", "S", "G", "T", "B", "I")


def texts() -> Iterator[str]:
    """All that the sources have."""
    for file in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                yield "".join(
                    str(part.value) if isinstance(part, ast.Constant) else "{}"
                    for part in node.values
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_each_sentence_is_one_of_ours() -> None:
    """Its words are in the sources, to the letter: clause by clause, as some are put together."""
    said = "\n".join(texts())
    for key, other in TABLE.sentences.items():
        for words in re.split(r"\{\w+\}|[`:;,.()]", key):
            assert words.strip() in said, (key, words)
        names = re.findall(r"\{(\w+)\}", key)
        assert len(set(names)) == len(names), key
        of_both = {one for one in names if one[-1] != "_"}
        assert set(re.findall(r"\{(\w+)\}", other)) == of_both, key


def test_each_reason_has_its_words() -> None:
    assert set(TABLE.reasons) == set(Reason)


HELD = [
    Held(HeldBy.ORDER), Held(HeldBy.HALT), Held(HeldBy.OUTAGE), Held(HeldBy.OUTAGE, SOON),
    Held(HeldBy.PAUSE, SOON), Held(HeldBy.ANNOUNCED, SOON), Held(HeldBy.FIRST),
    Held(HeldBy.BUDGET), Held(HeldBy.BUDGET, budget=BudgetWait(100, 0.5, 40, 0.2)),
    Held(HeldBy.BUDGET, budget=BudgetWait(100, 0, 0, 0)),
    *(Held(HeldBy.LIMIT, per_minute=rpm, limit=limit)
      for rpm in (0.5, 60) for limit in ("rpm", "tpm", "learned", None)),
    Held(HeldBy.LIMIT, per_minute=60, limit="sought"),
    *(Held(HeldBy.SLOTS, slots=slots, share=share, refused_with=status)
      for slots in (0, 1, 8) for share in (None, 0.2) for status in (None, "503")),
    Held(HeldBy.REFUSALS, share=0.1, refused_with="429"), Held(HeldBy.ITEMS, SOON),
    Held(HeldBy.MORE),
]  # fmt: skip


def has_english(text: str) -> bool:
    """Two words in a row, or one that is no name of a thing. Names and times stay."""
    known = "token|tokens|max_tokens|JSON|min|s|h|HTTP"
    return any(
        not re.fullmatch(known, word) for word in re.findall(r"[A-Za-z_]{2,}|\b[a-z]\b", text)
    )


def test_whatever_holds_a_worker_is_said_in_chinese() -> None:
    assert {one.by for one in HELD} == set(HeldBy)
    for held in HELD:
        for trouble in ("", "503 xx"):
            words = waits_for(ServerStatus("s", held_by=held, trouble=trouble), NOW)
            assert words
            assert not has_english(CHINESE.said(words).replace("503 xx", "")), words
    for ordered in (True, False):  # and not heeded yet
        words = waits_for(worker(paused=ordered, report=WorkerReport(paused=not ordered)), NOW)
        assert words
        assert not has_english(CHINESE.said(words)), words
    assert not has_english(CHINESE.said(GONE))
    assert not has_english(CHINESE.said(SENDER_GONE))


def test_what_helps_is_said_in_chinese() -> None:
    """The commands stay as they are typed."""
    found: set[Remedy] = remedies()
    for remedy in found:
        words = HINTS[remedy].format(
            batchgen="batchgen", which=" --reason parse", scope="", item="x", setting="a=1"
        )  # fmt: skip
        chinese = CHINESE.said(words)
        assert re.findall("`.*?`", chinese) == re.findall("`.*?`", words)
        options = r"--recipe replace|\beach\b|\bnull\b"
        assert not has_english(re.sub(f"`.*?`|{options}", "", chinese)), words


def test_notes_are_said_in_chinese() -> None:
    notes = [
        unknown_line(UnknownCost(*of))
        for of in ((3, 3, 10, 0.5), (3, 2, 10, 0.5), (3, 3, 10, None), (3, 2, 10, None),
                   (3, 0, None, None))
    ]  # fmt: skip
    notes += [
        outdated_line(Outdated("e", "raw", n, problem=problem, runs_code=runs_code), COMMANDS)
        for n in (1, 2000) for problem in (None, "zz") for runs_code in (True, False)
    ]  # fmt: skip
    for note in notes:
        names = r"\be\b|\bW\b|\bR\b|\braw\b|\bzz\b|model\.price"
        assert not has_english(re.sub(names, "", CHINESE.said(note))), note


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no JSON in the answer", "回答中没有 JSON"),
        ("200, but the answer is empty", "200，但回答为空"),
        ("500 The server had an error", "500 The server had an error"),  # the server's own
        ("holding to 2 calls at once: 45 % of the newest calls are refused (429)",
         "保持同时 2 个调用：最近的调用中有 45 % 被拒绝（429）"),
        ("paused for 8 s: no JSON in the answer", "暂停 8 秒：回答中没有 JSON"),
        ("where: column 3: `x`: nothing can be called here", "条件第 3 列：`x`：此处不能调用函数"),
    ],
)  # fmt: skip
def test_a_sentence_is_known_by_its_words(text: str, shown: str) -> None:
    assert CHINESE.said(text) == shown
    assert Sayings(read_table("en")).said(text) == text


def test_a_value_is_never_taken_for_a_place_of_another() -> None:
    sayings = Sayings(TABLE)
    assert sayings.said("paused for {trouble}: {time}") == "暂停 {trouble}：{time}"
    assert sayings.said("x" * 5000) == "x" * 5000


def test_a_sentence_is_known_however_long_it_is() -> None:
    server = "as the server said, " * 5000
    assert CHINESE.said(f"paused for 8 s: {server}") == f"暂停 8 秒：{server}"
    assert CHINESE.said(f"paused for {server}") == f"暂停 {server}"


def test_no_text_takes_long() -> None:
    """Made of the words between the values of sentences, as often as they go in."""
    began_s = time.process_time()
    for key in TABLE.sentences:
        words = [one for one in re.split(r"\{\w+\}", key) if one]
        for text in (one * (20_000 // len(one)) for one in ("x".join(words), *words)):
            CHINESE.said(f"{words[0]}{text}")
    assert time.process_time() - began_s < 30
