"""What of the settings no text may show: the API key, the variables that a base_url has in it, and
the values of `headers` and `query`.

Servers, proxies and libraries repeat what they were sent, in their errors most of all; what they
say is stored and shown. So it goes through here first.
"""

import html
import json
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from urllib.parse import quote, unquote, urlsplit

from batchgen.config.values import ModelConfig

# A text this long is a secret wherever it stands. Of shorter ones those are that no prose has by
# chance; a placeholder for a key ("EMPTY", "ollama") is none.
_SURE_SECRET_CHARS, _SECRET_CHARS, _SHORTEST_SECRET_CHARS = 16, 8, 5
# What a server was sent may be a site's address or a title, of which an answer may well speak.
_LIKE_A_TOKEN = re.compile(r"(?=.*\d)(?=.*[A-Za-z])[\w.=+/~!#$%^&*-]{8,}", re.ASCII)
# An answer is searched for a secret in disguise only if it has a sign of one.
_DISGUISES = ("\\u00", "\\/")


class Secrets:
    """Texts that are to be hidden, by what is shown in the place of each."""

    def __init__(self, shown: Mapping[str, str], shown_in_answers: Mapping[str, str]) -> None:
        self._in_errors = _longest_first(shown, filter(_may_be_hidden, shown))
        self._shortest_chars = min(map(len, self._in_errors), default=0)
        self._in_answers = _longest_first(shown_in_answers, filter(_is_sure, shown_in_answers))
        self._written_in_answers = {
            written: text
            for secret, text in self._in_answers.items()
            for written in (secret, json.dumps(secret)[1:-1])
        }

    def hide(self, text: str) -> str:
        """`text`, an error or a header, without them."""
        if len(text) < self._shortest_chars:  # no form of a secret is shorter
            return text
        return _in_any_form(self._in_errors, text)

    def hide_in_answer(self, text: str) -> str:
        """`text`, the body of an answer, without those that can be no word of it."""
        if any(map(text.__contains__, _DISGUISES)):
            return _in_any_form(self._in_answers, text)
        for written, shown in self._written_in_answers.items():
            text = text.replace(written, shown)
        return text


def secrets_of(model: ModelConfig, proxy: str | None = None) -> Secrets:
    """Those of the section `model`, and the password of the environment's proxy."""
    always, in_errors = _of_sent(model)
    if model.api_key:
        always[model.api_key] = "[API key]"
    if proxy:
        always |= dict.fromkeys(_passwords(proxy), "[proxy password]")
    variables = {
        part: f"${{{name}}}"
        for name, value in model.url_variables.items()
        for part in _parts(value)
    }
    host = urlsplit(model.base_url).netloc
    # An answer may speak of a host as of anything; what else stands in a URL is a token.
    tokens = {value: shown for value, shown in variables.items() if value not in host}
    return Secrets(in_errors | variables | always, tokens | always)


def _of_sent(model: ModelConfig) -> tuple[dict[str, str], dict[str, str]]:
    """Of what is sent with each request: what is a secret in an answer too, as it is a variable or
    looks like a token, and what an answer may well speak of."""
    always: dict[str, str] = {}
    in_errors: dict[str, str] = {}
    for where, values in (("headers", model.headers), ("query", model.query)):
        for name, value in values.items():
            if value is None:
                continue
            shown = f"[{model.place}.{where}.{name}]"
            is_version = name.lower().endswith("version")
            for part in _parts_of_sent(value.text):
                is_token = _LIKE_A_TOKEN.fullmatch(part) and not is_version
                (always if is_token else in_errors)[part] = shown
                if is_token and where == "query":
                    always |= dict.fromkeys(_in_url(part), shown)
            always |= {text: f"${{{one}}}" for one, text in value.variables.items() if text}
    return always, in_errors


def _in_url(text: str) -> Iterator[str]:
    """As an answer has it that repeats the URL, which is not searched for other disguises."""
    yield from (quote(text, safe=safe) for safe in ("", "/"))


def _parts_of_sent(text: str) -> Iterator[str]:
    """All of it, and what a server may have taken out of it: `Bearer TOKEN`, `Basic` and a
    password, the texts of a JSON."""
    yield text
    yield from (word for word in text.split() if _LIKE_A_TOKEN.fullmatch(word))
    scheme, _, encoded = text.partition(" ")
    if scheme.lower() == "basic":
        with suppress(ValueError):
            user_and_password = b64decode(encoded, validate=True).decode()
            yield user_and_password
            yield user_and_password.partition(":")[2]
    if text.startswith(("{", "[")):
        yield from _texts_of_json(text)


def _texts_of_json(text: str) -> Iterator[str]:
    with suppress(ValueError, RecursionError):
        found = [json.loads(text)]
        while found:
            one = found.pop()
            if isinstance(one, str):
                yield one
            elif isinstance(one, list | dict):
                found += one.values() if isinstance(one, dict) else one


def _passwords(proxy: str) -> Iterator[str]:
    """That of the proxy, and all that is sent to it."""
    parts = urlsplit(proxy)
    if parts.password:
        yield parts.password
        yield unquote(parts.password)
        sent = f"{unquote(parts.username or '')}:{unquote(parts.password)}"
        yield b64encode(sent.encode()).decode()


def _parts(value: str) -> Iterator[str]:
    """What is shown of a URL: all of it, its host, its path; a library may have decoded it."""
    yield value
    yield unquote(value)
    if "://" in value:
        yield urlsplit(value).netloc.partition(":")[0]
        yield urlsplit(value).path.strip("/")


def _may_be_hidden(secret: str) -> bool:
    """Whether an error that has it means the secret."""
    is_word = secret.isalpha()
    return len(secret) >= (_SECRET_CHARS if is_word else _SHORTEST_SECRET_CHARS)


def _is_sure(secret: str) -> bool:
    """Whether it can be no word of an answer."""
    if len(secret) >= _SURE_SECRET_CHARS:
        return True
    has_both = any(map(str.isdigit, secret)) and any(map(str.isalpha, secret))
    return len(secret) >= _SECRET_CHARS and has_both


def _longest_first(shown: Mapping[str, str], secrets: Iterable[str]) -> dict[str, str]:
    return {secret: shown[secret] for secret in sorted(secrets, key=len, reverse=True)}


def _in_any_form(secrets: Mapping[str, str], text: str) -> str:
    for secret, shown in secrets.items():
        text = _any_form(secret).sub(lambda _, shown=shown: shown, text)  # type: ignore[misc]
    return text


# Where a text was broken into lines, also within JSON; UTF-16 has a NUL there.
_BREAK = r"(?:[\s\0]|\\{1,4}[nr]){0,20}"


@lru_cache(maxsize=100)
def _any_form(secret: str) -> re.Pattern[str]:
    r"""The secret as it is or as JSON, a URL or HTML have it (`\/`, `\u002f`, `%2F`, `&#x2F;`),
    and on several lines. In any case, as libraries write hosts in small letters."""
    # First a look at what it can begin with: most places of a long text are none.
    begins = rf"(?=[{re.escape(secret[0])}\\%&])"
    short = len(secret) < _SECRET_CHARS
    before, after = (r"(?<![A-Za-z0-9])", r"(?![A-Za-z0-9])") if short else ("", "")
    pattern = begins + before + _BREAK.join(map(_any_form_of_char, secret)) + after
    return re.compile(pattern, re.IGNORECASE)


def _any_form_of_char(char: str) -> str:
    code = f"{ord(char):02x}"
    forms = [
        rf"\\{{0,4}}{re.escape(char)}",
        rf"\\{{1,4}}u00{code}",
        f"%(?:25){{0,2}}{code}",
        f"&#(?:x0{{0,4}}{code}|0{{0,4}}{ord(char)});",
    ]
    named = html.escape(char, quote=False)
    return f"(?:{'|'.join([*forms, *([named] if named != char else [])])})"
