"""The identity of an item, 16 bytes: equal keys are the same item, whatever engine keeps them."""

from functools import cache
from hashlib import blake2b


def key_of_id(experiment_id: int, variant: int, custom_id: str) -> bytes:
    """The identity of an item that has an id of the user's own."""
    named = f"{experiment_id}\0{variant}\0id\0{custom_id}"
    return blake2b(named.encode(), digest_size=16).digest()


def key_of_content(experiment_id: int, variant: int, content: bytes) -> bytes:
    """The identity of the first item with this content (`content_of`)."""
    of_content = _begun(experiment_id, variant).copy()  # half as dear as one begun anew
    of_content.update(content)
    return of_content.digest()


@cache
def _begun(experiment_id: int, variant: int) -> blake2b:
    return blake2b(f"{experiment_id}\0{variant}\0".encode(), digest_size=16)


def key_of_copy(key: bytes, number: int) -> bytes:
    """The identity of another item with the same content: the second one, the third..."""
    return blake2b(key + number.to_bytes(8, "big"), digest_size=16).digest()


def key_of_sample(key: bytes, sample: int) -> bytes:
    """By the key of its item, which is that of the first sample too."""
    if sample == 1:
        return key
    return blake2b(b"sample" + key + sample.to_bytes(8, "big"), digest_size=16).digest()
