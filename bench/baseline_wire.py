"""The floor: the same pool over raw aiohttp with stdlib json, a semaphore and gather, nothing
stored. Run by bench/client.py, in a process of its own."""

import asyncio
import json
import sys
from pathlib import Path
from time import time_ns

import aiohttp

from bench.job import TEMPLATE


async def main(base_url: str, pool: str, slots: int, times: str = "") -> None:
    """Ask for every item; `times` names a file for when each answer came, in ms since 1970."""
    items = [json.loads(line) for line in Path(pool).read_text().splitlines()]
    free = asyncio.Semaphore(slots)
    finished_at: list[int] = []
    connector = aiohttp.TCPConnector(limit=slots)
    headers = {"authorization": "Bearer sk-bench", "content-type": "application/json"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

        async def ask(item: dict[str, str]) -> str:
            async with free:
                body = {
                    "model": "simulated",
                    "messages": [{"role": "user", "content": TEMPLATE.format(**item)}],
                    "max_tokens": 1000,
                    "temperature": 0.7,
                }
                url = f"{base_url}/chat/completions"
                async with session.post(url, data=json.dumps(body).encode()) as response:
                    response.raise_for_status()
                    answer = json.loads(await response.read())
                finished_at.append(time_ns() // 1_000_000)
                return str(answer["choices"][0]["message"]["content"])

        answers = await asyncio.gather(*(ask(item) for item in items))
    assert len(answers) == len(items)
    if times:
        Path(times).write_text(json.dumps(finished_at))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), *sys.argv[4:]))
