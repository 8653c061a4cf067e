"""The token in the link: who has it may see the database, and steer what works on it.

It is kept, so that tabs survive a restart: in `<database>-view` beside a file, which nobody reads
who may not read the database; for a server in the user's own state directory.
"""

import hmac
import os
import secrets
import stat
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from batchgen.database_address import DatabaseAddress

_BYTES = 16
_MODE = 0o600
_LENGTH = 2 * _BYTES


def kept_token(address: DatabaseAddress, environment: Mapping[str, str] = os.environ) -> str:
    """The token of this database, made when there is none yet; 128 bits, as hexadecimal digits.

    One that others could read or have put there is replaced. Where none can be kept, it is good
    until the process ends.
    """
    made = secrets.token_hex(_BYTES)
    place = token_place(address, environment)
    try:
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for _ in range(3):  # another viewer may be making one at the same time
            if found := _read(place):
                return found
            if _write(place, made):
                return made
    except OSError:
        pass
    return made


def reading_token(token: str) -> str:
    """That of a viewer that may only read: who has its link has not the other one's."""
    return hmac.digest(bytes.fromhex(token), b"read-only", "sha256")[:_BYTES].hex()


def token_place(address: DatabaseAddress, environment: Mapping[str, str] = os.environ) -> Path:
    if isinstance(address, Path):
        real = address.resolve()
        return real.with_name(f"{real.name}-view")
    state = environment.get("XDG_STATE_HOME") or ""
    home = Path(state) if state.startswith("/") else Path.home() / ".local/state"
    bare, _ = address.without_password()
    return home / "batchgen" / f"view-{sha256(bare.encode()).hexdigest()[:16]}"


def is_same(token: str, given: str) -> bool:
    """In a time that says nothing of how much of it is right."""
    return hmac.compare_digest(token.encode(), given.encode("utf-8", "replace"))


def _read(place: Path) -> str | None:
    """None: there is none, or one that is not ours alone, which is removed."""
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError:  # a link, or not readable
        place.unlink()
        return None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        text = file.read(_LENGTH + 1).decode("ascii", "replace")
    is_ours = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
    is_private = not stat.S_IMODE(status.st_mode) & 0o077
    is_token = len(text) == _LENGTH and all(one in "0123456789abcdef" for one in text)
    if is_ours and is_private and is_token:
        return text
    place.unlink()
    return None


def _write(place: Path, token: str) -> bool:
    """Whole or not at all; false: somebody else was first."""
    draft = place.with_name(f"{place.name}-{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(token.encode())
        try:
            os.link(draft, place)
        except FileExistsError:
            return False
        return True
    finally:
        draft.unlink()
