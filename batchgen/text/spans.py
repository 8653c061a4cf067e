"""Texts that stand in another one, as their places: most of what a parser finds is a piece of the
answer, and is stored once."""

from msgspec import MsgspecError
from msgspec.json import Decoder, encode

_texts_in = Decoder(list[str]).decode


def spans_of(answer: str, parsed_json: str) -> str | None:
    """Where the texts of a list stand in the answer, as JSON: for each from which character, from 1
    on, and how many they are, as SQL's substr has it. None: it is no such list, or that would not
    be shorter."""
    if "\0" in answer:  # SQL takes it for the end
        return None
    try:
        texts = _texts_in(parsed_json)
    except MsgspecError:
        return None
    spans, end = [], 0
    for text in texts:
        begin = answer.find(text, end)
        if begin < 0:
            return None
        end = begin + len(text)
        spans.append([begin + 1, len(text)])
    spans_json = encode(spans).decode()
    return spans_json if len(spans_json) < len(parsed_json) else None
