"""A form with a file in it, as browsers send one, in pieces."""

from collections.abc import Iterator, Mapping
from typing import BinaryIO
from uuid import uuid4

_PIECE_BYTES = 256 * 1024


class FileForm:
    """The fields, then a file of that name and size under the name `file`."""

    def __init__(self, fields: Mapping[str, str], name: str, size: int) -> None:
        boundary = f"batchgen-{uuid4().hex}"
        parts = [_part(boundary, f'name="{field}"', text) for field, text in fields.items()]
        type_of_file = "Content-Type: application/octet-stream\r\n"
        parts.append(_part(boundary, f'name="file"; filename="{name}"', "", type_of_file))
        self._before = "".join(parts).encode()
        self._after = f"\r\n--{boundary}--\r\n".encode()
        self._size = size
        self.headers = {
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "Content-Length": str(len(self._before) + size + len(self._after)),
        }

    def pieces(self, file: BinaryIO) -> Iterator[bytes]:
        """All of the form. Raises OSError when so much of the file cannot be read."""
        yield self._before
        left = self._size
        while left:
            piece = file.read(min(left, _PIECE_BYTES))
            if not piece:
                raise OSError(f"the file ends {left} bytes before its end")
            left -= len(piece)
            yield piece
        yield self._after


def _part(boundary: str, disposition: str, text: str, more: str = "") -> str:
    """A field; of one that is long, all that goes before its content, and that without its end."""
    end = "" if more else "\r\n"
    return f"--{boundary}\r\nContent-Disposition: form-data; {disposition}\r\n{more}\r\n{text}{end}"
