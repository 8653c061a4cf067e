"""The plain loop: AsyncOpenAI as it comes, a semaphore and gather; nothing is stored."""

import asyncio
import json
import sys
from pathlib import Path

from openai import AsyncOpenAI


async def main(base_url: str, concurrency: int) -> None:
    template = Path("template.txt").read_text()
    items = [json.loads(line) for line in Path("pool.jsonl").read_text().splitlines()]
    free = asyncio.Semaphore(concurrency)
    async with AsyncOpenAI(base_url=base_url) as client:

        async def ask(item: dict[str, str]) -> str | None:
            async with free:
                completion = await client.chat.completions.create(
                    model="gpt-4o-mini",
                    messages=[{"role": "user", "content": template.format(**item)}],
                )
            return completion.choices[0].message.content

        answers = await asyncio.gather(*(ask(item) for item in items))
    print("results:", sum(1 for answer in answers if answer))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
