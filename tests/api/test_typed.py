"""The API as editors and `help` see it. What a type checker sees is in typed_scripts.py."""

import inspect
import subprocess
import sys
from pathlib import Path

from batchgen import Step
from batchgen.api.model_settings import ModelSettings
from batchgen.api.settings import Settings
from batchgen.config import leaf_table, step_keys
from batchgen.config.step_settings import MODEL_KEYS

ROOT = Path(__file__).parents[2]


def test_the_keywords_are_the_settings() -> None:
    """A setting in config/settings.py has its line in api/settings.py."""
    names = {leaf.path[-1] for leaf in leaf_table()}
    sections = {leaf.path[0] for leaf in leaf_table() if len(leaf.path) > 1}
    assert set(Settings.__annotations__) == names | sections


def test_a_step_has_the_keys_of_the_config() -> None:
    """A key in config/step_settings.py has its keyword in api/step.py, and what a step may have of
    the section model has one too."""
    keywords = set(inspect.signature(Step).parameters) - {"settings"}
    assert keywords == {key.name for key in step_keys()}
    assert set(ModelSettings.__annotations__) == {*MODEL_KEYS} - {"model", "user"}


def test_help_shows_the_class_and_its_methods() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", "import batchgen; help(batchgen)"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in (
        "class DataGenerationPipeline",
        "run_sync(",
        "stream(",
        "max_cost",
        "StoppedError",
    ):
        assert name in ran.stdout, name


def test_the_package_says_that_it_is_typed() -> None:
    assert (ROOT / "batchgen/py.typed").is_file()
