"""The job that all do: a pool of items of about 500 bytes each, and one prompt template."""

import json
import random
import string
from pathlib import Path

ITEM_BYTES = 500
TEMPLATE = "Write a short draft about the text below. Put it into <draft> tags.\n\n{text}\n"
_LETTERS = "".join(random.Random(1).choices(string.ascii_lowercase + "    ", k=20_000))


def write_pool(path: Path, items: int) -> None:
    with path.open("w") as file:
        for number in range(items):
            file.write(json.dumps({"text": item_text(number)}) + "\n")


def item_text(number: int) -> str:
    """Of its own for each number: equal items would be one."""
    at = number * 7 % (len(_LETTERS) - ITEM_BYTES)
    return f"{number} {_LETTERS[at : at + ITEM_BYTES - 20]}"
