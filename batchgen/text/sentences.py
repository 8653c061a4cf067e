"""What others said, as a sentence among ours. Pure."""

_ENDS = ("!", "?", "\u3002", "\uff01", "\uff1f", "\u2026")


def as_sentence(said: str) -> str:
    """It ends in one full stop, of whatever script."""
    text = said.rstrip(". ")
    return text if text.endswith(_ENDS) else f"{text}."
