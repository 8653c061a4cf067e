"""Results as they come, until there are enough: five good titles, whatever happens on the way.

    python example/stream_results.py      # with OPENAI_API_KEY, or your own base_url

A generator makes the items while they are needed. Leaving the loop lets the calls in flight finish
and asks for no more; what they brought is kept for the next run.
"""

import asyncio
from collections.abc import Iterator
from itertools import count

from batchgen import DataGenerationPipeline

WANTED = 5


def ideas() -> Iterator[dict[str, str]]:
    for number in count(1):
        if number > 40:
            return
        yield {"id": f"idea-{number}", "topic": ("rivers", "gardens", "letters")[number % 3]}


def is_good(title: str) -> bool:
    return len(title) > 20


async def main() -> None:
    pipeline = DataGenerationPipeline(
        system_prompt="",
        user_prompt="One line: a title for a story about {topic}.",
        experiment_name="titles",
    )
    good = []
    async for result in pipeline.stream(ideas(), concurrency_limit=4):
        if result["parsed"] and is_good(result["parsed"]):
            good.append(result["parsed"])
            print(f"{result['id']}: {result['parsed'].splitlines()[0]}")
        if len(good) == WANTED:
            break
    print(pipeline.status())


if __name__ == "__main__":
    asyncio.run(main())
