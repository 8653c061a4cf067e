"""Where a database of PostgreSQL is: its URL, which may hold a password, and the name by which it
goes in messages, which does not."""

import re
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from batchgen.errors import Remedy, UsageError

_SCHEMES = ("postgresql", "postgres")
_SECRETS = "password|sslpassword"
_MASK = "***"


class PostgresAddress(NamedTuple):
    """`url` is as libpq takes it. It is for connecting only: what is shown is `name`."""

    url: str
    name: str
    prepares: bool = True  # no: a pooler gives each transaction another of its sessions

    def __repr__(self) -> str:
        return f"PostgresAddress({self.name!r})"

    def without_password(self) -> tuple[str, str | None]:
        """The address as it may be seen in a list of processes, and the password, for the
        environment (PGPASSWORD); None: it has none."""
        parts = urlsplit(self.url)
        user, password, host = _user_of(parts.netloc)
        pieces = parts.query.split("&") if parts.query else []
        named = [one.partition("=")[2] for one in pieces if one.startswith("password=")]
        kept = [one for one in pieces if not one.startswith("password=")]
        if not self.prepares:
            kept.append("prepare=no")
        found = named[-1] if named else password
        bare = _joined(parts._replace(netloc=f"{user}{host}"), kept)
        return bare, None if found is None else unquote(found)


def is_postgres(text: str) -> bool:
    """Whether somebody means a server by this, and not a file."""
    scheme, mark, _ = text.partition("://")
    return bool(mark) and scheme.lower() in _SCHEMES


def address_of(text: str) -> PostgresAddress:
    """Raises UsageError where it can be none; no password is in the words."""
    try:
        parts = urlsplit(text)
        _check_hosts(parts.netloc)
    except ValueError as exc:
        raise _no_address(text, f" ({exc})") from exc
    if not is_postgres(text) or parts.fragment:
        raise _no_address(text)
    pieces = parts.query.split("&") if parts.query else []
    prepares = not any(re.fullmatch("(?i)prepare=(no|0|off|false)", one) for one in pieces)
    url = _joined(parts, (one for one in pieces if not one.startswith("prepare=")))
    return PostgresAddress(url, masked(text), prepares)


def masked(text: str) -> str:
    """As it is shown, without the passwords; also of what is no address at all."""
    scheme, mark, rest = text.partition("://")
    user_info, at, after = rest.rpartition("@")
    user, colon, _ = user_info.partition(":")
    shown = f"{scheme}{mark}{user}{colon and f':{_MASK}'}{at}{after}"
    return re.sub(rf"(?i)([?&](?:{_SECRETS})=)[^&]*", rf"\g<1>{_MASK}", shown)


def _no_address(text: str, why: str = "") -> UsageError:
    return UsageError(
        f"{masked(text)}: is no address of a database{why}. One is "
        "postgresql://user:password@host:5432/name; in a password, %40 stands for @, %3A for :, "
        "%2F for /, %23 for #, %3F for ? and %25 for %.",
        Remedy.NAME_DATABASE,
    )


def _user_of(netloc: str) -> tuple[str, str | None, str]:
    """The user as it is spelled, its password, and `@host:port`."""
    user_info, at, host = netloc.rpartition("@")
    user, colon, password = user_info.partition(":")
    return user, password if colon else None, f"{at}{host}"


def _check_hosts(netloc: str) -> None:
    user_info, _, hosts = netloc.rpartition("@")
    if "@" in user_info:
        raise ValueError("it has two @")
    for host in hosts.split(","):
        _, colon, port = re.sub(r"\[[^]]*\]", "", host).rpartition(":")
        if colon and not (port.isdecimal() and 0 < int(port) < 65536):
            raise ValueError(f"{port!r} is no port")


def _joined(parts: SplitResult, query: Iterable[str]) -> str:
    """With both slashes also where there is no host: postgresql:///name."""
    pieces = "&".join(query)
    return f"postgresql://{parts.netloc}{parts.path}{pieces and f'?{pieces}'}"
