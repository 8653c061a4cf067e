"""What most people write first: AsyncOpenAI with its defaults, a semaphore and gather, nothing
stored. Run by bench/client.py, in a process of its own."""

import asyncio
import json
import sys
from pathlib import Path

from openai import AsyncOpenAI

from bench.job import TEMPLATE


async def main(base_url: str, pool: str, slots: int) -> None:
    items = [json.loads(line) for line in Path(pool).read_text().splitlines()]
    free = asyncio.Semaphore(slots)
    async with AsyncOpenAI(api_key="sk-bench", base_url=base_url) as client:

        async def ask(item: dict[str, str]) -> str | None:
            async with free:
                completion = await client.chat.completions.create(
                    model="simulated",
                    messages=[{"role": "user", "content": TEMPLATE.format(**item)}],
                    max_tokens=1000,
                    temperature=0.7,
                )
            return completion.choices[0].message.content

        answers = await asyncio.gather(*(ask(item) for item in items))
    assert len([answer for answer in answers if answer]) == len(items)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
