"""Several calls for each item, from Python: four answers, a score for each, and the best of them.

    python example/best_of_four.py       # with OPENAI_API_KEY, or your own base_url

Run it again after a crash: it goes on where it was. What is answered is not asked again, whichever
step it is of.
"""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field

from batchgen import DataGenerationPipeline, Step

QUESTIONS = [
    {"id": "sky", "question": "Why is the sky blue?"},
    {"id": "ice", "question": "Why does ice float?"},
    {"id": "moon", "question": "Why do we see one side of the moon only?"},
]


class Verdict(BaseModel):
    """What the judge is to say; an answer that does not fit is asked for once more."""

    reason: str
    score: int = Field(ge=1, le=10)


def best(item: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Sees the scores, and in the same order the answers that they are of."""
    scored = zip(values["scores"], values["answer"], strict=True)
    score, answer = max(scored, key=lambda pair: pair[0])
    return {"question": item["question"], "answer": answer, "score": score}


def main() -> None:
    pipeline = DataGenerationPipeline(
        experiment_name="best",
        parse_attempts=2,
        steps=[
            Step("answer", user="{question} Answer in three sentences.", temperature=1),
            Step(
                "score", user="Judge this answer from 1 to 10.\n\n{question}\n\n{answer}",
                parser=Verdict, structured_output=True, value="parsed.score", temperature=0,
            ),
            Step("best", gather="scores", function=best),
        ],
    )  # fmt: skip
    for chain in pipeline.run_sync(QUESTIONS, samples=4):
        scores = [one["parsed"]["score"] for one in chain["steps"]["score"]]
        print(json.dumps({"id": chain["id"], "of": scores, **chain["parsed"]}))
    print(pipeline.status())


if __name__ == "__main__":
    main()
