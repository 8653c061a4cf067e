"""A wire between a client and a PostgreSQL server that can be cut just where it matters."""

import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum, auto
from pathlib import Path

import psycopg

from batchgen.database_address import PostgresAddress, address_of


class Cut(Enum):
    BEFORE_COMMIT = auto()  # it is never sent
    AFTER_COMMIT = auto()  # it has landed, and nobody hears of it
    SERVER_UNAWARE = auto()  # it is never sent, and the server goes on waiting for it


class Wire:
    """Cut once, at the next COMMIT, when `cut` says so. Then it is whole again."""

    def __init__(self, address: PostgresAddress) -> None:
        parts = psycopg.conninfo.conninfo_to_dict(address.url)
        self._server = str(Path(str(parts["host"])) / f".s.PGSQL.{parts['port']}")
        self._listener = socket.create_server(("127.0.0.1", 0))
        host, port = self._listener.getsockname()
        url = f"postgresql://{parts['user']}@{host}:{port}/{parts['dbname']}?sslmode=disable"
        self.address = address_of(f"{url}&gssencmode=disable")
        self.cut: Cut | None = None
        self.cuts = 0
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):  # wakes up who accepts
            self._listener.shutdown(socket.SHUT_RDWR)
        for one in (self._listener, *self._open):
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._server)
            self._open += [client, server]
            for way in ((client, server, False), (server, client, True)):
                threading.Thread(target=self._pump, args=way, daemon=True).start()

    def _pump(self, source: socket.socket, to: socket.socket, is_answer: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 20):
                if self._is_to_be_cut(data, is_answer):
                    break
                to.sendall(data)
        unaware = self.cuts and self.cut is Cut.SERVER_UNAWARE
        for one in (source,) if unaware else (source, to):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _is_to_be_cut(self, data: bytes, is_answer: bool) -> bool:
        """The statement is seen where it is sent for the first time on a connection."""
        word = b"COMMIT\0" if is_answer else b"commit\0"
        if self.cuts or self.cut is None or word not in data:
            return False
        if is_answer is not (self.cut is Cut.AFTER_COMMIT):
            return False
        self.cuts += 1
        return True


@contextmanager
def wire_to(address: PostgresAddress) -> Iterator[Wire]:
    wire = Wire(address)
    try:
        yield wire
    finally:
        wire.close()


class LossyWire:
    """As `Wire`, for as long as one likes: of the answers to COMMIT, this part is swallowed, and
    the connection with it. It has landed then."""

    def __init__(self, socket_path: Path, host: str = "127.0.0.1", seed: int = 0) -> None:
        self.chance = 0.0
        self.commits = self.swallowed = 0
        self._server = str(socket_path)
        self._rng = random.Random(seed)
        self._listener = socket.create_server((host, 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server:
            try:
                server.connect(self._server)
            except OSError:
                return  # it does not run; who asks is told by an end
            asked = threading.Thread(target=self._pump, args=(client, server, False), daemon=True)
            asked.start()
            self._pump(server, client, True)
            asked.join()

    def _pump(self, source: socket.socket, to: socket.socket, is_answer: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 20):
                if is_answer and b"COMMIT\0" in data:
                    self.commits += 1
                    if self._rng.random() < self.chance:
                        self.swallowed += 1
                        break
                to.sendall(data)
        for one in (source, to):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
