"""The day's loop: look at the results, change the parser, mend what failed. Nothing is paid twice.

python example/change_of_mind.py      # with OPENAI_API_KEY, or your own base_url
"""

import re
from typing import Any

from batchgen import DataGenerationPipeline

ITEMS = [{"city": city} for city in ("Paris", "Kyoto", "Lima", "Oslo", "Cairo")]


def first_try(text: str) -> Any:
    """Too strict: it wants a number at the very beginning."""
    return int(text)


def second_try(text: str) -> dict[str, Any]:
    found = re.search(r"\d[\d,.]*", text)
    return {"words": len(text.split()), "number": found and found[0]}


def main() -> None:
    pipeline = DataGenerationPipeline(
        system_prompt="",
        user_prompt="How many people live in {city}?",
        max_tokens=200,
        experiment_name="cities",
    )
    pipeline.run_sync(ITEMS, extract_function=first_try)
    print(pipeline.failures())  # the answers could not be parsed, but they are kept

    results = pipeline.run_sync(ITEMS, extract_function=second_try)  # parsed again, without a call
    print([result["parsed"] for result in results])

    # What was cut off is asked again with more room.
    pipeline.retry("truncated", params={"max_tokens": 2000})
    results = pipeline.run_sync(ITEMS, extract_function=second_try)
    print(f"{pipeline.status().calls} calls for {len(results)} results")
    print(f"written to {pipeline.export('cities.csv').path}")


if __name__ == "__main__":
    main()
