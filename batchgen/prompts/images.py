"""Local images in ready messages: a path, in place of an address, becomes a data URL when the
request is sent, and is never stored as one.

    {"type": "image_url", "image_url": {"url": "photos/cat.png"}}

Only a file that is a PNG, JPEG, GIF or WebP by its first bytes is read, so that no pool can make
batchgen send other files of the machine that it runs on.
"""

import asyncio
import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from batchgen.errors import InputError

_MAX_BYTES = 20 << 20  # as much as vendors take
_HEAD_BYTES = 12
_SHOWN_CHARS = 200
_KINDS = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "png"),
    (re.compile(rb"\xff\xd8\xff"), "jpeg"),
    (re.compile(rb"GIF8[79]a"), "gif"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "webp"),
)
_TYPES = ("image_url", "input_image")  # of chat completions, and of Responses
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")

_Messages = Sequence[Any]


def check_images(messages: _Messages, directory: Path) -> None:
    """Raises InputError for the first local image that is missing, too big, or not an image."""
    for place, part in _image_parts(messages):
        given = _local(part)
        if given is not None:
            try:
                _read(given, directory, _HEAD_BYTES)
            except InputError as exc:
                raise InputError(f"{place}: {exc}") from exc


async def with_images(messages: _Messages, directory: Path) -> tuple[list[Any], dict[str, str]]:
    """The messages as they are sent, and a mapping from each data URL to the path that it replaces.
    `messages` itself is not changed. Raises InputError as `check_images` does."""
    wanted = {given for _, part in _image_parts(messages) if (given := _local(part)) is not None}
    if not wanted:
        return list(messages), {}
    urls = {given: await asyncio.to_thread(_data_url, given, directory) for given in wanted}
    return [_sent(message, urls) for message in messages], {url: was for was, url in urls.items()}


def _image_parts(messages: _Messages) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, message in enumerate(messages):
        content = message.get("content") if isinstance(message, dict) else None
        for index, part in enumerate(content if isinstance(content, list) else ()):
            if isinstance(part, dict) and part.get("type") in _TYPES:
                yield f"messages[{number}].content[{index}]", part


def _local(part: Mapping[str, Any]) -> str | None:
    """The path in a part, as it was given; None when the part has no local image."""
    image = part.get("image_url")
    url = image.get("url") if isinstance(image, dict) else image
    if not isinstance(url, str):
        return None
    scheme = _SCHEME.match(url)
    return url if scheme is None or scheme[0].lower() == "file:" else None


def _sent(message: Any, urls: Mapping[str, str]) -> Any:
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, list):
        return message
    return {**message, "content": [_sent_part(part, urls) for part in content]}


def _sent_part(part: Any, urls: Mapping[str, str]) -> Any:
    given = _local(part) if isinstance(part, dict) and part.get("type") in _TYPES else None
    if given is None:
        return part
    image = part["image_url"]
    url = urls[given]
    return {**part, "image_url": {**image, "url": url} if isinstance(image, dict) else url}


def _data_url(given: str, directory: Path) -> str:
    kind, content = _read(given, directory, _MAX_BYTES + 1)
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _read(given: str, directory: Path, most_bytes: int) -> tuple[str, bytes]:
    """The kind of the image, and its first bytes, at most `most_bytes`."""
    path = _path(given, directory)
    try:
        if not path.is_file():  # reading a pipe might never end
            raise _unusable(path, "is not a file" if path.exists() else "no such file")
        with path.open("rb") as file:
            content = file.read(most_bytes)
            size = file.seek(0, 2)
    except OSError as exc:
        raise _unusable(path, f"cannot be read ({exc.strerror})") from exc
    kind = next((kind for begins, kind in _KINDS if begins.match(content)), None)
    if kind is None:
        raise _unusable(path, "is not a PNG, JPEG, GIF or WebP")
    if size > _MAX_BYTES:
        raise _unusable(path, f"is larger than {_MAX_BYTES >> 20} MB")
    return kind, content


def _path(given: str, directory: Path) -> Path:
    if not _SCHEME.match(given):
        return directory / given
    try:
        url = urlsplit(given)
    except ValueError as exc:
        raise _unusable(given, f"is not an address ({exc})") from exc
    if url.netloc not in ("", "localhost"):
        raise _unusable(given, "is on another machine")
    return directory / unquote(url.path)


def _unusable(path: Path | str, why: str) -> InputError:
    shown = str(path)  # base64 without its `data:`, perhaps
    shown = shown if len(shown) <= _SHOWN_CHARS else f"{shown[:_SHOWN_CHARS]}..."
    return InputError(f"image {shown!r}: {why}")
