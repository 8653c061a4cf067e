"""When no request would work: a handful of calls, untouched items, and words that help."""

from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from batchgen.simulate import Behaviour, Simulator
from batchgen.store.trial import MOST_CALLS
from tests.kits.project import KEY, Project
from tests.kits.typist import Ended

ITEMS = 200
HANDFUL = 8
WRONG_KEY = Behaviour.error(401, message="Incorrect API key", code="invalid_api_key")
NO_CREDIT = Behaviour.error(
    429,
    message="You exceeded your current quota, please check your plan and billing details.",
    code="insufficient_quota",
)
CASES = [
    (
        WRONG_KEY,
        "the server does not accept the API key. Check model.api_key (or OPENAI_API_KEY), "
        "or the key in model.headers. "
        "The server said: 401 Incorrect API key",
    ),
    (
        Behaviour.error(403, message="Country not supported", code="request_forbidden"),
        "the API key may not do this. Check the key's permissions, project and region. "
        "The server said: 403 Country not supported",
    ),
    (
        Behaviour.error(402, message="Insufficient Balance"),
        "quota or credit is used up. Add credit with your provider. "
        "The server said: 402 Insufficient Balance",
    ),
    (
        NO_CREDIT,
        "quota or credit is used up. Add credit with your provider. The server said: "
        "429 You exceeded your current quota, please check your plan and billing details.",
    ),
    (
        Behaviour.error(404, message="The model `x` does not exist", code="model_not_found"),
        "the server does not know the model. Check model.model and model.base_url. "
        "The server said: 404 The model `x` does not exist. A change of the model or its "
        "parameters is taken by run or enqueue with --recipe replace.",
    ),
    (
        Behaviour.redirect("https://elsewhere.invalid/v1/chat/completions", 301),
        "the server sends us elsewhere. Set model.base_url to the real place. "
        "The server said: 301 redirects to https://elsewhere.invalid/v1/chat/completions",
    ),
]


def words(n: int = ITEMS) -> list[dict[str, str]]:
    return [{"word": f"w{number}"} for number in range(n)]


def assert_nothing_holds_the_key(project: Project, *runs: Ended) -> None:
    for run in runs:
        assert KEY not in run.out + run.err
    for file in project.path.rglob("*"):
        if file.is_file() and file.name != "config.yaml":
            assert KEY.encode() not in file.read_bytes(), file


@pytest.mark.quick("0.2")
@pytest.mark.parametrize("delay_s", [0.0, 0.2])
@pytest.mark.parametrize(("said", "shown"), CASES)
async def test_a_halt_costs_a_handful_of_calls_and_no_item_anything(
    project: Project, simulator: Simulator, said: Behaviour, shown: str, delay_s: float
) -> None:
    simulator.script("Say", *[replace(said, delay_s=delay_s)] * ITEMS)
    project.pool(words())
    halted = await project.batchgen("run", "pool.jsonl", "-c", "100")
    assert halted.code == 4
    assert (
        f"halted: {shown}\n"
        f"Nothing is lost: {ITEMS} items wait. Fix that, then run the same command again.\n"
    ) in halted.err
    assert 1 <= simulator.calls <= HANDFUL
    assert project.query("select state, tries, count(*) from work group by 1, 2 order by 1, 2") == [
        ("pending", 0, ITEMS)
    ]
    assert project.query("select count(*) from results") == [(0,)]
    # What the calls brought is kept all the same.
    assert project.query("select count(*) from attempts where outcome = 'failed'") == [
        (simulator.calls,)
    ]
    assert not (project.path / "output").exists()


async def test_with_the_right_key_the_same_command_does_the_rest(project: Project) -> None:
    async with Simulator(api_key="sk-the-right-one-0123").running() as url:
        project.base_url = url
        project.config()
        project.pool(words(20))
        halted = await project.batchgen("run", "pool.jsonl")
        project.config(api_key="sk-the-right-one-0123")
        mended = await project.batchgen("run", "pool.jsonl")
    assert (halted.code, mended.code) == (4, 0), mended.err
    assert project.query("select state, tries, count(*) from work group by 1, 2 order by 1, 2") == [
        ("done", 1, 20)
    ]
    assert_nothing_holds_the_key(project, halted, mended)


async def test_the_key_is_not_shown_though_the_server_repeats_it(
    project: Project, simulator: Simulator
) -> None:
    said = Behaviour.error(401, message=f"Incorrect API key provided: {KEY}.")
    simulator.script("Say", *[said] * 10)
    project.pool(words(2))
    halted = await project.batchgen("-v", "run", "pool.jsonl")
    assert "The server said: 401 Incorrect API key provided: [API key]." in halted.err
    shown = await project.batchgen("show", "1")
    status = await project.batchgen("status", "--json")
    assert_nothing_holds_the_key(project, halted, shown, status)


async def test_a_key_that_is_withdrawn_in_the_middle_loses_no_answer(
    project: Project, simulator: Simulator
) -> None:
    simulator.script("Say", *[Behaviour.ok(delay_s=0.05)] * 60, *[WRONG_KEY] * ITEMS)
    project.pool(words())
    halted = await project.batchgen("run", "pool.jsonl", "-c", "10")
    assert halted.code == 4
    assert "halted: the server does not accept the API key. Check model.api_key" in halted.err
    assert "different items got this, and nothing was answered meanwhile. The" in halted.err
    assert simulator.calls - 60 <= MOST_CALLS
    assert project.query("select state, tries, count(*) from work group by 1, 2 order by 1, 2") == [
        ("done", 1, 60),
        ("pending", 0, ITEMS - 60),
    ]
    async with Simulator().running() as url:
        project.config(base_url=url)
        assert (await project.batchgen("run", "pool.jsonl", "-c", "10")).code == 0
    assert project.query("select count(*) from attempts where outcome = 'answered'") == [(ITEMS,)]


async def test_a_halt_waits_for_the_answers_in_flight(
    project: Project, simulator: Simulator
) -> None:
    simulator.script("Say w0", WRONG_KEY)
    simulator.script("Say", *[Behaviour.ok(delay_s=1.0)] * 3)
    project.pool(words(4))
    halted = await project.batchgen("run", "pool.jsonl", "-c", "4")
    states = project.query("select state from work order by item_id")
    assert (halted.code, states[0]) == (4, ("pending",))
    assert states.count(("done",)) == simulator.calls - 1


async def test_status_tells_after_a_halt_what_waits(project: Project, simulator: Simulator) -> None:
    simulator.script("Say", *[NO_CREDIT] * 10)
    project.pool(words(5))
    await project.batchgen("run", "pool.jsonl")
    total = (await project.batchgen("status", "--json")).json["total"]
    assert (total["pending"], total["done"], total["failed"]) == (5, 0, 0)
    assert (total["calls"], total["unknown_calls"]) == (simulator.calls, 0)


AZURE_KEY = "azure-key-0123456789"


@pytest.fixture
async def azure() -> AsyncIterator[Simulator]:
    simulator = Simulator(api_key=AZURE_KEY)
    async with simulator.running():
        yield simulator


def deployment_of(azure: Simulator) -> str:
    return f"http://{azure.host}:{azure.port}/openai/deployments/mine"


async def test_a_deployment_of_azure_is_asked_as_azure_wants_it(
    project: Project, azure: Simulator
) -> None:
    project.base_url = deployment_of(azure)
    project.env |= {"OPENAI_API_KEY": KEY, "AZURE_OPENAI_API_KEY": AZURE_KEY}
    headers, query = {"api-key": "${AZURE_OPENAI_API_KEY}"}, {"api-version": "2024-10-21"}
    project.config(api_key=None, headers=headers, query=query)
    project.pool(words(3))
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    assert not any("Authorization" in request.headers for request in azure.requests)
    assert {request.query["api-version"] for request in azure.requests} == {"2024-10-21"}


@pytest.mark.parametrize(
    ("query", "behaviour", "said"),
    [
        ({}, None, "model.query has its api-version, for example {api-version: 2024-10-21}"),
        (
            {"api-version": "2020-01-01"},
            Behaviour.error(400, message="API version not supported", code="BadRequest"),
            "the server wants an API version that it knows. Set model.query, for example",
        ),
    ],
)
async def test_a_version_that_is_missing_or_not_known_is_named(
    project: Project,
    azure: Simulator,
    query: dict[str, str],
    behaviour: Behaviour | None,
    said: str,
) -> None:
    project.base_url = deployment_of(azure)
    if behaviour is not None:
        azure.script("Say", *[behaviour] * ITEMS)
    project.config(headers={"api-key": AZURE_KEY}, query=query)
    project.pool(words())
    halted = await project.batchgen("run", "pool.jsonl", "-c", "50")
    assert halted.code == 4
    assert said in " ".join(halted.err.split())
    assert azure.calls <= 20


async def test_a_header_whose_variable_is_not_set_is_named_before_any_call(
    project: Project, simulator: Simulator
) -> None:
    project.config(headers={"api-key": "${AZURE_OPENAI_API_KEY}"})
    project.pool(words(3))
    refused = await project.batchgen("run", "pool.jsonl")
    assert refused.code == 2
    problem = "model.headers.api-key: the environment variable AZURE_OPENAI_API_KEY is not set."
    assert f"error: {problem}\n" in refused.err
    assert simulator.calls == 0
    assert (await project.batchgen("status")).code == 0  # needs no key
