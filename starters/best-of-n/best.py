"""The last step: chooses among the answers to a question."""

from typing import Any


def best(item: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """The answer with the highest score. A step that gathers sees lists in the same order: each
    step's values by its name, and those of the step before by the name of `gather` too. Answers
    whose score failed are not among them."""
    found = zip(values["scores"], values["answer"], strict=True)
    score, answer = max(found, key=lambda pair: pair[0])
    return {"question": item["question"], "answer": answer, "score": score}
