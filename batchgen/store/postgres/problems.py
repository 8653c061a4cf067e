"""What PostgreSQL, libpq or the network say is wrong, as an error of ours: one line that says what
to do, and has no password in it."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict

from batchgen.database_address import PostgresAddress
from batchgen.errors import (
    Remedy,
    StoreAwayError,
    StoreBusyError,
    StoreError,
    StoreFullError,
    StoreRefusedError,
)
from batchgen.store.tables import moved_error

# What libpq and the server say to who cannot connect, and what that means. Of a connection that was
# not made there is no code, only these words.
_REFUSED_ANSWERS = (
    (r"password authentication failed for user \"([^\"]*)\"",
     "the password of {0} is wrong, or it has no role {0}. It is taken from the address, from "
     "PGPASSWORD, or from ~/.pgpass."),
    (r"no password supplied", "it asks for a password: give it in the address, as PGPASSWORD, or "
                              "in ~/.pgpass."),
    (r"role \"([^\"]*)\" does not exist", "it has no role {0}: create it, or name another user."),
    (r"role \"([^\"]*)\" is not permitted to log in", "the role {0} may not log in."),
    (r"permission denied for database \"([^\"]*)\"", "the role may not connect to database {0}."),
    (r"no pg_hba.conf entry[^\n]*", "it takes no connection from here for this user and database "
                                    "({all}): pg_hba.conf says from whom."),
    (r"server does not support SSL", "it has no TLS, and the address asks for it (sslmode)."),
    (r"certificate verify failed|root certificate file", "its certificate is not trusted ({all})."),
    (r"service file|definition of service \"([^\"]*)\" not found", "{all}."),
)  # fmt: skip
_STARTS = "the server is {0}."
_ENDED = "the connection ended as it was being made, by the server or the network."
_NOBODY = "nobody listens there: is PostgreSQL running, and is it this port?"
_NOBODY_NOW = "nobody listens there any more: does PostgreSQL still run?"
_MAY_PASS = (
    (r"the database system is (starting up|shutting down|in recovery mode)", _STARTS),
    (r"server closed the connection unexpectedly|terminating connection", _ENDED),
    (r"(too many connections|remaining connection slots|too many clients|connection limit)[^\n]*",
     "it has no connection left for us ({all}): each worker takes one. End some, or raise its "
     "max_connections, or put a pooler (pgbouncer) before it."),
    (r"could not translate host name \"([^\"]*)\"|failed to resolve host '([^']*)'",
     "there is no host {0}, as far as this machine knows."),
    (r"Connection refused", _NOBODY),
    (r"No such file or directory", "no PostgreSQL listens on this socket of this machine."),
    (r"timeout expired|timed out", "the server does not answer: is a firewall between?"),
    (r"Network is unreachable|No route to host", "there is no way to it in the network."),
)  # fmt: skip
_MOST_CHARS = 300


class PassingError(StoreAwayError):
    """The server was there a moment ago, or will be in a moment: it starts, or has just stopped."""


class NoDatabaseError(StoreError):
    """The server is there, and has no such database."""


def connect_error(
    exc: psycopg.Error, address: PostgresAddress, *, again: bool = False
) -> StoreError:
    """Why no connection was made. A StoreAwayError is what may pass by itself. `again`: there was
    one before, by the same address."""
    text = _without_secrets(str(exc), address)
    if found := re.search(r"database \"([^\"]*)\" does not exist", text):
        why = (
            ""
            if _names_database(address)
            else (
                "the address names no database (postgresql://USER@HOST/NAME), so the one with the "
                "user's name was meant, and "
            )
        )
        return NoDatabaseError(
            f"{address.name}: {why}the server has no database {found[1]}. Make it: "
            f"createdb {_options(address)}{found[1]}"
        )
    for pattern, words in _REFUSED_ANSWERS:
        if found := re.search(pattern, text):
            return StoreError(f"{address.name}: {_filled(words, found)}")
    for pattern, words in _MAY_PASS:
        if found := re.search(pattern, text):
            kind = PassingError if words in (_STARTS, _ENDED) else StoreAwayError
            words = _NOBODY_NOW if again and words == _NOBODY else words
            return kind(f"{address.name}: {_filled(words, found)}")
    return StoreAwayError(f"{address.name}: {_one_line(text)}")


def _names_database(address: PostgresAddress) -> bool:
    """Or a service that does; else libpq takes the variable, or the name of the user."""
    given = conninfo_to_dict(address.url)
    return any(given.get(name) for name in ("dbname", "service")) or "PGDATABASE" in os.environ


def _options(address: PostgresAddress) -> str:
    """Which server, and who, as PostgreSQL's own commands take it."""
    given = conninfo_to_dict(address.url)
    named = (("-h", "host"), ("-p", "port"), ("-U", "user"))
    return "".join(f"{option} {given[name]} " for option, name in named if given.get(name))


@contextmanager
def store_errors(address: PostgresAddress) -> Iterator[None]:
    """Inside, what psycopg raises becomes an error of ours."""
    try:
        yield
    except psycopg.Error as exc:
        raise store_error(exc, address) from exc


def store_error(exc: psycopg.Error, address: PostgresAddress) -> StoreError:
    """What the server said of a statement, as one line that says what to do."""
    if isinstance(exc, errors.RaiseException) and (moved := moved_error(address.name, str(exc))):
        return moved
    text = f"{address.name}: {_one_line(_without_secrets(_said(exc), address))}"
    if isinstance(exc, (errors.DiskFull, errors.OutOfMemory, errors.ConfigurationLimitExceeded)):
        return StoreFullError(
            f"{text}. Everything committed is safe; make room on the server.", Remedy.RUN_AGAIN
        )
    if isinstance(exc, errors.LockNotAvailable):
        return StoreBusyError(f"{text}.", Remedy.RUN_AGAIN)
    if isinstance(exc, errors.ReadOnlySqlTransaction):
        return StoreError(
            f"{address.name}: takes no writes: it is a replica, or set to be read only. Name the "
            "primary."
        )
    if isinstance(exc, errors.InsufficientPrivilege):
        return StoreError(lacking_rights(exc, address), Remedy.ONLY_LOOK)
    if isinstance(exc, (psycopg.IntegrityError, psycopg.DataError)):
        return StoreRefusedError(text)
    if is_lost(exc):
        return PassingError(f"{text.rstrip('.')}.", Remedy.RUN_AGAIN)
    return StoreError(text)


def lacking_rights(exc: psycopg.Error, address: PostgresAddress) -> str:
    """Whichever object it was denied, others would be next: what helps is to be the owner."""
    return (
        f"{address.name}: its user may not use the tables there ({exc.diag.message_primary}). Name "
        "the user that made them, or let it be a member of that one: grant OWNER to USER."
    )


def is_lost(exc: BaseException) -> bool:
    """Whether the connection is gone, and not only the transaction."""
    if not isinstance(exc, psycopg.Error):
        return False
    gone = (
        errors.AdminShutdown, errors.CrashShutdown, errors.CannotConnectNow,
        errors.IdleInTransactionSessionTimeout, errors.IdleSessionTimeout,
    )  # fmt: skip
    state = exc.sqlstate or ""
    if isinstance(exc, gone) or state.startswith("08"):
        return True
    return isinstance(exc, (psycopg.OperationalError, psycopg.InterfaceError)) and not state


def is_worth_another_try(exc: BaseException) -> bool:
    """Whether the transaction was given up for another's sake, which may be over by now."""
    return isinstance(exc, (errors.DeadlockDetected, errors.SerializationFailure))


def _said(exc: psycopg.Error) -> str:
    """With what the server says of it besides: which value, which constraint."""
    words, detail = exc.diag.message_primary, exc.diag.message_detail
    return f"{words} ({detail})" if detail else words or str(exc)


def _filled(words: str, found: re.Match[str]) -> str:
    groups = [one for one in found.groups() if one is not None]
    return words.format(*groups, all=_one_line(found[0]))


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MOST_CHARS else f"{line[:_MOST_CHARS]}..."


def _without_secrets(text: str, address: PostgresAddress) -> str:
    """libpq says some addresses back as they were given."""
    _, password = address.without_password()
    text = text.replace(address.url, address.name)
    return text.replace(password, "***") if password and len(password) > 3 else text
