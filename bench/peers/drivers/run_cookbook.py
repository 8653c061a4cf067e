"""The OpenAI cookbook's script with its defaults, but for the rate limits, which it cannot be
without, and a file of requests made here from the pool.

It takes the API's name out of an https URL only, and the server here speaks plain HTTP: that one
function is replaced. It has no setting for concurrency; it starts at most one request a
millisecond.
"""

import asyncio
import importlib.util
import json
import logging
import os
import sys
from pathlib import Path


def main(base_url: str, script: str) -> None:
    spec = importlib.util.spec_from_file_location("cookbook", script)
    assert spec is not None
    assert spec.loader is not None
    cookbook = importlib.util.module_from_spec(spec)
    sys.modules["cookbook"] = cookbook  # its dataclasses look themselves up there
    spec.loader.exec_module(cookbook)
    vars(cookbook)["api_endpoint_from_url"] = lambda _url: "chat/completions"
    write_requests()
    asyncio.run(
        cookbook.process_api_requests_from_file(
            requests_filepath="requests.jsonl",
            save_filepath="results.jsonl",
            request_url=f"{base_url}/chat/completions",
            api_key=os.environ["OPENAI_API_KEY"],
            max_requests_per_minute=1_000_000.0,
            max_tokens_per_minute=10_000_000_000.0,
            token_encoding_name="cl100k_base",
            max_attempts=5,
            logging_level=logging.INFO,
        )
    )
    with Path("results.jsonl").open() as results:
        print("results:", sum(1 for _ in results))


def write_requests() -> None:
    template = Path("template.txt").read_text()
    with Path("requests.jsonl").open("w") as requests:
        for line in Path("pool.jsonl").read_text().splitlines():
            content = template.format(**json.loads(line))
            request = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": content}]}
            requests.write(json.dumps(request) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
