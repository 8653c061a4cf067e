"""What of the settings no text may show: the API key, and the variables that a base_url has in it.

Servers and libraries repeat what they were sent, in their errors most of all; what they say is
stored and shown. So it goes through here first.
"""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from urllib.parse import unquote, urlsplit

from batchgen.config.settings import ModelConfig

# A text this long is a secret in an error; in an answer, where it might be a word, only a longer
# one. A short placeholder for a key ("EMPTY", "ollama") is none.
_SECRET_CHARS, _SURE_SECRET_CHARS = 8, 16
# An answer is searched for a secret in disguise only if it has a sign of one.
_DISGUISES = ("\\u00", "\\/")


class Secrets:
    """Texts that are to be hidden, by what is shown in the place of each."""

    def __init__(self, shown: Mapping[str, str], shown_in_answers: Mapping[str, str]) -> None:
        self._in_errors = _longest_first(shown, _SECRET_CHARS)
        self._in_answers = _longest_first(shown_in_answers, _SURE_SECRET_CHARS)

    def hide(self, text: str) -> str:
        """`text`, an error or a header, without them."""
        for secret, shown in self._in_errors.items():
            text = _any_form(secret).sub(lambda _, shown=shown: shown, text)  # type: ignore[misc]
        return text

    def hide_in_answer(self, text: str) -> str:
        """`text`, the body of an answer, without those that can be no word of it."""
        disguised = any(sign in text for sign in _DISGUISES)
        for secret, shown in self._in_answers.items():
            if disguised:
                text = _any_form(secret).sub(lambda _, shown=shown: shown, text)  # type: ignore[misc]
            elif secret in text:
                text = text.replace(secret, shown)
        return text


def secrets_of(model: ModelConfig, proxy: str | None = None) -> Secrets:
    """Those of the section `model`, and the password of the environment's proxy."""
    always = {model.api_key: "[API key]"} if model.api_key else {}
    if proxy and (password := urlsplit(proxy).password):
        always[password] = always[unquote(password)] = "[proxy password]"
    variables = {
        part: f"${{{name}}}"
        for name, value in model.url_variables.items()
        for part in _parts(value)
    }
    host = urlsplit(model.base_url).netloc
    # An answer may speak of a host as of anything; what else stands in a URL is a token.
    tokens = {value: shown for value, shown in variables.items() if value not in host}
    return Secrets(variables | always, tokens | always)


def _parts(value: str) -> Iterator[str]:
    """What is shown of a URL: all of it, its host, its path."""
    yield value
    if "://" in value:
        yield urlsplit(value).netloc.partition(":")[0]
        yield urlsplit(value).path.strip("/")


def _longest_first(shown: Mapping[str, str], chars: int) -> dict[str, str]:
    secrets = (secret for secret in shown if len(secret) >= chars)
    return {secret: shown[secret] for secret in sorted(secrets, key=len, reverse=True)}


@lru_cache(maxsize=100)
def _any_form(secret: str) -> re.Pattern[str]:
    r"""The secret as it is, or with some of its characters as JSON or a URL may write them: `\/`,
    `\u002f`, `%2F`."""
    return re.compile("".join(map(_any_form_of_char, secret)))


def _any_form_of_char(char: str) -> str:
    code = f"(?i:{ord(char):02x})"
    return rf"(?:\\?{re.escape(char)}|\\u00{code}|%{code})"
