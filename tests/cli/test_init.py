"""`init` writes a job that runs as its last words say."""

import shlex

import pytest

from tests.kits.project import KEY, Project


@pytest.mark.parametrize("template", ["basic", "label", "qa-judge"])
async def test_each_template_is_a_job_that_runs(project: Project, template: str) -> None:
    (project.path / "config.yaml").unlink()
    (project.path / "prompts/user_prompts/default.txt").unlink()
    made = await project.batchgen("init", "--template", template)
    assert made.code == 0, made.err
    project.env |= {"BATCHGEN_MODEL_BASE_URL": project.base_url, "OPENAI_API_KEY": KEY}
    _, _, commands = made.out.partition("then\n")
    for line in commands.splitlines():
        name, *arguments = shlex.split(line)
        assert name == "batchgen"
        done = await project.batchgen(*arguments)
        assert done.code == 0, done.err
    again = await project.batchgen("init", "--template", template)
    assert "written" not in again.out


async def test_in_another_directory_the_first_step_is_to_go_there(project: Project) -> None:
    made = await project.batchgen("init", "my reviews", "--template", "label")
    assert made.out.splitlines()[-2:] == [
        "  cd 'my reviews'",
        "  batchgen run reviews.csv -o labels.csv",
    ]
    unknown = await project.batchgen("init", "--template", "labels")
    assert unknown.code == 2
    assert "'basic', 'label', 'qa-judge'" in unknown.err
