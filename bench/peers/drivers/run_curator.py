"""Curator, as its README shows it for OpenAI-compatible servers. Its cache, in CURATOR_CACHE_DIR,
is what it goes on from."""

import json
import sys
from pathlib import Path

from bespokelabs import curator  # type: ignore[import-not-found]

TEMPLATE = Path("template.txt").read_text()


class Writer(curator.LLM):  # type: ignore[misc]
    def prompt(self, item: dict[str, str]) -> str:
        return TEMPLATE.format(**item)

    def parse(self, item: dict[str, str], response: str) -> dict[str, str]:
        return {**item, "draft": response}


def main(base_url: str, concurrency: int) -> None:
    items = [json.loads(line) for line in Path("pool.jsonl").read_text().splitlines()]
    writer = Writer(
        model_name="gpt-4o-mini",
        backend="openai",
        backend_params={
            "base_url": base_url,
            "max_concurrent_requests": concurrency,
            "max_requests_per_minute": 1_000_000,
            "max_tokens_per_minute": 10_000_000_000,
        },
    )
    print("results:", len(writer(items).dataset))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
