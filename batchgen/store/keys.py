"""The identity of an item, 16 bytes: equal keys are the same item, whatever engine keeps them."""

from collections.abc import Callable
from hashlib import blake2b


def key_of_id(experiment_id: int, variant: int, custom_id: str) -> bytes:
    """The identity of an item that has an id of the user's own."""
    named = f"{experiment_id}\0{variant}\0id\0{custom_id}"
    return blake2b(named.encode(), digest_size=16).digest()


def key_of_content(experiment_id: int, variant: int, content: bytes) -> bytes:
    """The identity of the first item with this content (`content_of`)."""
    return keys_of_contents(experiment_id, variant)(content)


def keys_of_contents(experiment_id: int, variant: int) -> Callable[[bytes], bytes]:
    """`key_of_content` for many items."""
    begin = blake2b(f"{experiment_id}\0{variant}\0".encode(), digest_size=16).copy

    def key_of(content: bytes) -> bytes:
        of_content = begin()  # half as dear as one begun anew
        of_content.update(content)
        return of_content.digest()

    return key_of


def key_of_copy(key: bytes, number: int) -> bytes:
    """The identity of another item with the same content: the second one, the third..."""
    return blake2b(key + number.to_bytes(8, "big"), digest_size=16).digest()


def key_of_sample(key: bytes, sample: int) -> bytes:
    """By the key of its item, which is that of the first sample too."""
    if sample == 1:
        return key
    return blake2b(b"sample" + key + sample.to_bytes(8, "big"), digest_size=16).digest()
