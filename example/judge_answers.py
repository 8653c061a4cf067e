"""One model writes, another one judges: the answers of an experiment are the pool of the next.

    python example/judge_answers.py       # with OPENAI_API_KEY, or your own base_url

Each of the two experiments has its own prompts, model and file, in one database. Run it again after
a crash: both go on where they were.
"""

import json
import re

from batchgen import DataGenerationPipeline

QUESTIONS = [
    {"id": "sky", "question": "Why is the sky blue?"},
    {"id": "ice", "question": "Why does ice float?"},
    {"id": "moon", "question": "Why do we see one side of the moon only?"},
]


def score(text: str) -> int:
    """The first number from 1 to 10 in the judge's answer."""
    found = re.search(r"\b(10|[1-9])\b", text)
    if found is None:
        raise ValueError("the judge gave no score")
    return int(found[1])


def main() -> None:
    writer = DataGenerationPipeline(
        system_prompt="You explain physics in one sentence.",
        user_prompt="{question}",
        experiment_name="explanations",
    )
    answers = writer.run_sync(QUESTIONS, samples=2)

    judge = DataGenerationPipeline(
        system_prompt="",
        user_prompt="Score this explanation from 1 to 10.\n\n{question}\n{answer}\n\nScore:",
        temperature=0,
        experiment_name="scores",
    )
    to_judge = [
        {
            "id": f"{answer['id']}-{answer['sample']}",
            "question": answer["input"]["question"],
            "answer": answer["parsed"],
        }
        for answer in answers
        if answer["parsed"] is not None
    ]
    for verdict in judge.run_sync(to_judge, extract_function=score):
        print(json.dumps({"id": verdict["id"], "score": verdict["parsed"]}))


if __name__ == "__main__":
    main()
