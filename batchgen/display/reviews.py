"""`review` as text."""

from batchgen.display.visible import visible_line
from batchgen.jobs.review import ReviewList, Said
from batchgen.store import Review, ReviewCounts

_LONGEST = 80


def said_text(said: Said) -> str:
    """What is said of one item."""
    name = visible_line(str(said.id))
    if said.review is None:
        return f"{name}: not reviewed."
    old = "" if said.review.is_current else " (of an earlier answer: it does not count)"
    return f"{name}: {_review_text(said.review)}{old}"


def reviews_text(found: ReviewList) -> str:
    """All of an experiment, a line each below the counts."""
    lines = [f"{found.experiment}: {counts_text(found.counts)}"]
    names = [visible_line(str(one.custom_id or f"#{one.item_id}")) for one in found.reviews]
    names = [
        name if one.sample is None else f"{name}, sample {one.sample}"
        for one, name in zip(found.reviews, names, strict=True)
    ]
    width = max(map(len, names), default=0)
    lines += [
        f"  {name:<{width}}  {'' if one.is_current else 'earlier: '}{_review_text(one)}"
        for one, name in zip(found.reviews, names, strict=True)
    ]
    return "\n".join(lines)


def counts_text(counts: ReviewCounts) -> str:
    parts = [f"{counts.accepted:,} accepted", f"{counts.rejected:,} rejected"]
    parts += [f"{counts.undecided:,} without a verdict"] if counts.undecided else []
    parts += [f"{counts.edited:,} edited"] if counts.edited else []
    text = ", ".join(parts)
    if counts.earlier:
        return f"{text}; {counts.earlier:,} of earlier answers, which do not count"
    return text


def _review_text(review: Review) -> str:
    parts = [review.verdict or "no verdict"]
    parts += [f"edited: {_begun(review.edited)}"] if review.edited is not None else []
    parts += [f"note: {_begun(review.note)}"] if review.note is not None else []
    return "; ".join(parts)


def _begun(text: str) -> str:
    line = visible_line(text)
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."
