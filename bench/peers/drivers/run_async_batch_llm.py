"""async-batch-llm, as the "Large Runs" page of its documentation shows it: a stream, and an SQLite
store to go on from. Its default API is OpenAI's Responses; this job is chat completions."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from async_batch_llm import (  # type: ignore[import-not-found]
    OpenAIErrorClassifier,
    OpenAIModel,
    OpenAIStrategy,
    ProcessorConfig,
    ResumePolicy,
    SqliteArtifactStore,
    process_stream,
)


async def prompts() -> AsyncIterator[tuple[str, str]]:
    template = Path("template.txt").read_text()
    with Path("pool.jsonl").open() as lines:  # noqa: ASYNC230  as its documentation does
        for number, line in enumerate(lines):
            yield str(number), template.format(**json.loads(line))


async def main(base_url: str, concurrency: int) -> None:
    model = OpenAIModel.from_api_key(
        "gpt-4o-mini",
        base_url=base_url,
        api_surface="chat_completions",
        max_connections=concurrency,
    )
    results = 0
    async for item in process_stream(
        OpenAIStrategy(model),
        prompts(),
        config=ProcessorConfig(
            concurrency=concurrency, max_queue_size=512, max_result_queue_size=512
        ),
        error_classifier=OpenAIErrorClassifier(),
        artifact_store=SqliteArtifactStore("results.sqlite"),
        resume=ResumePolicy.REUSE_SUCCESSES,
    ):
        results += bool(item.success)
    print("results:", results)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
