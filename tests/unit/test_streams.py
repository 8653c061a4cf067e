"""Streams put together to the body that they stand for: pure, whatever the bytes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.llm.streams import Event, EventReader, StreamedBody, begins_as_stream


def events_of(stream: bytes, size: int = 1000) -> list[Event]:
    reader = EventReader()
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    return [event for piece in pieces for event in reader.feed(piece)] + reader.end()


def body_of(*events: Event) -> StreamedBody:
    body = StreamedBody()
    for event in events:
        body.add(event)
    return body


def chunks(*values: Any) -> list[Event]:
    return [Event("", one if isinstance(one, str) else json.dumps(one)) for one in values]


def delta(delta: Any, finish_reason: str | None = None, **rest: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, **rest}
    return {"id": "c-1", "object": "chat.completion.chunk", "model": "m-1", "choices": [choice]}


def message_of(*values: Any) -> dict[str, Any]:
    body = json.loads(body_of(*chunks(*values)).to_json())
    message: dict[str, Any] = body["choices"][0]["message"]
    return message


# Bytes to events

STREAM = """\ufeff: OPENROUTER PROCESSING

data: {"a": "東京 🙂"}

data:no space
data:  two spaces

event: error
id: 7
retry: 5
data

: keep-alive
data: [DONE]

""".encode()
EVENTS = [
    Event("", '{"a": "東京 🙂"}'),
    Event("", "no space\n two spaces"),
    Event("error", ""),
    Event("", "[DONE]"),
]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
def test_events_are_the_same_wherever_the_bytes_are_cut(line_end: bytes, size: int) -> None:
    assert events_of(STREAM.replace(b"\n", line_end), size) == EVENTS


def test_what_no_empty_line_ends_is_an_event_at_the_end() -> None:
    assert events_of(b"data: 1\n\ndata: [DONE]") == [Event("", "1"), Event("", "[DONE]")]


def test_bytes_that_are_no_utf_8_are_replaced_in_their_event_alone() -> None:
    events = events_of(b"data: a\xff\n\ndata: b\xe6\x9d\n\ndata: c\n\n", 1)
    assert [event.data for event in events] == ["a\ufffd", "b\ufffd", "c"]


def test_an_error_of_llama_cpp_is_an_event() -> None:
    (event,) = events_of(b'error: {"code": 500, "message": "no"}\n\n')
    assert event == Event("error", '{"code": 500, "message": "no"}')


def test_what_is_kept_of_an_event_without_end_is_counted() -> None:
    reader = EventReader()
    assert [reader.feed(b"data: " + b"x" * 94) for _ in range(3)] == [[]] * 3
    assert reader.pending_chars == 300
    assert len(reader.feed(b"\n\n")) == 1
    assert reader.pending_chars == 0


@pytest.mark.parametrize(
    ("start", "is_stream"),
    [
        (b"data: {}", True),
        (b"data:{", True),
        (b"\xef\xbb\xbfdata: {}", True),
        (b"\n\n: keep-alive", True),
        (b"event: x", True),
        (b"id: 1\n", True),
        (b"da", None),
        (b" \n", None),
        (b"", None),
        (b'{"choices": []}', False),
        (b"database is down", False),
        (b"error 502", False),
        (b"<html>", False),
        (b"[1, 2]", False),
    ],
)
def test_a_stream_is_told_by_its_first_bytes(start: bytes, is_stream: bool | None) -> None:
    assert begins_as_stream(start) is is_stream


# Events to a body


def test_chunks_become_the_body_of_a_chat_completion() -> None:
    logprob = {"token": "Hi", "logprob": -0.1, "bytes": [72, 105], "top_logprobs": []}
    usage = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
    body = body_of(
        *chunks(
            delta({"role": "assistant", "content": ""}) | {"system_fingerprint": "fp-1"},
            delta({"reasoning_content": "Let me "}),
            delta({"reasoning_content": "think."}),
            delta({"content": "Hi"}, logprobs={"content": [logprob], "refusal": None}),
            delta({"content": " there"}, logprobs={"content": [logprob], "refusal": None}),
            delta({}, "stop"),
            {"id": "c-1", "object": "chat.completion.chunk", "choices": [], "usage": usage},
            "[DONE]",
        )
    )
    assert (body.is_whole, body.is_closed) == (True, True)
    assert json.loads(body.to_json()) == {
        "id": "c-1",
        "object": "chat.completion",
        "model": "m-1",
        "system_fingerprint": "fp-1",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "Hi there",
                    "reasoning_content": "Let me think.",
                },
                "logprobs": {"content": [logprob, logprob], "refusal": None},
                "finish_reason": "stop",
            }
        ],
        "usage": usage,
    }


def test_chunks_of_a_completion_become_its_body() -> None:
    piece = {"index": 0, "text": "Hi", "logprobs": None, "finish_reason": None}
    head = {"id": "c-1", "object": "text_completion", "model": "m-1"}
    body = body_of(
        *chunks(
            {**head, "choices": [piece]},
            {**head, "choices": [{**piece, "text": " you", "finish_reason": "length"}]},
        )
    )
    assert body.is_whole
    assert json.loads(body.to_json()) == {
        **head,
        "choices": [{"index": 0, "text": "Hi you", "logprobs": None, "finish_reason": "length"}],
        "usage": None,
    }


def call(index: int | None, **rest: Any) -> dict[str, Any]:
    piece = {"index": index, **rest} if index is not None else rest
    return delta({"tool_calls": [piece]})


def function(arguments: str, name: str | None = None) -> dict[str, Any]:
    return {"arguments": arguments} if name is None else {"arguments": arguments, "name": name}


@pytest.mark.parametrize(
    "pieces",
    [
        [  # OpenAI
            call(0, id="a", type="function", function=function("", "f")),
            call(0, function=function('{"x"')),
            call(0, function=function(": 1}")),
            call(1, id="b", type="function", function=function("", "g")),
            call(1, function=function("{}")),
        ],
        [  # mixed, with the name and the id in each piece (DashScope sends empty ones)
            call(0, id="a", type="function", function=function("", "f")),
            call(1, id="b", type="function", function=function("{}", "g")),
            call(0, id="a", type="function", function=function('{"x"', "f")),
            call(0, id="", type="function", function=function(": 1}", "")),
        ],
        [  # Gemini: whole calls, all with the index 0
            call(0, id="a", type="function", function=function('{"x": 1}', "f")),
            call(0, id="b", type="function", function=function("{}", "g")),
        ],
        [  # no index at all
            call(None, id="a", type="function", function=function('{"x"', "f")),
            call(None, function=function(": 1}")),
            call(None, id="b", type="function", function=function("{}", "g")),
        ],
    ],
)
def test_calls_of_tools_are_joined_by_their_index(pieces: list[Any]) -> None:
    message = message_of(*pieces, delta({}, "tool_calls"))
    assert message["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]
    assert message["content"] is None


def test_an_id_that_each_piece_has_anew_makes_no_other_call() -> None:
    message = message_of(
        call(0, id="a", function=function("{", "f")), call(0, id="b", function=function("}"))
    )
    (one,) = message["tool_calls"]
    assert one["function"] == {"name": "f", "arguments": "{}"}


def test_a_refusal_and_an_old_function_call_are_joined() -> None:
    assert message_of(delta({"refusal": "I "}), delta({"refusal": "won't."}))["refusal"] == (
        "I won't."
    )
    message = message_of(
        delta({"function_call": function("{", "f")}), delta({"function_call": function("}")})
    )
    assert message["function_call"] == {"name": "f", "arguments": "{}"}


def test_parts_of_a_content_go_on() -> None:
    """Mistral's reasoning models send parts while they think, and texts afterwards."""
    thought = [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}]
    message = message_of(*[delta({"content": one}) for one in ("", thought, thought, "So", "!")])
    assert message["content"] == [
        {"type": "thinking", "thinking": [{"type": "text", "text": "HmHm"}]},
        {"type": "text", "text": "So!"},
    ]


def test_details_of_reasoning_go_on_by_their_index() -> None:
    def piece(index: int, text: str) -> dict[str, Any]:
        detail = {"type": "reasoning.text", "text": text, "format": "x-1", "index": index}
        return delta({"reasoning": text, "reasoning_details": [detail]})

    message = message_of(piece(0, "a"), piece(0, "b"), piece(1, "c"))
    assert message["reasoning"] == "abc"
    assert [one["text"] for one in message["reasoning_details"]] == ["ab", "c"]
    assert message["reasoning_details"][0]["format"] == "x-1"


def test_each_of_several_choices_has_its_own_pieces() -> None:
    def piece(index: int, text: str, finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": index, "delta": {"content": text}, "finish_reason": finish_reason}
        return {"choices": [choice]}

    body = body_of(*chunks(piece(1, "b"), piece(0, "a"), piece(1, "B", "stop"), piece(0, "A")))
    assert not body.is_whole
    choices = json.loads(body.to_json())["choices"]
    assert [(one["index"], one["message"]["content"]) for one in choices] == [(0, "aA"), (1, "bB")]


USAGE = {"prompt_tokens": 2, "completion_tokens": 1}
EMPTY = {"prompt_tokens": 2, "completion_tokens": 0}


@pytest.mark.parametrize(
    "last",
    [
        [delta({}, "stop") | {"usage": USAGE}],
        [delta({}) | {"usage": EMPTY}, delta({}, "stop") | {"usage": USAGE}],
        [delta({}, "stop"), {"choices": [], "usage": USAGE}],
        [delta({}, "stop") | {"usage": USAGE}, {"choices": [], "usage": None}],
        [delta({}, "stop", usage=USAGE)],  # Moonshot
        [delta({}, "stop") | {"x_groq": {"id": "r", "usage": USAGE}}],
    ],
)
def test_the_usage_is_found_where_the_server_says_it(last: list[Any]) -> None:
    body = body_of(*chunks(delta({"content": "Hi"}), *last))
    assert json.loads(body.to_json())["usage"] == USAGE


def test_a_whole_answer_in_one_event_is_that_answer() -> None:
    whole = {
        "id": "c-1",
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hi"},
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE,
    }
    assert json.loads(body_of(*chunks(whole, "[DONE]")).to_json()) == whole


def test_empty_values_that_come_first_or_last_hide_nothing() -> None:
    """Azure's first chunk has the filter's results and nothing else."""
    first = {"id": "", "model": "", "object": "", "choices": [], "prompt_filter_results": [1]}
    body = json.loads(body_of(*chunks(first, delta({"content": "Hi"}, "stop"), first)).to_json())
    assert (body["id"], body["model"], body["object"]) == ("c-1", "m-1", "chat.completion")


def test_halves_of_a_character_in_two_chunks_are_one() -> None:
    events = [
        Event("", '{"choices":[{"index":0,"delta":{"content":"\\ud83d"}}]}'),
        Event("", '{"choices":[{"index":0,"delta":{"content":"\\ude42"}}]}'),
    ]
    body = json.loads(body_of(*events).to_json())
    assert body["choices"][0]["message"]["content"] == "🙂"


def test_events_whose_empty_lines_were_forgotten_are_read_line_by_line() -> None:
    lines = "\n".join([json.dumps(delta({"content": "Hi"}, "stop")), "[DONE]"])
    body = body_of(Event("", lines))
    assert body.is_closed
    assert json.loads(body.to_json())["choices"][0]["message"]["content"] == "Hi"


@pytest.mark.parametrize(
    ("event", "error"),
    [
        (Event("", '{"error": {"message": "Overloaded", "code": 503}}'), {"code": 503}),
        (Event("error", '{"error": {"message": "Overloaded", "code": "429"}}'), {"code": "429"}),
        (Event("error", '{"message": "Overloaded", "code": 500}'), {"code": 500}),
        (Event("", '{"object": "error", "message": "Overloaded", "code": 400}'), {"code": 400}),
        (Event("", '{"type": "error", "message": "Overloaded", "code": "x"}'), {"code": "x"}),
        (
            Event("", '{"type": "error", "error": {"type": "o", "message": "Overloaded"}}'),
            {"type": "o"},
        ),
    ],
)
def test_an_error_in_mid_stream_stands_in_the_choice_that_it_cut_off(
    event: Event, error: dict[str, Any]
) -> None:
    body = body_of(*chunks(delta({"content": "Half"})), event)
    assert body.is_closed
    (choice,) = json.loads(body.to_json())["choices"]
    assert choice["message"]["content"] == "Half"
    assert choice["error"].items() >= {"message": "Overloaded", **error}.items()
    alone = json.loads(body_of(event).to_json())
    assert alone["error"] == choice["error"]


def test_an_error_in_words_is_one_too() -> None:
    assert json.loads(body_of(Event("error", "no upstream")).to_json()) == {"error": "no upstream"}


def test_an_error_beside_the_last_choice_keeps_what_came() -> None:
    """OpenRouter's."""
    last = delta({"content": "Ha"}, "error") | {"error": {"code": 502, "message": "gone"}}
    (choice,) = json.loads(body_of(*chunks(last)).to_json())["choices"]
    assert (choice["message"]["content"], choice["error"]["code"]) == ("Ha", 502)


CREATED: dict[str, Any] = {
    "type": "response.created",
    "response": {"id": "r-1", "object": "response", "status": "in_progress", "output": []},
}
THOUGHT = {"type": "reasoning", "id": "rs-1", "summary": []}
MESSAGE = {"type": "message", "id": "msg-1", "content": [{"type": "output_text", "text": "Hi!"}]}
PIECES = [
    {"type": "response.output_item.done", "output_index": 0, "item": THOUGHT},
    {"type": "response.output_text.delta", "output_index": 1, "delta": "Hi"},
    {"type": "response.output_text.delta", "output_index": 1, "delta": "!"},
]
OUTPUT = [
    {
        "type": "message",
        "role": "assistant",
        "content": [{"index": None, "type": "output_text", "text": "Hi!"}],
    }
]


@pytest.mark.parametrize("kind", ["completed", "incomplete", "failed"])
def test_the_last_event_of_a_response_is_all_of_it(kind: str) -> None:
    response = {"id": "r-1", "object": "response", "status": kind, "output": []}
    last = {"type": f"response.{kind}", "response": {**response, "output": [MESSAGE]}}
    body = body_of(*chunks(CREATED, *PIECES, last))
    assert body.is_closed
    assert json.loads(body.to_json()) == last["response"]
    body = body_of(*chunks(CREATED, *PIECES, {**last, "response": response}))
    assert json.loads(body.to_json())["output"] == [THOUGHT, *OUTPUT]


def test_of_a_response_that_is_cut_off_its_items_are_kept() -> None:
    begun = body_of(*chunks(CREATED, *PIECES))
    assert not begun.is_whole
    assert json.loads(begun.to_json()) == {**CREATED["response"], "output": [THOUGHT, *OUTPUT]}


def piece(kind: str, delta: str, **rest: int) -> dict[str, Any]:
    return {"type": f"response.{kind}.delta", "delta": delta, **rest}


def test_of_a_response_that_is_cut_off_thoughts_refusals_and_calls_are_kept() -> None:
    call = {"type": "function_call", "call_id": "c-1", "name": "look", "arguments": ""}
    begun = body_of(
        *chunks(
            CREATED,
            piece("reasoning_summary_text", "First", output_index=0, summary_index=0),
            piece("reasoning_summary_text", " this", output_index=0, summary_index=0),
            piece("reasoning_summary_text", "Then that", output_index=0, summary_index=1),
            piece("reasoning_text", "Hm", output_index=0, content_index=0),
            piece("refusal", "I can", output_index=1, content_index=0),
            piece("refusal", "not", output_index=1, content_index=0),
            {"type": "response.output_item.added", "output_index": 2, "item": call},
            piece("function_call_arguments", '{"at"', output_index=2),
            piece("function_call_arguments", ": 1", output_index=2),
            piece("custom_tool_call_input", "ls", output_index=3),
        )
    )
    thought, refusal, called, custom = json.loads(begun.to_json())["output"]
    assert [part["text"] for part in thought["summary"]] == ["First this", "Then that"]
    assert [part["text"] for part in thought["content"]] == ["Hm"]
    assert [part["refusal"] for part in refusal["content"]] == ["I cannot"]
    assert called == {**call, "arguments": '{"at": 1'}
    assert (custom["type"], custom["input"]) == ("custom_tool_call", "ls")


def test_a_response_that_an_error_ends_has_failed() -> None:
    error = {"type": "error", "code": "server_error", "message": "gone", "sequence_number": 9}
    body = json.loads(body_of(*chunks(CREATED, *PIECES, error)).to_json())
    assert (body["status"], body["error"], body["output"][1:]) == ("failed", error, OUTPUT)


@pytest.mark.parametrize(
    ("last", "is_whole"),
    [
        ([delta({}, "stop")], True),
        (["[DONE]"], True),
        ([delta({}, "stop"), "[DONE]"], True),
        ([], False),
        ([{"choices": []}], False),
    ],
)
def test_an_answer_is_whole_when_the_server_says_so_in_one_way(
    last: list[Any], is_whole: bool
) -> None:
    assert body_of(*chunks(delta({"content": "Hi"}), *last)).is_whole is is_whole


@pytest.mark.parametrize(
    ("value", "is_new"),
    [
        (delta({"content": "x"}), True),
        (delta({}, "stop"), True),
        ({"choices": [], "usage": USAGE}, True),
        ("[DONE]", True),
        (delta({"role": "assistant", "content": ""}), False),
        (delta({}), False),
        ({"choices": []}, False),
        ({"type": "ping"}, False),
        ("ping", False),
        ("1", False),
        ("[" * 100_000, False),
    ],
)
def test_a_chunk_without_anything_of_an_answer_is_told(value: Any, is_new: bool) -> None:
    assert StreamedBody().add(*chunks(value)) is is_new


def test_of_a_stream_that_says_nothing_the_last_words_are_left() -> None:
    assert body_of().to_json() == ""
    assert body_of(*chunks("upstream gone")).to_json() == "upstream gone"


@pytest.mark.parametrize("depth", [100, 500, 950, 3000])
@pytest.mark.parametrize(
    "event",
    [
        '{"choices": [{"index": 0, "delta": {"content": "Hi", "odd": DEEP}}]}',
        '{"type": "response.output_item.added", "output_index": 0, "item": {"odd": DEEP}}',
        '{"odd": DEEP}',
    ],
)
def test_an_event_that_is_nested_deep_is_no_error_of_ours(event: str, depth: int) -> None:
    deep = event.replace("DEEP", '{"a":' * depth + "1" + "}" * depth)
    assert body_of(*chunks(deep, "[DONE]")).to_json()


def test_what_is_kept_is_counted() -> None:
    body = body_of(*chunks(delta({"content": "x" * 500}), delta({"content": "y" * 500})))
    assert 1000 <= body.held_chars <= 1100
    before = body.held_chars
    logprobs = {"content": [{"token": "x", "logprob": -1.0}] * 10}
    body.add(*chunks(delta({"content": "z"}, logprobs=logprobs)))
    assert body.held_chars - before > 300


def json_values() -> st.SearchStrategy[Any]:
    names = st.sampled_from(
        ["choices", "delta", "message", "content", "tool_calls", "function", "arguments", "name",
         "index", "id", "type", "text", "error", "usage", "object", "finish_reason", "logprobs",
         "response", "output", "item", "output_index", "x_groq"]
    )  # fmt: skip
    leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
    leaves |= st.sampled_from(["error", "response.output_text.delta", "response.output_item.done"])
    return st.recursive(
        leaves,
        lambda some: st.lists(some, max_size=3) | st.dictionaries(names, some, max_size=5),
        max_leaves=30,
    )


@given(st.lists(json_values().map(json.dumps) | st.text(), max_size=6))
def test_events_of_any_kind_become_something_that_can_be_read(events: list[str]) -> None:
    body = body_of(*[Event("", event) for event in events])
    text, lines = body.to_json(), [line for event in events for line in event.split("\n")]
    assert text == "" or text in lines or json.loads(text) is not None
    assert body.held_chars >= 0


@given(st.lists(json_values(), max_size=4), st.text(), st.lists(json_values(), max_size=4))
def test_odd_pieces_of_a_choice_cost_nothing_of_its_text(
    before: list[Any], text: str, after: list[Any]
) -> None:
    odd = [{"choices": [{"index": 0, "delta": {"tool_calls": one}}]} for one in [*before, *after]]
    pieces = [*odd[: len(before)], delta({"content": text}), *odd[len(before) :]]
    assert (message_of(*pieces)["content"] or "") == text


@given(st.binary(max_size=200) | st.lists(st.sampled_from(
    [b"data: {}", b"data", b"event: x", b":", b"\r", b"\n", b"\r\n", b"\xe6", b"id: 1", b" "]
)).map(b"".join), st.integers(1, 9))  # fmt: skip
def test_any_bytes_are_events_that_do_not_depend_on_how_they_are_cut(
    stream: bytes, size: int
) -> None:
    assert events_of(stream, size) == events_of(stream)
