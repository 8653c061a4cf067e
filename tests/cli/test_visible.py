"""What comes from outside cannot steer a terminal: not from an answer, a server's error, a pool, a
template, or the name of a file."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from batchgen.display.visible import visible, visible_json, visible_line
from batchgen.simulate import Behaviour, Simulator
from tests.kits.project import Project
from tests.kits.typist import Ended, Typist

# Title, clear, clipboard, C1, bidi, delete, bell, back, overwrite the line.
HOSTILE = (
    "\x1b]0;title\x07 \x1b[2J \x1b]52;c;ZXZpbA==\x07 \x9b2J \u202egnp.exe \u2066x \x7f\x08 ok\rno"
)
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def steering(seen: Iterable[Ended]) -> list[str]:
    """What of these texts would steer a terminal."""
    texts = [text for ended in seen for text in (ended.out, ended.err)]
    return [text for text in texts if STEERING.search(text)]


@pytest.fixture
def terminal_of(project: Project) -> Typist:
    return Typist(project.path, {"TERM": "dumb"}, terminal="utf-8")


@pytest.fixture
async def hostile(project: Project, terminal_of: Typist, simulator: Simulator) -> Project:
    """A project of which everything that comes from outside is hostile, and worked on."""
    project.config("parser: tag:label\nwork: {max_attempts: 1}\n")
    good = f"<label>{HOSTILE}</label>"
    simulator.script("Say", Behaviour.ok(good), Behaviour.ok(HOSTILE), Behaviour.ok(good))
    simulator.script("Say error", Behaviour.error(400, message=HOSTILE))
    project.pool(
        [
            {"word": HOSTILE, "id": f"a {HOSTILE}", "metadata": {HOSTILE: HOSTILE}},
            {"word": f"2{HOSTILE}"},
            {"word": "error"},
        ]
    )
    assert (await terminal_of("-v", "run", "pool.jsonl", "-c", "1")).code == 3
    return project


async def test_nothing_that_is_shown_on_a_terminal_steers_it(
    hostile: Project, terminal_of: Typist
) -> None:
    seen = [
        await terminal_of(*command)
        for command in [
            ["-v", "status"],
            ["failures"],
            ["failures", "--json"],
            *(["show", str(number)] for number in (1, 2, 3)),
            ["show", "1", "--json"],
            ["export", "-o", "-"],
            ["export", "-o", "-", "--format", "csv"],
            ["export", "-o", "-", "--failed"],
            ["export", "--follow", "-o", "-"],
            ["reparse", "--all", "--dry-run", "--parser", "json"],
            ["enqueue", "pool.jsonl", "--dry-run"],
            ["enqueue", f"no{HOSTILE}file.jsonl"],
            ["show", HOSTILE],
            ["--config", HOSTILE, "status"],
            ["work", f"--{HOSTILE}"],
            ["experiments"],
            ["export", "-o", "x.csv", "--columns", HOSTILE],
        ]
    ]
    assert steering(seen) == []
    assert not any("Traceback" in ended.err for ended in seen)
    assert "<U+001B>]52;c;ZXZpbA==<U+0007>" in seen[3].out


async def test_json_on_a_terminal_has_the_same_values(
    hostile: Project, terminal_of: Typist, batchgen: Typist
) -> None:
    for command in (["show", "1", "--json"], ["export", "-o", "-"]):
        on_terminal, in_file = await terminal_of(*command), await batchgen(*command)
        assert list(map(json.loads, on_terminal.out.splitlines())) == list(
            map(json.loads, in_file.out.split("\n")[:-1])
        )
        assert on_terminal.out != in_file.out


async def test_an_export_to_a_pipe_is_as_it_is(hostile: Project, batchgen: Typist) -> None:
    exported = await batchgen("export", "-o", "-")
    assert json.loads(exported.out.split("\n")[0])["parsed"] == [HOSTILE]
    assert "\x9b" in exported.out


async def test_bad_lines_of_a_pool_and_of_a_template_do_not_steer_it(
    project: Project, terminal_of: Typist
) -> None:
    project.write("pool.jsonl", json.dumps({f"w{HOSTILE}": 1}) + f"\n{{{HOSTILE}\n")
    seen = [
        await terminal_of("enqueue", "pool.jsonl"),
        await terminal_of("enqueue", "pool.jsonl", "--skip-invalid", "bad.jsonl"),
        await terminal_of("enqueue", "pool.jsonl", "--dry-run"),
    ]
    assert [ended.code for ended in seen] == [2, 0, 2]
    assert steering(seen) == []


ANSWER = "5 € for 人工智能 🎉"


@pytest.mark.quick("ascii")
@pytest.mark.parametrize("encoding", ["latin-1", "gbk", "ascii"])
async def test_a_terminal_that_is_not_utf8_gets_replaced_characters(
    project: Project, simulator: Simulator, encoding: str
) -> None:
    typist = Typist(project.path, {"TERM": "xterm"}, terminal=encoding)
    simulator.script(
        "Say", Behaviour.ok("5 € for 人工智能 🎉"), Behaviour.error(400, message="не 🎉")
    )
    project.pool([{"word": "ü人"}, {"word": "error"}])
    assert (await typist("-v", "run", "pool.jsonl", "-c", "1")).code == 3
    for command in (
        ["show", "1"], ["show", "2"], ["failures"], ["export", "-o", "-"], ["show", "1", "--json"],
        ["status"], ["enqueue", "pool.jsonl", "--dry-run"], ["show", "🎉"],
    ):  # fmt: skip
        ended = await typist(*command)
        assert (ended.code == 0) == (command[-1] != "🎉"), ended.err
        assert "Traceback" not in ended.err
    assert (await typist("show", "1")).out.count("?") > 0
    shown = await typist("show", "1", "--json")
    assert shown.json["attempts"][0]["response"] == ANSWER


async def test_a_binary_export_does_not_go_to_a_terminal(
    hostile: Project, terminal_of: Typist
) -> None:
    refused = await terminal_of("export", "--format", "parquet", "-o", "-")
    assert refused.code == 2
    assert refused.err == "error: format parquet: no terminal can show it. Name one with -o.\n"


def test_what_scripts_and_emoji_need_stays() -> None:
    text = "می\u200cخواهم 👩\u200d👩\u200d👧 naïve \u00ad\ttab\nline 人\u3000工"
    assert visible(text) == text
    assert visible("a\r\nb") == "a\nb"
    assert visible("half \ud83d") == "half <U+D83D>"
    assert visible_line("a\nb\tc\u2028d") == "a b c<U+2028>d"
    assert (
        json.loads(visible_json(json.dumps("\x9b\U000e0001", ensure_ascii=False)))
        == "\x9b\U000e0001"
    )


def test_only_one_module_prints() -> None:
    """Everything else goes through it, where texts from outside are made visible."""
    root = Path(__file__).parents[2] / "batchgen"
    printing = re.compile(r"click\.(secho|echo|confirm|prompt)\(|std(out|err)\.write\(")
    found = {
        str(file.relative_to(root))
        for file in (root / "cli").rglob("*.py")
        if printing.search(file.read_text(encoding="utf-8"))
    }
    assert found == {"cli/terminal.py"}
