"""The files that pages load: known by name, read once at the start. No path of a request leads to
the disk."""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from msgspec import Struct

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class Asset(Struct, frozen=True):
    """`mark` changes with the content, so that a browser may keep it for ever."""

    name: str
    content: bytes
    content_type: str
    mark: str

    @property
    def url(self) -> str:
        return f"/assets/{self.name}?v={self.mark}"


def read_assets() -> Mapping[str, Asset]:
    """All of them, by name."""
    files = sorted(Path(__file__).with_name("assets").iterdir())
    return {file.name: _asset(file) for file in files if file.suffix in _TYPES}


def _asset(file: Path) -> Asset:
    content = file.read_bytes()
    return Asset(file.name, content, _TYPES[file.suffix], sha256(content).hexdigest()[:16])
