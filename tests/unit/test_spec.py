"""What a worker is to do, as one value: it comes whole out of its JSON."""

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from batchgen.limits import Limits
from batchgen.llm.decide import RetryPolicy
from batchgen.store import Budget
from batchgen.worker import WorkSpec

counts = st.integers(1, 2**40)
seconds = st.floats(0, 1e8)
experiments = st.none() | st.lists(counts).map(tuple)
budgets = st.builds(Budget, experiments, st.none() | st.floats(0, 1e9), st.none() | counts)
specs = st.builds(
    WorkSpec,
    slots=counts,
    experiments=experiments,
    limits=st.builds(Limits, st.none() | counts, st.none() | counts, st.booleans()),
    budget=st.none() | budgets,
    max_items=st.none() | counts,
    until=st.none() | counts,
    wait_for_more=st.booleans(),
    hedge=st.booleans(),
    retry_policy=st.builds(RetryPolicy, counts, counts),
    timeout_s=seconds,
    parse_timeout_s=seconds,
    parse_feedback=st.booleans(),
    stall_s=seconds,
    grace_s=seconds,
    lease_s=seconds,
    patience_s=seconds,
    max_answer_tokens=st.none() | counts,
    directory=st.text(st.characters(exclude_characters="\0", codec="utf-8")).map(Path),
)


@given(specs)
def test_it_comes_whole_out_of_its_json(spec: WorkSpec) -> None:
    assert WorkSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
