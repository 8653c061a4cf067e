"""Embeddings: a text becomes a vector, and there is no text in the answer. Pure."""

import base64
import binascii
import math
import struct
from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from batchgen.endpoints.endpoint import Body, Endpoint, ErrorInside, Message, text_alone
from batchgen.endpoints.unusable import nothing_in, unusable, without_text
from batchgen.endpoints.usage import usage_of
from batchgen.items import Answer, Failure, Reply
from batchgen.parameters import ENDPOINT_PATHS, NOT_OF_EMBEDDINGS
from batchgen.text.foreign_json import dump_whole, shorten, text_or_none

_FLOAT_DIGITS = 9  # as many tell every 32-bit float from its neighbours


def _prompt(messages: Sequence[Message]) -> Body:
    return {"input": text_alone(messages)}


def _read(reply: Reply, body: Body) -> Answer | Failure | ErrorInside:
    data = _data(body)
    if data is None:
        return nothing_in(reply, body, "data")
    vectors = [_vector(one.get("embedding")) for one in data]
    for one, vector in zip(data, vectors, strict=True):
        if vector is None:
            shown = shorten(str(one.get("embedding")))[:60]
            return unusable(f"{reply.status}, but the embedding is no vector: {shown}", None, body)
        one["embedding"] = None
    rest = without_text(body)
    if rest is None:
        return unusable(f"{reply.status}, but nested too deep", None, body)
    value = vectors[0] if len(vectors) == 1 else vectors
    model = text_or_none(body.get("model"))
    usage = replace(usage_of(body), completion_tokens=0)  # there are none, so none is unknown
    return Answer("", rest, None, model, usage, vector=dump_whole(value))


def _data(body: Body) -> list[Body] | None:
    """The embeddings in the order of the inputs. There is one, but for a request line with several
    inputs."""
    data = body.get("data")
    if not isinstance(data, list) or not data or not all(isinstance(one, dict) for one in data):
        return None
    places = [one.get("index") for one in data]
    if sorted(map(str, places)) == sorted(map(str, range(len(data)))):
        data.sort(key=lambda one: int(one["index"]))
    return data


def _vector(value: Any) -> list[Any] | None:
    """The vector as numbers; None: it is none. A server writes it as a list or, if the request has
    `encoding_format: base64`, as the bytes of 32-bit floats."""
    if isinstance(value, str):
        value = _floats(value)
    if not isinstance(value, list) or not value:
        return None
    return value if all(map(_is_number, value)) else None


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _floats(text: str) -> list[float] | None:
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    if not content or len(content) % 4:
        return None
    found = struct.unpack(f"<{len(content) // 4}f", content)
    return [float(f"{one:.{_FLOAT_DIGITS}g}") for one in found]


def _whole(body: Body, _text: str, vector: Any) -> Body:
    data = body["data"]
    for one, found in zip(data, [vector] if len(data) == 1 else vector, strict=True):
        one["embedding"] = found
    return body


EMBEDDINGS = Endpoint(
    name="embeddings",
    path=ENDPOINT_PATHS["embeddings"],
    answer="an embedding",
    sign='"embedding"',
    prompt=_prompt,
    prompt_members=("input",),
    refused=NOT_OF_EMBEDDINGS,
    read=_read,
    whole=_whole,
    has_seed=False,
    has_text=False,
)
