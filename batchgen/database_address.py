"""Where a database is: a file, or one of a PostgreSQL server, whose URL may hold a password.

As text (`str`, an f-string) an address has none: that is for messages.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

_SCHEMES = ("postgresql", "postgres")
_SECRETS = "password|sslpassword"
_MASK = "***"
_UNPREPARED = "prepare=no"


class PostgresAddress(NamedTuple):
    """`url` is as libpq takes it. It is for connecting only: what is shown is `name`."""

    url: str
    name: str
    prepares: bool = True  # no: a pooler gives each transaction another of its sessions

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"PostgresAddress({self.name!r})"

    def to_url(self) -> str:
        """What `address_of` makes this of: for connecting, with the password."""
        if self.prepares:
            return self.url
        return f"{self.url}{'&' if urlsplit(self.url).query else '?'}{_UNPREPARED}"

    def without_password(self) -> tuple[str, str | None]:
        """The address as anybody may see it and type it again, and the password, which is then to
        come by PGPASSWORD or ~/.pgpass; None: it has none."""
        parts = urlsplit(self.url)
        user, password, host = _user_of(parts.netloc)
        pieces = parts.query.split("&") if parts.query else []
        named = [one.partition("=")[2] for one in pieces if one.startswith("password=")]
        kept = [one for one in pieces if not re.match(f"({_SECRETS})=", one)]
        if not self.prepares:
            kept.append(_UNPREPARED)
        found = named[-1] if named else password
        bare = _joined(parts._replace(netloc=f"{user}{host}"), kept)
        return bare, None if found is None else unquote(found)


class _AddressError(ValueError):
    """Its words have nothing of the address."""


DatabaseAddress = Path | PostgresAddress


def is_postgres(text: str) -> bool:
    """Whether somebody means a server by this, and not a file."""
    scheme, mark, _ = text.partition("://")
    return bool(mark) and scheme.lower() in _SCHEMES


def address_of(text: str) -> PostgresAddress:
    """Raises ValueError where it can be none; no password is in the words."""
    try:
        parts = urlsplit(text)
        _check_hosts(parts.netloc)
    except ValueError as exc:
        why = f" ({exc})" if isinstance(exc, _AddressError) else ""
        raise _no_address(text, why) from None  # others quote what they cannot read
    if not is_postgres(text) or parts.fragment:
        raise _no_address(text)
    pieces = parts.query.split("&") if parts.query else []
    prepares = not any(re.fullmatch("(?i)prepare=(no|0|off|false)", one) for one in pieces)
    url = _joined(parts, (one for one in pieces if not one.startswith("prepare=")))
    return PostgresAddress(url, masked(text), prepares)


def to_text(address: DatabaseAddress) -> str:
    """What `from_text` makes the address of, with its password: for a private pipe alone."""
    return str(address) if isinstance(address, Path) else address.to_url()


def from_text(text: str) -> DatabaseAddress:
    return address_of(text) if is_postgres(text) else Path(text)


def masked(text: str) -> str:
    """As it is shown, without the passwords; also of what is no address at all."""
    scheme, mark, rest = text.partition("://")
    user_info, at, after = rest.rpartition("@")
    user, colon, _ = user_info.partition(":")
    shown = f"{scheme}{mark}{user}{colon and f':{_MASK}'}{at}{after}"
    return re.sub(rf"(?i)([?&](?:{_SECRETS})=)[^&]*", rf"\g<1>{_MASK}", shown)


def _no_address(text: str, why: str = "") -> ValueError:
    shown = masked(text) if "://" in text else "this"
    return ValueError(
        f"{shown} is no address of a database{why}. One is "
        "postgresql://user:password@host:5432/name; in a password, %40 stands for @, %3A for :, "
        "%2F for /, %23 for #, %3F for ? and %25 for %. A file is named by its path alone"
    )


def _user_of(netloc: str) -> tuple[str, str | None, str]:
    """The user as it is spelled, its password, and `@host:port`."""
    user_info, at, host = netloc.rpartition("@")
    user, colon, password = user_info.partition(":")
    return user, password if colon else None, f"{at}{host}"


def _check_hosts(netloc: str) -> None:
    user_info, _, hosts = netloc.rpartition("@")
    if "@" in user_info:
        raise _AddressError("it has two @")
    for host in hosts.split(","):
        _, colon, port = re.sub(r"\[[^]]*\]", "", host).rpartition(":")
        if colon and not (port.isdecimal() and 0 < int(port) < 65536):
            raise _AddressError("its port is no number")


def _joined(parts: SplitResult, query: Iterable[str]) -> str:
    """With both slashes also where there is no host: postgresql:///name."""
    pieces = "&".join(query)
    return f"postgresql://{parts.netloc}{parts.path}{pieces and f'?{pieces}'}"
