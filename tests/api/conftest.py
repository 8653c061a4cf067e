"""The project as the current directory, as a script has it."""

import pytest

from tests.kits.project import Project


@pytest.fixture
def here(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The project, as the current directory of this process."""
    monkeypatch.chdir(project.path)
    return project
