"""Local images in messages: checked at enqueue, sent as data URLs, stored as paths."""

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from batchgen.errors import InputError
from batchgen.prompts.images import check_images, with_images
from batchgen.simulate import Behaviour, Simulator
from tests.kits.project import Project
from tests.kits.typist import Typist

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
KINDS = {
    "png": PNG,
    "jpeg": b"\xff\xd8\xff\xe0" + bytes(100),
    "gif": b"GIF89a" + bytes(100),
    "webp": b"RIFF\x24\x00\x00\x00WEBPVP8 " + bytes(100),
}


def image(url: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, "detail": "low"}}


def asking(*parts: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, *parts]}]


def data_url(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


# Pure, but for the file


@pytest.mark.parametrize("kind", KINDS)
async def test_a_path_becomes_a_data_url_of_its_kind(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a b.bin").write_bytes(KINDS[kind])
    given = asking(image("a b.bin"))
    sent, paths = await with_images(given, tmp_path)
    url = data_url(kind, KINDS[kind])
    assert sent == asking(image(url))
    assert paths == {url: "a b.bin"}
    assert given == asking(image("a b.bin"))  # left as it is


@pytest.mark.parametrize("url", ["file://{}/a%20b.png", "file:///{}/a b.png", "{}/a b.png"])
async def test_a_path_may_be_whole_or_a_file_url(tmp_path: Path, url: str) -> None:
    (tmp_path / "a b.png").write_bytes(PNG)
    sent, _ = await with_images(asking(image(url.format(tmp_path))), Path("/elsewhere"))
    assert sent == asking(image(data_url("png", PNG)))


async def test_an_image_url_may_be_a_text(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    sent, _ = await with_images(asking({"type": "image_url", "image_url": "a.png"}), tmp_path)
    assert sent == asking({"type": "image_url", "image_url": data_url("png", PNG)})


UNTOUCHED = [
    image("https://example.com/a.png"),
    image("HTTP://example.com/a.png"),
    image("data:image/png;base64,AAAA"),
    image("gs://bucket/a.png"),
    image(None),
    {"type": "image_url"},
    {"type": "image_url", "image_url": 5},
    {"type": "text", "text": "a.png"},
    {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
    {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,"}},
]  # fmt: skip


@pytest.mark.parametrize("part", UNTOUCHED)
async def test_everything_else_is_sent_as_it_is(tmp_path: Path, part: Any) -> None:
    check_images(asking(part), tmp_path)
    assert await with_images(asking(part), tmp_path) == (asking(part), {})


def unusable(directory: Path) -> dict[str, str]:
    (directory / "text.png").write_bytes(b"root:x:0:0:root:/root:/bin/bash\n")
    (directory / "big.png").write_bytes(PNG)
    os.truncate(directory / "big.png", (20 << 20) + 1)
    os.mkfifo(directory / "pipe.png")
    (directory / "empty.png").touch()
    base64_text = "iVBORw0KGgo" * 1000
    return {
        "gone.png": f"image '{directory}/gone.png': no such file",
        "text.png": f"image '{directory}/text.png': is not a PNG, JPEG, GIF or WebP",
        "empty.png": f"image '{directory}/empty.png': is not a PNG, JPEG, GIF or WebP",
        "big.png": f"image '{directory}/big.png': is larger than 20 MB",
        "pipe.png": f"image '{directory}/pipe.png': is not a file",
        "": f"image '{directory}': is not a file",
        "/etc/passwd": "image '/etc/passwd': is not a PNG, JPEG, GIF or WebP",
        "file://other/a.png": "image 'file://other/a.png': is on another machine",
        "file://[a.png": "image 'file://[a.png': is not an address (Invalid IPv6 URL)",
        "file:///a%00b.png": r"image '/a\x00b.png': no such file",
        base64_text: f"image '{f'{directory}/{base64_text}'[:200]}...': cannot be read "
        "(File name too long)",
    }


async def test_what_cannot_be_sent_says_why(tmp_path: Path) -> None:
    for url, said in unusable(tmp_path).items():
        messages = asking(image("https://example.com/a.png"), image(url))
        with pytest.raises(InputError) as checked:
            check_images(messages, tmp_path)
        assert str(checked.value) == f"messages[0].content[2]: {said}"
        with pytest.raises(InputError) as read:
            await with_images(messages, tmp_path)
        assert str(read.value) == said


# The commands


async def test_a_run_sends_the_data_and_keeps_the_path(
    project: Project, simulator: Simulator
) -> None:
    project.write("photos/cat.png", PNG)
    batch_body = {"messages": asking(image("photos/cat.png"))}
    project.pool(
        [
            {"id": "cat", "messages": asking(image("photos/cat.png"))},
            {"custom_id": "line", "method": "POST", "body": batch_body},
        ]
    )
    run = await project.batchgen("run", "pool.jsonl")
    assert run.code == 0, run.err
    assert [request.body["messages"] for request in simulator.requests] == [
        asking(image(data_url("png", PNG)))
    ] * 2
    assert project.export()[0]["input"]["messages"] == asking(image("photos/cat.png"))
    exported = await project.batchgen("export", "--format", "messages", "-o", "-")
    assert json.loads(exported.out.splitlines()[0])["messages"][:1] == asking(
        image("photos/cat.png")
    )
    assert "photos/cat.png" in (await project.batchgen("show", "cat")).out
    encoded = base64.b64encode(PNG)
    for file in project.path.rglob("*"):
        assert not file.is_file() or encoded not in file.read_bytes(), file


async def test_paths_start_from_the_directory_of_the_config(
    project: Project, simulator: Simulator, tmp_path: Path
) -> None:
    project.write("a.png", PNG)
    project.pool([{"messages": asking(image("a.png"))}])
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    here, project.path = project.path, elsewhere
    run = await project.batchgen("--config", f"{here}/config.yaml", "run", f"{here}/pool.jsonl")
    assert run.code == 0, run.err
    assert simulator.calls == 1


async def test_enqueue_tells_the_line_or_puts_it_aside(project: Project, batchgen: Typist) -> None:
    project.write("a.png", PNG)
    good = {"messages": asking(image("a.png"))}
    project.pool([good, {"messages": asking(image("gone.png"))}, good])
    stopped = await batchgen("enqueue", "pool.jsonl")
    said = f"pool.jsonl:2: messages[0].content[1]: image '{project.path}/gone.png': no such file"
    assert stopped.code == 2
    assert f"error: {said}\n" in stopped.err
    dry = await batchgen("enqueue", "pool.jsonl", "--dry-run")
    assert (dry.code, f"error: {said}\n" in dry.err) == (2, True)
    skipped = await batchgen("enqueue", "pool.jsonl", "--skip-invalid", "bad.jsonl")
    assert skipped.code == 0, skipped.err
    assert f"skipped  {said}\n" in skipped.err
    assert json.loads((project.path / "bad.jsonl").read_text()) == {
        "messages": asking(image("gone.png"))
    }


async def test_an_image_that_went_missing_fails_its_item_until_it_is_back(
    project: Project, simulator: Simulator
) -> None:
    project.write("a.png", PNG)
    project.pool([{"messages": asking(image("a.png"))}])
    project.config(price={"input_usd_per_mtok": 1, "output_usd_per_mtok": 1}, max_tokens=100)
    await project.batchgen("enqueue", "pool.jsonl")
    (project.path / "a.png").unlink()
    work = await project.batchgen("work", "--max-cost", "5")
    assert (work.code, simulator.calls) == (3, 0)
    assert project.query("select reason, error from results") == [
        ("rejected", f"image '{project.path}/a.png': no such file")
    ]
    assert project.query("select count(*) from reservations") == [(0,)]
    project.write("a.png", PNG)
    await project.batchgen("retry")
    assert (await project.batchgen("work", "--max-cost", "5")).code == 0
    assert (await project.batchgen("verify")).code == 0


async def test_a_server_that_repeats_the_request_puts_no_data_into_the_database(
    project: Project, simulator: Simulator
) -> None:
    project.write("a.png", PNG)
    url = data_url("png", PNG)
    body = {"detail": [{"loc": ["body", "messages"], "msg": "no", "input": asking(image(url))}]}
    simulator.script("What is it?", Behaviour.response(422, json.dumps(body)))
    project.pool([{"messages": asking(image("a.png"))}])
    assert (await project.batchgen("run", "pool.jsonl")).code == 3
    ((kept, error),) = project.query("select body, error from attempts")
    assert json.loads(kept)["detail"][0]["input"] == asking(image("a.png"))
    assert "base64" not in error


async def test_a_second_question_has_the_image_too(project: Project, simulator: Simulator) -> None:
    project.write("a.png", PNG)
    project.config("parser: json\nwork: {parse_attempts: 2, parse_feedback: true}\n")
    project.pool([{"messages": asking(image("a.png"))}])
    simulator.script("What is it?", Behaviour.ok("a cat"))
    simulator.script("could not be used", Behaviour.ok('"a cat"'))
    run = await project.batchgen("run", "pool.jsonl")
    first, second = (request.body["messages"] for request in simulator.requests)
    assert first == second[:1] == asking(image(data_url("png", PNG)))
    assert (run.code, len(second)) == (0, 3)


async def test_responses_get_local_images_too(project: Project, simulator: Simulator) -> None:
    project.config(endpoint="responses")
    project.write("photos/cat.png", PNG)
    part = {"type": "input_image", "image_url": "photos/cat.png"}
    line = {"custom_id": "line", "method": "POST", "url": "/v1/responses",
            "body": {"input": [{"role": "user", "content": [part]}]}}  # fmt: skip
    project.pool([{"messages": asking(image("photos/cat.png"))}, line])
    assert (await project.batchgen("run", "pool.jsonl", "-c", "1")).code == 0
    sent = [request.body["input"][0]["content"][-1] for request in simulator.requests]
    url = data_url("png", PNG)
    assert sent == [
        {"type": "input_image", "image_url": url, "detail": "low"},
        {"type": "input_image", "image_url": url},
    ]
    project.pool([{**line, "custom_id": "x", "body": {"input": [{"role": "user", "content": [
        {**part, "image_url": "gone.png"}
    ]}]}}])  # fmt: skip
    refused = await project.batchgen("enqueue", "pool.jsonl")
    assert "pool.jsonl:1: messages[0].content[0]: image " in refused.err
