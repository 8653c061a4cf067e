"""Five short texts, from Python: a list of items in, a list of results out.

    python example/generate_drafts.py               # with OPENAI_API_KEY, or your own base_url
    python example/generate_drafts.py --simulate    # on the built-in model: no key, no network

Stop it any way you like and run it again: it goes on where it stopped, and what is answered is not
asked for again.
"""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from batchgen import DataGenerationPipeline

ROOT = Path(__file__).resolve().parent.parent

DATA_POOL = [
    {
        "user_prompt_kwargs": {"topic": topic, "word_count": word_count},
        "system_prompt_kwargs": {"tone": tone},
    }
    for topic, word_count, tone in [
        ("人工智能", "100字", "专业"),
        ("机器学习", "150字", "通俗易懂"),
        ("数据科学", "200字", "学术"),
        ("深度学习", "180字", "简洁"),
        ("自然语言处理", "160字", "技术性"),
    ]
]


async def main() -> None:
    pipeline = DataGenerationPipeline(
        temperature=0.9,
        max_tokens=2048,
        system_prompt_path=str(ROOT / "prompts/system_prompts/default.txt"),
        user_prompt_path=str(ROOT / "prompts/user_prompts/default.txt"),
        output_data={
            "output_dir": "output",
            "experiment_name": "demo_test",
            "need_time_stamp": True,
        },
        need_time_stamp=False,  # a leaf given by name wins over its section
    )
    results = await pipeline.run(
        DATA_POOL,
        concurrency_limit=5,
        extract_function=pipeline.make_default_extractor(pattern_name="draft"),
    )
    for result in results:
        print(topic_of(result), "->", result["parsed"] or result["error"])
    print(f"written to {pipeline.experiment_path}")


def topic_of(result: dict[str, Any]) -> str:
    return str(result["input"]["user_prompt_kwargs"]["topic"])


async def main_on_simulated_model() -> None:
    from batchgen.simulate import Simulator

    async with Simulator(latency="0.2").running() as url:
        os.environ["BATCHGEN_MODEL_BASE_URL"] = url
        os.environ["BATCHGEN_MODEL_API_KEY"] = "simulated"
        await main()


if __name__ == "__main__":
    asyncio.run(main_on_simulated_model() if "--simulate" in sys.argv[1:] else main())
