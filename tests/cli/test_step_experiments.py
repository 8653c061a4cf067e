"""Experiments with steps as a whole: listed, renamed, deleted, verified."""

import json

from tests.cli.test_steps import states, two_steps
from tests.kits.project import Project

__all__ = ["two_steps"]


async def test_an_experiment_is_listed_with_its_steps(two_steps: Project) -> None:
    await two_steps.batchgen("run", "pool.jsonl")
    listed = await two_steps.batchgen("experiments")
    assert listed.out.strip().endswith("total 3, ended 3, failed 0; steps draft, critique")
    (demo,) = json.loads((await two_steps.batchgen("experiments", "--json")).out)
    assert (demo["items"], demo["ended"], len(demo["steps"])) == (3, 3, 2)
    assert (await two_steps.batchgen("verify")).out == (
        "All is well: 3 items with 6 rows of their steps, 6 done, each with its answer.\n"
    )


async def test_it_is_renamed_and_deleted_with_its_steps(two_steps: Project) -> None:
    await two_steps.batchgen("run", "pool.jsonl")
    for one in ("demo/critique", "demo/draft"):
        told = await two_steps.batchgen("experiments", "rename", one, "other")
        assert (told.code, told.err) == (
            2, f"error: {one} is a step; name the experiment of which it is one.\n",
        )  # fmt: skip
        told = await two_steps.batchgen("experiments", "delete", one, "--yes")
        assert told.code == 2
    await two_steps.batchgen("experiments", "rename", "demo", "other")
    assert two_steps.query("select name from experiments order by id") == [
        ("other",), ("other/critique",),
    ]  # fmt: skip
    assert (await two_steps.batchgen("status", "--experiment", "other/critique")).code == 0
    told = await two_steps.batchgen("experiments", "delete", "other", "--yes")
    assert told.out == "Deleted other: 3 items with 6 rows of their steps, 6 answered.\n"
    assert states(two_steps) == {}
    assert (await two_steps.batchgen("verify")).code == 0
