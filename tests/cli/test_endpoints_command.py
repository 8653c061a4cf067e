"""Jobs at the other endpoints, from the pool to the export, by commands."""

import json
from typing import Any

import pyarrow.parquet as pq
import pytest

from batchgen.simulate import Behaviour, Simulator
from tests.kits.database import is_untouched
from tests.kits.project import Project


def line(number: int, url: str, **body: Any) -> dict[str, Any]:
    return {"custom_id": f"r{number}", "method": "POST", "url": url, "body": body}


WORDS = [{"word": f"w{number}", "id": f"i{number}"} for number in range(4)]


async def test_responses_are_asked_parsed_and_exported(
    project: Project, simulator: Simulator
) -> None:
    schema = {"type": "object", "properties": {"mood": {"enum": ["calm"]}}, "required": ["mood"]}
    project.write("schema.json", json.dumps(schema))
    project.config(
        "parser: json_schema:schema.json\nstructured_output: true\n",
        endpoint="responses", max_tokens=500, reasoning={"summary": "auto"},
        price={"input_usd_per_mtok": 1, "output_usd_per_mtok": 10},
    )  # fmt: skip
    project.write("prompts/system_prompts/default.txt", "Be calm.")
    project.pool(WORDS)
    dry = await project.batchgen("enqueue", "pool.jsonl", "--dry-run")
    assert dry.out.endswith("\n\ninstructions:\nBe calm.\n\ninput:\nSay w0\n")
    assert "2,000 out (at most, by max_tokens)" in dry.out
    ran = await project.batchgen("run", "pool.jsonl", "--max-cost", "1")
    assert ran.code == 0, ran.err
    await project.batchgen("export", "-o", "out.jsonl", "--with", "reasoning")
    request = simulator.requests[0]
    assert (request.path, request.body["instructions"]) == ("/v1/responses", "Be calm.")
    assert request.body["max_output_tokens"] == 500
    assert request.body["text"]["format"]["schema"] == schema
    assert request.body["store"] is request.body["stream"] is False
    rows = [json.loads(text) for text in (project.path / "out.jsonl").read_text().splitlines()]
    assert [row["parsed"] for row in rows] == [{"mood": "calm"}] * 4
    assert {row["finish_reason"] for row in rows} == {"completed"}
    assert rows[0]["reasoning"] == "I looked at what was asked."
    assert rows[0]["cost_usd"] > 0
    shown = (await project.batchgen("show", "i0", "--json")).json
    assert shown["endpoint"] == "responses"
    status = await project.batchgen("status")
    assert "\ndefault: asked at the endpoint responses\n" in status.out
    (told,) = (await project.batchgen("status", "--json")).json["experiments"]
    assert told["endpoint"] == "responses"
    assert shown["prompt"] == {"instructions": "Be calm.", "input": "Say w0"}


async def test_a_response_that_was_cut_off_is_asked_again_with_more_room(
    project: Project, simulator: Simulator
) -> None:
    project.config("parser: tag:x\n", endpoint="responses", max_tokens=50)
    project.write("prompts/user_prompts/default.txt", "Say {word} in <x>")
    project.pool(WORDS[:1])
    simulator.script("w0", "length")
    assert (await project.batchgen("run", "pool.jsonl")).code == 3
    told = await project.batchgen("failures")
    assert "batchgen retry --reason truncated --set max_tokens=100" in told.out
    await project.batchgen("retry", "--reason", "truncated", "--set", "max_tokens=100")
    assert (await project.batchgen("work")).code == 0
    asked = [request.body["max_output_tokens"] for request in simulator.requests]
    assert asked == [50, 100]


async def test_an_embedding_is_a_vector_in_each_format(project: Project) -> None:
    project.config(endpoint="embeddings", dimensions=3, price={
        "input_usd_per_mtok": 1, "output_usd_per_mtok": 0,
    })  # fmt: skip
    project.pool(WORDS)
    dry = await project.batchgen("enqueue", "pool.jsonl", "--dry-run")
    assert "\nEstimated: 8 tokens in: $0.0000\n\ninput:\nSay w0\n" in dry.out
    short = await project.batchgen("run", "pool.jsonl", "--max-tokens-total", "3")
    assert "0 of 3 tokens are spent, and the next call may need 58. Raise" in short.err
    ran = await project.batchgen("run", "pool.jsonl", "--max-cost", "1", "-o", "out.jsonl")
    assert ran.code == 0, ran.err
    rows = [json.loads(text) for text in (project.path / "out.jsonl").read_text().splitlines()]
    vectors = [row["parsed"] for row in rows]
    assert all(len(vector) == 3 and isinstance(vector[0], float) for vector in vectors)
    assert len(set(map(str, vectors))) == 4
    assert {row["response"] for row in rows} == {""}
    assert rows[0]["usage"] == {"prompt_tokens": 2, "completion_tokens": 0}
    assert rows[0]["cost_usd"] == pytest.approx(2e-6)
    for name in ("out.parquet", "out.csv"):
        assert (await project.batchgen("export", "-o", name)).code == 0
    await project.batchgen("export", "--format", "openai-batch", "-o", "batch.jsonl")
    table = pq.read_table(project.path / "out.parquet")
    assert str(table.schema.field("parsed").type) == "list<element: double>"
    assert table.column("parsed").to_pylist() == vectors
    assert json.dumps(vectors[0]) in (project.path / "out.csv").read_text().replace('"', "")
    first = json.loads((project.path / "batch.jsonl").read_text().splitlines()[0])
    assert first["response"]["body"]["data"][0]["embedding"] == vectors[0]
    assert (await project.batchgen("verify")).code == 0
    stored = project.query("select count(vector), count(nullif(response, '')) from attempts")
    assert stored == [(4, 0)]


async def test_to_read_embeddings_again_changes_none_of_them(project: Project) -> None:
    project.config(endpoint="embeddings")
    project.pool(WORDS)
    await project.batchgen("run", "pool.jsonl", "-o", "out.jsonl")
    before = (project.path / "out.jsonl").read_text()
    again = await project.batchgen("reparse", "--all", "--parser", "json")
    assert (again.code, "4 unchanged" in again.out) == (0, True), again
    await project.batchgen("export", "-o", "out.jsonl")
    assert (project.path / "out.jsonl").read_text() == before


async def test_what_has_no_place_for_an_embedding_says_so(project: Project) -> None:
    project.config(endpoint="embeddings")
    project.pool(WORDS)
    await project.batchgen("run", "pool.jsonl")
    for name in ("messages", "alpaca", "sharegpt"):
        refused = await project.batchgen("export", "--format", name, "-o", "-")
        assert refused.code == 2
        assert f"item 1: {name} has no place for an embedding. Leave the item out" in refused.err


async def test_a_completion_continues_the_users_text(
    project: Project, simulator: Simulator
) -> None:
    project.config(endpoint="completions", max_tokens=9)
    project.pool(WORDS[:1])
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    (request,) = simulator.requests
    assert (request.path, request.body["prompt"]) == ("/v1/completions", "Say w0")
    (row,) = project.export()
    assert row["response"].startswith('You wrote "Say w0".')
    await project.batchgen("export", "--format", "alpaca", "-o", "out.jsonl")
    told = json.loads((project.path / "out.jsonl").read_text())
    assert (told["instruction"], told["output"]) == ("Say w0", row["response"])


async def test_lines_of_a_batch_go_where_their_urls_say(
    project: Project, simulator: Simulator
) -> None:
    project.config(temperature=0.5, max_tokens=9)
    messages = [{"role": "user", "content": "chat"}]
    project.pool([
        line(1, "/v1/chat/completions", model="a", messages=messages),
        line(2, "/v1/responses", input="hello", instructions="Be calm."),
        line(3, "/v1/completions", prompt="once"),
        line(4, "/v1/embeddings", input=["one", "two"], model="e"),
    ])  # fmt: skip
    ran = await project.batchgen("run", "pool.jsonl", "-c", "1")
    assert ran.code == 0, ran.err
    await project.batchgen("export", "--format", "openai-batch", "-o", "out.jsonl")
    asked = [(one.path.removeprefix("/v1"), one.body.get("model")) for one in simulator.requests]
    assert asked == [
        ("/chat/completions", "a"), ("/responses", "simulated"),
        ("/completions", "simulated"), ("/embeddings", "e"),
    ]  # fmt: skip
    assert simulator.requests[3].body == {"model": "e", "input": ["one", "two"]}
    rows = [json.loads(text) for text in (project.path / "out.jsonl").read_text().splitlines()]
    bodies = {row["custom_id"]: row["response"]["body"] for row in rows}
    assert [bodies[f"r{number}"]["object"] for number in (1, 2, 3, 4)] == [
        "chat.completion", "response", "text_completion", "list",
    ]  # fmt: skip
    assert len(bodies["r4"]["data"]) == 2
    refused = await project.batchgen("export", "--format", "messages", "-o", "-")
    assert "item 2: messages has no place for a request line without messages." in refused.err


async def test_a_line_for_another_endpoint_is_refused_by_its_place(project: Project) -> None:
    project.pool([line(1, "/v1/moderations", input="x")])
    refused = await project.batchgen("enqueue", "pool.jsonl")
    assert refused.code == 2
    assert "pool.jsonl:1: url must be one of /v1/chat/completions, " in refused.err


@pytest.mark.parametrize(
    ("model", "text", "words"),
    [
        ({"endpoint": "responses", "echo": True, "functions": []}, "",
         "model.functions, model.echo: the endpoint responses has no such parameter. Leave it out"),
        ({"endpoint": "embeddings", "temperature": 1}, "", "model.temperature: the endpoint embe"),
        ({"max_output_tokens": 5}, "", "chat has no such parameter (it is max_tokens there)"),
        ({"endpoint": "embeddings"}, "parser: json\n", "parser: must be raw, not 'json': an"),
        ({"endpoint": "Chat"}, "", "model.endpoint: must be one of chat, responses, completions"),
    ],
)  # fmt: skip
async def test_what_an_endpoint_does_not_take_is_refused_before_anything_is_enqueued(
    project: Project, model: dict[str, Any], text: str, words: str
) -> None:
    project.config(text, **model)
    project.pool(WORDS)
    refused = await project.batchgen("enqueue", "pool.jsonl")
    assert (refused.code, words in refused.err) == (2, True), refused
    assert is_untouched(project.database)


async def test_another_endpoint_is_another_recipe(project: Project) -> None:
    project.pool(WORDS)
    await project.batchgen("enqueue", "pool.jsonl")
    project.config(endpoint="responses")
    refused = await project.batchgen("enqueue", "pool.jsonl")
    assert "with another recipe: endpoint chat -> responses." in refused.err


async def test_what_is_no_vector_is_asked_again(project: Project, simulator: Simulator) -> None:
    project.config("work: {retry_wait_s: 0.01}\n", endpoint="embeddings")
    project.pool(WORDS[:2])
    simulator.script("w1", Behaviour.of("prose"))
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    assert simulator.calls_of("w1") == 2
    shown = await project.batchgen("show", "i1")
    assert "200, but the embedding is no vector: I am not sure" in shown.out


async def test_a_model_that_is_at_another_endpoint_halts_and_says_what_to_set(
    project: Project, simulator: Simulator
) -> None:
    words = "This model is only supported in v1/responses and not in v1/chat/completions."
    simulator.script("Say", *[Behaviour.error(404, message=words)] * 20)
    project.pool(WORDS)
    halted = await project.batchgen("run", "pool.jsonl")
    assert halted.code == 4
    assert (
        "halted: the server does not have this model at this endpoint. Set model.endpoint: "
        "responses. The server said: 404 This model is only supported in v1/responses"
    ) in halted.err
    assert "with --recipe replace" in halted.err
    project.config(endpoint="responses")
    project.write("prompts/user_prompts/default.txt", "Tell {word}")  # which gets no error
    assert (await project.batchgen("run", "pool.jsonl", "--recipe", "replace")).code == 0


async def test_a_server_without_the_endpoint_halts_and_names_it(
    project: Project, simulator: Simulator
) -> None:
    project.config(endpoint="responses")
    simulator.script("Say", *[Behaviour.response(404, '{"detail": "Not Found"}')] * 20)
    project.pool(WORDS)
    halted = await project.batchgen("run", "pool.jsonl")
    assert halted.code == 4
    assert "check model.model and model.endpoint too. The server said: 404 Not Found." in halted.err
    assert (await project.batchgen("status", "--json")).json["total"]["pending"] == 4


@pytest.mark.slow
@pytest.mark.on_both_engines
async def test_a_retry_cannot_ask_for_what_the_endpoint_does_not_take(
    project: Project, simulator: Simulator
) -> None:
    project.config("parser: tag:x\n", endpoint="responses")
    project.pool(WORDS[:1])
    await project.batchgen("run", "pool.jsonl")
    refused = await project.batchgen("retry", "--set", "echo=true")
    assert (refused.code, "echo: the endpoint responses has no such" in refused.err) == (2, True)
    assert (await project.batchgen("status", "--json")).json["total"]["failed"] == 1


async def test_a_retry_does_not_pay_for_lines_whose_own_limit_would_win(
    project: Project, simulator: Simulator
) -> None:
    project.config("parser: tag:x\n", max_tokens=50)
    project.pool([line(1, "/v1/responses", input="Say w0 in <x>", max_output_tokens=50)])
    simulator.script("w0", "length")
    assert (await project.batchgen("run", "pool.jsonl")).code == 3
    told = await project.batchgen("retry", "--reason", "truncated", "--set", "max_tokens=100")
    assert "not retried: 1 item with params of their own" in told.err
    assert (await project.batchgen("work")).code == 3
    assert simulator.calls == 1
