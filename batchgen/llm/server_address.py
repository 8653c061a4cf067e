"""Where a server is and what goes with each request to it: the only module that knows openai.

The openai package decides what a client is: the key, the base URL, the headers and the environment
variables behind them. It sends nothing.
"""

from collections.abc import Mapping
from urllib.parse import urlsplit

import yarl
from msgspec import Struct

from batchgen.config import (
    ModelConfig,
    Secrets,
    SentValues,
    gives_key,
    missing_variables,
    secrets_of,
)
from batchgen.errors import ConfigError
from batchgen.llm.proxies import proxy_for

_HOST_THAT_NEEDS_A_KEY = "api.openai.com"


class ServerAddress(Struct, frozen=True):
    """`base` is the URL that paths are added to, without a slash at its end. `headers`, in which
    the key is, and `query` go with each request, over the `proxy`, if there is one. `secrets` are
    what no text may show of all of it."""

    base: str
    headers: Mapping[str, str]
    query: Mapping[str, str]
    proxy: str | None
    secrets: Secrets

    def __repr__(self) -> str:
        """Without what may be secret."""
        return "ServerAddress()"

    def url(self, path: str, more: Mapping[str, str] | None = None) -> yarl.URL:
        """Of a path, which begins with a slash, with the query and what is to be added to it."""
        return yarl.URL(f"{self.base}{path}").update_query({**self.query, **(more or {})})


async def address_of(model: ModelConfig) -> ServerAddress:
    """Raises ConfigError when the key is missing or unusable, or the environment's proxy is."""
    key = _checked_key(model)
    proxy = proxy_for(yarl.URL(model.base_url))
    # Imported here, as it takes half a second of CPU, which other commands need not spend.
    import httpx2
    from openai import AsyncOpenAI

    # It sends nothing. With a transport of its own it would load all certificates, and fail for
    # proxies and certificate files of the environment that no call is to use.
    nothing_is_sent = httpx2.AsyncClient(transport=httpx2.AsyncBaseTransport(), trust_env=False)
    openai = AsyncOpenAI(
        api_key=key, base_url=model.base_url, max_retries=0, http_client=nothing_is_sent
    )
    headers = {
        name: value
        for name, value in {**openai.default_headers, **openai.auth_headers}.items()
        # openai marks the ones to leave out with objects of its own. The x-stainless ones describe
        # its own request machinery, which does not send here.
        if isinstance(value, str) and not name.lower().startswith("x-stainless-")
    }
    if not model.sends_api_key:
        headers.pop("Authorization", None)
    base = str(openai.base_url).rstrip("/")
    await openai.close()
    return ServerAddress(
        base, _with_own(headers, model.headers), _sent(model.query), proxy,
        secrets_of(model, proxy),
    )  # fmt: skip


def check_settings(model: ModelConfig) -> None:
    """Raises ConfigError where `address_of` would; opens nothing."""
    _checked_key(model)
    proxy_for(yarl.URL(model.base_url))


def _sent(values: SentValues) -> dict[str, str]:
    return {name: value.text for name, value in values.items() if value is not None}


def _with_own(headers: Mapping[str, str], own: SentValues) -> dict[str, str]:
    """The user's take the place of ours, whatever their capitals; a null leaves ours out."""
    names = {name.lower() for name in own}
    return {k: v for k, v in headers.items() if k.lower() not in names} | _sent(own)


def _check_sent(model: ModelConfig) -> None:
    for where, values in (("headers", model.headers), ("query", model.query)):
        for name, variable in missing_variables(values):
            raise ConfigError(
                f"{model.place}.{where}.{name}: the environment variable {variable} is not set."
            )


def _checked_key(model: ModelConfig) -> str:
    _check_sent(model)
    if model.api_key and not (model.api_key.isascii() and model.api_key.isprintable()):
        raise ConfigError(
            f"{model.place}.api_key: has characters that no HTTP header can carry (a line break, "
            "perhaps)."
        )
    has_key = model.api_key or gives_key(model.headers)
    if not has_key and urlsplit(model.base_url).hostname == _HOST_THAT_NEEDS_A_KEY:
        raise ConfigError(
            f"{model.place}.api_key: no key. Set the environment variable "
            f"{model.api_key_variable}, or point {model.place}.base_url at a server that needs "
            "none."
        )
    return model.api_key or "none"
