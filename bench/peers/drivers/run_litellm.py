"""litellm's batch_completion, as docs.litellm.ai/docs/completion/batching shows it: a list of
conversations, answered by a pool of threads."""

import json
import sys
from pathlib import Path

from litellm import batch_completion  # type: ignore[import-not-found]


def main(base_url: str, concurrency: int) -> None:
    template = Path("template.txt").read_text()
    items = [json.loads(line) for line in Path("pool.jsonl").read_text().splitlines()]
    answers = batch_completion(
        model="openai/gpt-4o-mini",
        messages=[[{"role": "user", "content": template.format(**item)}] for item in items],
        api_base=base_url,
        max_workers=concurrency,
    )
    texts = [a.choices[0].message.content for a in answers if not isinstance(a, Exception)]
    print("results:", sum(1 for text in texts if text))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
