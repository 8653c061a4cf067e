"""What users may write, and what a type checker tells them not to. Nobody runs this: mypy reads it
as it does all tests, and an error that it does not find makes the comment that ignores it one."""

from typing import Any

import batchgen
from batchgen import DataGenerationPipeline


def extract(text: str) -> int:
    return len(text)


async def right() -> None:
    pipeline = DataGenerationPipeline(temperature=0.9, output_data={"experiment_name": "x"})
    results: list[dict[str, Any]] = await pipeline.run([{"a": 1}], 5, extract, until=3)
    results = pipeline.run_sync([{"a": 1}], concurrency_limit=5, samples=2)
    async for result in pipeline.stream("pool.jsonl", recipe="again"):
        print(result["parsed"])
    print((await pipeline.status()).done, pipeline.retry("parse").retried, len(results))


def wrong() -> None:
    pipeline = DataGenerationPipeline(temprature=0.9)  # type: ignore[call-arg]
    pipeline.run_sync([], nonsense=3)  # type: ignore[call-arg]
    pipeline.run_sync([], recipe="mix")  # type: ignore[arg-type]
    pipeline.stream([], until="3")  # type: ignore[arg-type]
    pipeline.retry(reson="parse")  # type: ignore[call-arg]
    batchgen.DataGenerationPipline()  # type: ignore[attr-defined]
