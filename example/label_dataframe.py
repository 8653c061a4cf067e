"""Labels for the rows of a DataFrame: a frame in, the same frame with two more columns out.

    python example/label_dataframe.py     # needs pandas, and OPENAI_API_KEY or your own base_url

What the model answers is checked by a pydantic model, and a server that can is asked for answers
that fit it. A row whose answer does not fit has no label; `failures()` says why.
"""

from typing import Literal

import pandas as pd
from pydantic import BaseModel

from batchgen import DataGenerationPipeline

REVIEWS = pd.DataFrame(
    {
        "review": ["Broke after a day.", "Does what it should.", "I love it!", "Too loud for me."],
        "stars": pd.array([1, 4, 5, None], dtype="Int64"),  # what is missing is null for the model
    }
)


class Label(BaseModel):
    sentiment: Literal["positive", "negative", "neutral"]
    reason: str


def main() -> None:
    pipeline = DataGenerationPipeline(
        user_prompt="Label this review ({stars} stars) as JSON: sentiment and reason.\n{review}",
        system_prompt="You label product reviews.",
        structured_output=True,
        experiment_name="review_labels",
    )
    results = pipeline.run_sync(REVIEWS, extract_function=Label)

    labels = [result["parsed"] or {} for result in results]  # in the order of the frame
    labelled = REVIEWS.assign(
        sentiment=[label.get("sentiment") for label in labels],
        reason=[label.get("reason") for label in labels],
    )
    print(labelled.to_string())
    print(pipeline.failures())


if __name__ == "__main__":
    main()
