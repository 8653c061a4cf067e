"""Files and batches of the simulated model, through the client of OpenAI."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from openai import AsyncOpenAI
from openai.types import Batch

from batchgen.simulate import Simulator

CHAT: Any = "/v1/chat/completions"


@asynccontextmanager
async def served(simulator: Simulator, key: str = "sk-x") -> AsyncIterator[AsyncOpenAI]:
    async with (
        simulator.running() as url,
        AsyncOpenAI(base_url=url, api_key=key, max_retries=0) as client,
    ):
        yield client


def line(custom_id: str, text: str = "hi", url: str = CHAT, **body: Any) -> dict[str, Any]:
    asked = {"messages": [{"role": "user", "content": text}]} if url == CHAT else {}
    whole = {"model": "m-1", **asked, **body}
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": whole}


def jsonl(lines: Iterable[Any]) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in lines)


async def upload(client: AsyncOpenAI, content: bytes, name: str = "in.jsonl") -> str:
    return (await client.files.create(file=(name, content), purpose="batch")).id


async def begin(
    client: AsyncOpenAI, content: bytes, url: Any = CHAT, metadata: dict[str, str] | None = None
) -> Batch:
    file_id = await upload(client, content)
    return await client.batches.create(
        input_file_id=file_id, endpoint=url, completion_window="24h", metadata=metadata
    )


async def ended(client: AsyncOpenAI, batch: Batch) -> Batch:
    async with asyncio.timeout(60):
        while batch.status not in ("completed", "failed", "expired", "cancelled"):
            batch = await client.batches.retrieve(batch.id)
    return batch


async def rows(client: AsyncOpenAI, file_id: str | None) -> list[Any]:
    if file_id is None:
        return []
    content = (await client.files.content(file_id)).content
    assert content.endswith(b"\n")
    return [json.loads(one) for one in content[:-1].split(b"\n")]
