"""What a worker is to do, as one value: it comes whole out of its JSON, and can be shared out."""

import json
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_type_hints

from hypothesis import given
from hypothesis import strategies as st

from batchgen.config import Config, ModelConfig, Price, SentValue, ServerConfig
from batchgen.jobs.worker_process import WorkerTask
from batchgen.store import FailureLimit, Selection
from batchgen.worker.spec import ServerSpec, WorkSpec

counts = st.integers(1, 2**40)
seconds = st.floats(0, 1e8)
SOME: dict[Any, st.SearchStrategy[Any]] = {
    int: counts,
    float: seconds,
    bool: st.booleans(),
    tuple[int, ...]: st.lists(counts).map(tuple),
    str: st.text(st.characters(codec="utf-8")),
    FailureLimit: st.builds(FailureLimit, counts.map(float), st.booleans()),
    Selection: st.builds(Selection, st.none() | counts, counts, counts, counts),
    Path: st.text(st.characters(exclude_characters="\0", codec="utf-8")).map(Path),
    NoneType: st.none(),
}
SOME[tuple[ServerSpec, ...]] = st.lists(
    st.builds(ServerSpec, slots=st.none() | counts, rpm=st.none() | counts, name=SOME[str])
).map(tuple)


def of_type(hint: Any) -> st.SearchStrategy[Any]:
    kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    return st.one_of([SOME[kind] for kind in kinds])


specs = st.builds(
    WorkSpec, **{name: of_type(hint) for name, hint in get_type_hints(WorkSpec).items()}
)


@given(specs)
def test_it_comes_whole_out_of_its_json(spec: WorkSpec) -> None:
    assert WorkSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_a_task_comes_whole_out_of_its_json() -> None:
    larger, batch = (200_000, Price(2.0, 4.0, 1.0)), Price(0.5, 1.0, 0.25)
    price = Price(1.0, 2.0, 0.5, larger, batch)
    params = {"temperature": 0.5, "response_format": {"type": "json_object"}}
    spec = WorkSpec(concurrency=3, directory=Path("/here"))
    config = Config(
        model=ModelConfig(
            api_key="sk-secret", model="m", price=price, params=params,
            headers={"api-key": SentValue("k", {"KEY": "k"}), "Authorization": None},
            query={"api-version": SentValue("2024-10-21")},
            servers=(ServerConfig(base_url="http://a", api_key="b", price=price),),
        ),
        database=Path("/here/batchgen.db"), log_dir=Path("/here/logs"), directory=Path("/here"),
    )  # fmt: skip
    task = WorkerTask.of(spec, config, verbose=True)
    text = json.dumps(task.to_json())
    assert WorkerTask.from_json(json.loads(text)) == task


@given(st.integers(1, 200), st.none() | st.integers(1, 200), st.integers(1, 200))
def test_processes_share_all_slots_and_items(
    slots: int, max_items: int | None, processes: int
) -> None:
    parts = WorkSpec(concurrency=slots, max_items=max_items, until=7).split(processes)
    assert len(parts) == processes
    assert sum(part.concurrency for part in parts) == slots
    assert {part.until for part in parts} == {7}
    if max_items is None:
        assert {part.max_items for part in parts} == {None}
    else:
        assert sum(part.max_items or 0 for part in parts) == max_items


def test_processes_share_the_slots_of_each_server() -> None:
    servers = (ServerSpec(key="a", slots=5), ServerSpec(key="b"), ServerSpec(key="c", slots=3))
    parts = WorkSpec(concurrency=20, servers=servers).split(4)  # one would have none of c
    assert [[one.slots for one in part.servers] for part in parts] == [
        [2, None, 1], [2, None, 1], [1, None, 1]
    ]  # fmt: skip
    assert sum(part.concurrency for part in parts) == 20
