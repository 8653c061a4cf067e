"""The files that ship with the package: migrations, the starter config, prompts and pool."""

from pathlib import Path


def shipped_path(name: str) -> Path:
    """Where `name` (a path such as `prompts/user_prompts/default.txt`) is installed.

    In a wheel that is beside the code; in a checkout or an editable install, the top of the
    checkout. Raises FileNotFoundError when it is in neither: the installation is damaged.
    """
    package = Path(__file__).parent
    for home in (package / "shipped_files", package.parent):
        if (home / name).exists():
            return home / name
    raise FileNotFoundError(f"{name} is missing from the installation of batchgen in {package}")
