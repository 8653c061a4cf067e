"""The thought that stands before an answer, and where it ends.

Models that think send their thought beside the answer or, where the server does not take it out,
in front of it. It quotes drafts that look like answers, so what reads an answer begins after it.

A thought is told by the marks round it. Most are an element whose name says so (`<think>`,
`<seed:think>`, `[THINK]`, `◁think▷`), some are words or tokens of one family of models. A server
may have put the opening mark into the prompt: then only the closing one is in the text.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from batchgen.errors import ParseError
from batchgen.parsers.json_search import is_within_json

_NAME = r"(?:[\w-]+[:_-])?(?:ant)?(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflection|scratchpad)"
# The vendors' own marks, an opening and a closing one each.
_PAIRS = (
    (r"<\|START_THINKING\|>", r"<\|END_THINKING\|>(?:\s*<\|START_RESPONSE\|>)?"),
    (r"<\|begin_of_thought\|>", r"<\|end_of_thought\|>(?:\s*<\|begin_of_solution\|>)?"),
    (r"<\|inner_prefix\|>", r"<\|inner_suffix\|>"),
    (r"<\|think\|>", r"<\|/think\|>|<\|end\|>(?:\s*<\|begin\|>\s*assistant\s*<\|content\|>)?"),
    (r"<\|channel>\s*thought\b", r"<channel\|>"),
    (r"<details\s[^<>]*type=.?reasoning[^<>]*>", r"</details>"),
    (r"Here(?:'s| is) my thought process:", r"Here(?:'s| is) my response:"),
    (r"Here are my reasoning steps:", r"\[BEGIN FINAL RESPONSE\]"),
    (r"Thinking\.\.\.\n", r"\n\.\.\.done thinking\.\n"),
)  # fmt: skip
# gpt-oss names a channel before each message; where its tokens were dropped, only words are left.
_CHANNELS = re.compile(
    r"\s*(?:<\|start\|>\s*assistant\s*)?(?:<\|channel\|>|(?:analysis|commentary)\s*<\|message\|>)"
)
_FINAL = re.compile(r"<\|channel\|>\s*final\b[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>")
_FINAL_END = re.compile(r"<\|(?:return|end|call)\|>")
_BARE_CHANNEL = re.compile(r"\s*analysis(?=[\w\"'{])")
_BARE_FINAL = re.compile(r"assistant\s*final")

_ELEMENT = re.compile(
    rf"<(/?)({_NAME})(?:\s[^<>]*)?>|\[(/?)(think(?:ing)?)\]|◁(/?)({_NAME})▷", re.IGNORECASE
)
_OTHER_OPENINGS = tuple(
    (re.compile(opening, re.IGNORECASE), re.compile(closing, re.IGNORECASE))
    for opening, closing in _PAIRS
)
# Looked for first, as it is rare. One after another: a pattern of all takes ten times as long.
_SIGNS = ("think", "though", "reason", "reflection", "scratchpad", "<|", "assistant")
# Before a thought there may be tokens that the server left in, or a word or two.
_TOKENS = re.compile(r"(?:\s+|</?s>|<\|(?:im_start|assistant|start_header_id)\|>(?:assistant)?)*")
_WORDS = re.compile(r"[^<>{}\[\]◁`\"]{0,200}")


_MAX_THOUGHTS = 20  # one after another; each costs a pass of the text


class _Mark(NamedTuple):
    start: int
    end: int
    closing: bool
    name: str


def answer_after_thought(text: str, wanted: str = "") -> str:
    """What follows the thoughts that an answer begins with; the whole text if there are none. A
    thought whose name is a word of `wanted` is what the parser itself asks for, so it stays.

    Raises ParseError for a thought without an end, or with nothing after it: then there is no
    answer.
    """
    small = text.lower()
    if not any(map(small.__contains__, _SIGNS)):
        return text
    rest, kept = text, frozenset(re.findall(r"[\w:-]+", wanted.lower()))
    for _ in range(_MAX_THOUGHTS):
        after = _after_thought(rest, kept)
        if after is None:
            return rest
        if not after.strip():
            raise ParseError("the answer is a thought, and nothing follows it")
        rest = after
    return rest


def _after_thought(text: str, kept: frozenset[str]) -> str | None:
    """What follows the thought at the beginning; None if there is none."""
    if (final := _final_channel(text)) is not None:
        return final
    for opening, closing in _OTHER_OPENINGS:
        if opened := opening.match(text, _after_tokens(text)):
            if closed := closing.search(text, opened.end()):
                return text[closed.end() :]
            if opened[0].startswith("<"):  # words may be the answer's own
                raise _endless(opened[0])
    marks = [mark for mark in _marks(text) if mark.name not in kept]
    return _after_elements(text, marks) if marks else None


def _final_channel(text: str) -> str | None:
    """The message for the user among those of gpt-oss; None if the text is not of that form."""
    if _CHANNELS.match(text):
        finals = list(_FINAL.finditer(text))
        if not finals:
            raise _endless("<|channel|>")
        return _FINAL_END.split(text[finals[-1].end() :], maxsplit=1)[0]
    if _BARE_CHANNEL.match(text) and (bare := list(_BARE_FINAL.finditer(text))):
        return text[bare[-1].end() :]
    return None


def _after_elements(text: str, marks: list[_Mark]) -> str | None:
    first = marks[0]
    if first.closing:
        return None if is_within_json(text, first.start) else text[first.end :]
    leads = first.start == _after_tokens(text)
    if not leads and first.start != _after_words(text):
        return _after_stray(text, marks)
    same = [mark for mark in marks if mark.name == first.name]
    end = _matching(same)
    if end is None and leads:
        raise _endless(text[first.start : first.end])
    return None if end is None else text[end:]


def _matching(marks: list[_Mark]) -> int | None:
    """Where the element ends that the first mark opens. A thought may speak of its own marks: if
    they do not match, the last closing one ends it."""
    depth, last = 0, None
    for mark in marks:
        depth += -1 if mark.closing else 1
        if mark.closing:
            last = mark.end
        if depth == 0:
            return last
    return last


def _after_stray(text: str, marks: list[_Mark]) -> str | None:
    """After a closing mark that no opening one belongs to, which ends a thought too."""
    depth = 0
    for mark in marks:
        depth += -1 if mark.closing else 1
        if depth < 0:
            return None if is_within_json(text, mark.start) else text[mark.end :]
    return None


def _marks(text: str) -> Iterator[_Mark]:
    for match in _ELEMENT.finditer(text):
        slash, name = next((match[n], match[n + 1]) for n in (1, 3, 5) if match[n + 1] is not None)
        if not match[0].endswith("/>"):
            yield _Mark(match.start(), match.end(), slash == "/", name.lower())


def _after_tokens(text: str) -> int:
    match = _TOKENS.match(text)
    return match.end() if match else 0


def _after_words(text: str) -> int:
    match = _WORDS.match(text)
    return match.end() if match else 0


def _endless(mark: str) -> ParseError:
    return ParseError(f"the answer is a thought without an end ({mark.strip()} is not closed)")
