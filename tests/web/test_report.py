"""A run as one file: what is in it, what is not, and that it is there whole or not at all."""

import json
import re
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

import pytest

from batchgen.simulate import Behaviour, Simulator
from tests.kits.database import change
from tests.kits.project import KEY, Project

STEPS = """
steps:
- name: draft
  user: {text: "Draft {word}"}
- name: judge
  user: {text: "Judge {draft}"}
"""


async def written(project: Project, *options: str) -> str:
    done = await project.batchgen("report", "-o", "run.html", *options)
    assert (done.code, done.out) == (0, ""), done.err
    return (project.path / "run.html").read_text(encoding="utf-8")


async def test_a_report_has_all_of_a_run_and_no_secret(
    project: Project, simulator: Simulator
) -> None:
    project.config("parser: raw\nwork: {max_attempts: 1}\n",
                   price={"input_usd_per_mtok": 1000, "output_usd_per_mtok": 1000})  # fmt: skip
    simulator.script("Say w0", Behaviour.error(400, message=f"no such thing {KEY}"))
    project.pool({"word": f"w{number}", "id": f"id-{number}"} for number in range(6))
    assert (await project.batchgen("run", "pool.jsonl")).code == 3
    text = await written(project, "--sample", "3", "--seed", "7")
    assert "no such thing" in text
    assert KEY not in text
    assert str(project.path) not in text
    ids = re.findall(r"<bdi>(id-\d)</bdi>", text)
    assert len(set(ids)) == 3
    assert "id-0" not in ids  # it has no answer
    assert "Say {word}" in text  # the recipe
    again = await written(project, "--sample", "3", "--seed", "7")
    assert re.findall(r"<bdi>(id-\d)</bdi>", again) == ids
    data = re.search(r'id="plots-data">(.*?)</script>', text, re.DOTALL)
    assert data is not None
    plots = {one["key"]: one for one in json.loads(data[1])["plots"]}
    assert {"rate", "latency", "cost", "failures", "lengths"} == set(plots)
    assert plots["failures"]["series"][0]["name"] == "rejected"
    for plot in plots.values():
        assert plot["label"] in text  # for who has no script
    assert "report --experiment default --sample 3 --seed 7" in text


async def test_its_policy_lets_only_its_own_scripts_run(answered: Project) -> None:
    text = await written(answered)
    policy = re.search(r'Policy" content="([^"]*)"', text)
    assert policy is not None
    assert policy[1].startswith("default-src &#39;none&#39;; script-src &#39;sha256-")
    assert "unsafe" not in policy[1]
    for name in ("script", "style"):
        found = re.findall(rf"<{name}>(.*?)</{name}>", text, re.DOTALL)
        assert len(found) == {"script": 3, "style": 2}[name]
        for one in found:
            assert b64encode(sha256(one.encode()).digest()).decode() in policy[1]
    assert not re.search(
        r"<[^>]+\s(?:src|href|action)=", re.sub(r"<script.*", "", text, flags=re.S)
    )
    assert "http-equiv" in text.partition("<style>")[0]


async def test_steps_and_the_other_language(project: Project) -> None:
    project.config(STEPS)
    project.pool({"id": f"p{number}", "word": f"w{number}"} for number in range(2))
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    text = await written(project, "--lang", "zh")
    assert 'lang="zh"' in text
    assert re.findall(r'class="name">(\w+)<', text) == ["draft", "judge"]
    assert "均为步骤 judge 的行" in text
    assert "Draft {word}" in text
    assert "Judge {draft}" in text
    assert ">p0</bdi>" in text  # the row by its item, with what that was given
    assert "&#34;word&#34;: &#34;w0&#34;" in text
    assert "<dt>draft</dt>" in text  # and what the other step said


@pytest.mark.only_sqlite("its database is a file that could be written over")
@pytest.mark.slow
async def test_only_a_report_is_written_over(answered: Project) -> None:
    await written(answered)
    await written(answered)
    for name, words in {
        "pool.jsonl": "is there, and is no report; name another file.",
        "config.yaml": "is a file of this project",
        "batchgen.db": "is a database; name another file.",
    }.items():
        before = (answered.path / name).read_bytes()
        done = await answered.batchgen("report", "-o", name)
        assert (done.code, words in done.err) == (2, True), done.err
        assert (answered.path / name).read_bytes() == before
    nowhere = await answered.batchgen("report", "-o", "new.html", "--experiment", "other")
    assert nowhere.code == 2
    assert "no experiment" in nowhere.err
    assert not (answered.path / "new.html").exists()
    assert [one for one in answered.path.iterdir() if one.name.endswith(".part")] == []


async def test_an_experiment_of_which_nothing_is_done(project: Project) -> None:
    project.pool([{"word": "w"}])
    assert (await project.batchgen("enqueue", "pool.jsonl")).code == 0
    text = await written(project)
    assert "plots-data" in text
    assert "<article" not in text


async def test_latencies_are_those_of_the_whole_run_as_in_its_plot(answered: Project) -> None:
    table = "minutes" if answered.server is None else "minutes_by_worker"
    change(answered.database, f"""update {table} set latencies = '{{"69":19,"80":1}}'""")
    text = await written(answered)
    assert ">0.75 / 0.75 s</dd>" in text
    assert "took less than about 0.75 s, 95 of 100 less than about 0.75 s." in text


async def test_long_texts_are_cut(project: Project, simulator: Simulator) -> None:
    simulator.script("Say long", Behaviour.ok("0123456789" * 100_000))
    project.pool([{"word": "long"}])
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    text = await written(project)
    assert len(text) < 200_000
    assert "996.0 kB more." in text


def test_no_file_of_ours_ends_the_element_that_it_is_put_in() -> None:
    from batchgen.web import assets

    for file in Path(assets.__file__).with_name("assets").glob("*.[cj]s*"):
        text = file.read_text(encoding="utf-8")
        assert "</s" not in text, file.name
        assert "<!--" not in text, file.name
