"""The locks that transactions take of each other. The server keeps them by two numbers: the first
is that of the schema, so that two of our databases in one of the server's do not wait for each
other, the second that of the thing. Two things of one number wait in vain, and do no harm."""

from binascii import crc32
from collections.abc import Iterable

WRITING = "writing"  # shared by transactions that may be beside each other
MIGRATING = "migrating"
MOVING = "moving"  # by who has WRITING too, and for as long as it takes


def lock_key(schema: str, kind: str, key: object = "") -> tuple[int, int]:
    return _number(f"batchgen {schema}"), _number(f"{kind} {key}")


def lock_keys(schema: str, kind: str, keys: Iterable[object]) -> tuple[int, list[int]]:
    """The second numbers are in the order in which everybody is to take them: who takes some of
    the same in another order could wait for one who waits for it."""
    return _number(f"batchgen {schema}"), sorted({_number(f"{kind} {key}") for key in keys})


def _number(text: str) -> int:
    """Of 32 bits, with a sign."""
    number = crc32(text.encode(errors="surrogateescape"))
    return number - (1 << 32) if number >> 31 else number
