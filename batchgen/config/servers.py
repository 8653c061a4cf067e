"""Several servers, or keys, for one run: what each entry of `model.servers` may have."""

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct, field

from batchgen.config.kinds import (
    API_KEY,
    BASE_URL,
    CONCURRENCY,
    COUNT,
    Kind,
    NestedError,
    ValueContext,
    named_variable,
    or_null,
    shown_key,
    shown_value,
    url_variables,
)
from batchgen.config.price import PRICE, Price
from batchgen.config.sent import HEADERS, QUERY, SentValues, with_query_of

_SECRETS = frozenset({"api_key", "headers", "query", "url_variables"})
_KINDS: Mapping[str, Kind] = {
    "base_url": BASE_URL,
    "api_key": API_KEY,
    "headers": HEADERS,
    "query": QUERY,
    "concurrency": or_null(CONCURRENCY),
    "rate_limit": or_null(COUNT),
    "token_limit": or_null(COUNT),
    "price": PRICE,
}
_MOST_SERVERS = 100


class ServerConfig(Struct, frozen=True, kw_only=True):
    """One of several servers. What is None is as the section `model` says; a limit of 0 is none.
    `concurrency` bounds its calls in flight, per worker."""

    base_url: str
    api_key: str | None = None
    headers: SentValues = field(default_factory=dict)
    query: SentValues = field(default_factory=dict)
    concurrency: int | None = None
    rate_limit: int | None = None
    token_limit: int | None = None
    price: Price | None = None
    api_key_variable: str = "OPENAI_API_KEY"
    url_variables: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return shown_without_secrets(self)

    @property
    def asks_as(self) -> tuple[object, ...]:
        """By what two of them would be one."""
        return self.base_url, self.api_key, self.headers, self.query


def shown_without_secrets(config: Struct) -> str:
    """The representation of one server's settings."""
    names = (name for name in config.__struct_fields__ if name not in _SECRETS)
    shown = ", ".join(f"{name}={getattr(config, name)!r}" for name in names)
    return f"{type(config).__name__}({shown})"


def _check_servers(given: Any, context: ValueContext) -> tuple[ServerConfig, ...]:
    if given is None:
        return ()
    if not isinstance(given, (list, tuple)):
        raise ValueError("must be a list of mappings, each with a base_url")
    if len(given) > _MOST_SERVERS:
        raise ValueError(f"must not be longer than {_MOST_SERVERS}")
    servers: list[ServerConfig] = []
    for number, one in enumerate(given):
        server = _server(one, f"[{number}]", context)
        for before, other in enumerate(servers):
            if other.asks_as == server.asks_as:
                problem = f"is the same as [{before}]; raise its concurrency instead"
                raise NestedError(f"[{number}]", problem)
        servers.append(server)
    return tuple(servers)


def _server(given: Any, place: str, context: ValueContext) -> ServerConfig:
    if not isinstance(given, Mapping):
        raise NestedError(place, "must be a mapping, such as {base_url: ..., api_key: ...}")
    if unknown := [name for name in given if name not in _KINDS]:
        from difflib import get_close_matches  # here: nearly every config has no unknown key

        near = get_close_matches(str(unknown[0])[:60].lower(), _KINDS, 1, 0)[0]
        problem = f"unknown key; a server has no such setting of its own; did you mean {near}?"
        raise NestedError(f"{place}.{shown_key(unknown[0])}", problem)
    if given.get("base_url") is None:
        raise NestedError(place, "has no base_url")
    values = {
        name: _checked(given.get(name), kind, f"{place}.{name}", context)
        for name, kind in _KINDS.items()
    }
    try:
        values["base_url"], values["query"] = with_query_of(values["base_url"], values["query"])
    except NestedError as exc:
        raise NestedError(f"{place}.query.{exc.path}", str(exc)) from None
    key_variable = named_variable(given.get("api_key"))
    if key_variable:
        values["api_key_variable"] = key_variable
    return ServerConfig(**values, url_variables=url_variables(given["base_url"], context.env))


def _checked(value: Any, kind: Kind, place: str, context: ValueContext) -> Any:
    try:
        return kind.check(value, context)
    except NestedError as exc:
        raise NestedError(f"{place}.{exc.path}", str(exc)) from None
    except ValueError as exc:
        problem = str(exc) or f"must be {kind.phrase}, not {shown_value(value)}"
        raise NestedError(place, problem) from None


SERVERS = Kind("a list of mappings", _check_servers)


def server_names(shown_urls: Iterable[str]) -> list[str]:
    """What each is called, by its URL without what may be secret: its host or, where several have
    that, with a number."""
    hosts = [urlsplit(url).netloc.rpartition("@")[2] or url for url in shown_urls]
    return [
        f"{host} #{hosts[:number].count(host) + 1}" if hosts.count(host) > 1 else host
        for number, host in enumerate(hosts)
    ]
