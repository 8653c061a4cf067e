"""What users may write, and what a type checker tells them not to. Nobody runs this: mypy reads it
as it does all tests, and an error that it does not find makes the comment that ignores it one."""

from typing import Any

import batchgen
from batchgen import DataGenerationPipeline, Step


def extract(text: str) -> int:
    return len(text)


async def right() -> None:
    pipeline = DataGenerationPipeline(temperature=0.9, output_data={"experiment_name": "x"})
    results: list[dict[str, Any]] = await pipeline.run([{"a": 1}], 5, extract, until=3)
    results = pipeline.run_sync([{"a": 1}], concurrency_limit=5, samples=2)
    async for result in pipeline.stream("pool.jsonl", recipe="again"):
        print(result["parsed"])
    print((await pipeline.status()).done, pipeline.retry("parse").retried, len(results))


def right_steps() -> None:
    draft = Step("draft", user="Write of {topic}", parser=extract, temperature=1, top_p=0.9)
    best = Step("best", gather="drafts", function=lambda item, values: values["drafts"][0])
    pipeline = DataGenerationPipeline(steps=[draft, best], result=["best"])
    print(pipeline.status(step="draft").steps[0].stale, pipeline.retry(stale=True).waiting)
    pipeline.export("good.csv", step="draft", where="draft > 3")


def wrong_steps() -> None:
    Step("draft", usr="x")  # type: ignore[call-arg]
    Step("draft", otherwise="stop")  # type: ignore[arg-type]
    Step("draft", conversation="yes")  # type: ignore[arg-type]
    DataGenerationPipeline(steps=["draft"])  # type: ignore[list-item]
    DataGenerationPipeline().retry(stale="yes")  # type: ignore[arg-type]


def wrong() -> None:
    pipeline = DataGenerationPipeline(temprature=0.9)  # type: ignore[call-arg]
    pipeline.run_sync([], nonsense=3)  # type: ignore[call-arg]
    pipeline.run_sync([], recipe="mix")  # type: ignore[arg-type]
    pipeline.stream([], until="3")  # type: ignore[arg-type]
    pipeline.retry(reson="parse")  # type: ignore[call-arg]
    batchgen.DataGenerationPipline()  # type: ignore[attr-defined]
