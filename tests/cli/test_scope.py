"""Which experiments `work` works on, and what it says of the others."""

from collections.abc import Callable, Iterator
from typing import Any

from batchgen.simulate import Simulator
from tests.kits.project import Project

Words = Callable[[int], Iterator[dict[str, Any]]]


async def enqueued(project: Project, words: Words, **items: int) -> None:
    for experiment, n in items.items():
        project.pool(words(n))
        done = await project.batchgen("enqueue", "pool.jsonl", "--experiment", experiment)
        assert done.code == 0, done.err


def done_in(project: Project) -> dict[str, int]:
    rows = project.query(
        "select e.name, count(*) from work w join experiments e on e.id = w.experiment_id"
        " where w.state = 'done' group by 1 order by 1"
    )
    return dict(rows)


async def test_work_is_on_the_experiment_of_the_config(
    project: Project, simulator: Simulator, words: Words
) -> None:
    await enqueued(project, words, answers=3, scores=2)
    project.config("output_data: {experiment_name: scores}\n")
    assert (await project.batchgen("work")).code == 0
    assert done_in(project) == {"scores": 2}
    assert simulator.calls == 2


async def test_several_experiments_or_all_are_named(project: Project, words: Words) -> None:
    await enqueued(project, words, a=1, b=1, c=1, d=1)
    assert (await project.batchgen("work", "--experiment", "a", "--experiment", "b")).code == 0
    assert done_in(project) == {"a": 1, "b": 1}
    assert (await project.batchgen("work", "--all")).code == 0
    assert done_in(project) == {"a": 1, "b": 1, "c": 1, "d": 1}
    both = await project.batchgen("work", "--all", "--experiment", "a")
    assert (both.code, both.err) == (
        2, "error: --all: are all of them, so it does not go with --experiment.\n",
    )  # fmt: skip


async def test_with_nothing_left_it_says_where_there_is_something(
    project: Project, simulator: Simulator, words: Words
) -> None:
    await enqueued(project, words, default=1, other=4, third=2)
    await project.batchgen("work")
    again = await project.batchgen("work")
    assert again.code == 0
    assert again.err.endswith(
        "warning: nothing was left to do in experiment 'default'; other has 4 open, third has 2 "
        "open. Choose with --experiment, or take --all.\n"
    )
    assert simulator.calls == 1


async def test_an_experiment_that_is_not_there_is_refused_with_what_waits(
    project: Project, words: Words
) -> None:
    await enqueued(project, words, other=4)
    refused = await project.batchgen("work")
    assert (refused.code, refused.err) == (
        2,
        f"error: {project.database}: no experiment 'default'; other has 4 open. "
        "Choose with --experiment, or take --all.\n",
    )
