"""A prompt, a model and a server given on the command line, in place of the config's."""

from tests.kits.database import is_untouched
from tests.kits.project import Project
from tests.kits.typist import Typist


async def test_what_is_given_stands_in_place_of_the_config(
    project: Project, batchgen: Typist
) -> None:
    server = project.base_url
    project.config(base_url="http://127.0.0.1:9/v1", model="nobody")
    project.pool([{"word": "a"}])
    run = await batchgen(
        "run", "pool.jsonl", "--prompt", 'Is "{word}" {{good}}?', "--system", "Be brief, {word}.",
        "--model", "simulated", "--base-url", server,
    )  # fmt: skip
    assert run.code == 0, run.err
    shown = (await batchgen("show", "1", "--json")).json
    assert shown["messages"] == [
        {"role": "system", "content": "Be brief, a."},
        {"role": "user", "content": 'Is "a" {good}?'},
    ]
    assert shown["settings"] == {"model": "simulated"}


async def test_no_template_file_is_needed_then(project: Project, batchgen: Typist) -> None:
    (project.path / "prompts/user_prompts/default.txt").unlink()
    project.pool([{"word": "a"}])
    dry = await batchgen("enqueue", "pool.jsonl", "--dry-run", "--prompt", "Say {word}")
    assert (dry.code, dry.out.endswith("user:\nSay a\n")) == (0, True)


async def test_a_wrong_one_is_told_in_one_line(project: Project, batchgen: Typist) -> None:
    project.pool([{"word": "a"}])
    wrong = await batchgen("run", "pool.jsonl", "--base-url", "ftp://x")
    assert (wrong.code, wrong.err.count("\n")) == (2, 1)
    assert "--base-url: must be http://host" in wrong.err
    assert is_untouched(project.database)


async def test_beside_steps_it_is_refused_by_the_name_that_was_typed(
    project: Project, batchgen: Typist
) -> None:
    project.config("steps: [{name: draft, user: {text: 'Write about {word}'}}]\n")
    project.pool([{"word": "a"}])
    for command in ("run", "enqueue"):
        wrong = await batchgen(command, "pool.jsonl", "--prompt", "Say {word}")
        assert (wrong.code, wrong.err) == (
            2, "error: --prompt: stands beside steps, each of which has its own; it goes into one "
               "of them, as user: {text: ...}\n",
        )  # fmt: skip
    assert is_untouched(project.database)
