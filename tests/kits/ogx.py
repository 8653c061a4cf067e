"""ogx with its own files and batches, on loopback, before a model server. It is no dependency: it
needs a Python of its own, and Python 3.12.

    python3.12 -m venv /tmp/ogx && /tmp/ogx/bin/pip install ogx==1.5.0
    BATCHGEN_OGX=/tmp/ogx/bin/ogx python3 dev.py test --slow -k ogx
"""

import asyncio
import os
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

OGX = os.environ.get("BATCHGEN_OGX") or shutil.which("ogx")
WHY_NOT = "ogx is not on PATH, and BATCHGEN_OGX does not name it (tests/kits/ogx.py)"
MODEL = "up/simulated"
_STARTED = b"Uvicorn running on"
_START_S = 120
_CONFIG = """
version: 2
distro_name: batches
apis: [batches, files, inference]
providers:
  inference:
  - provider_id: up
    provider_type: remote::openai
    config: {{base_url: "{model_server}", api_key: sk-behind-ogx}}
  files:
  - provider_id: localfs
    provider_type: inline::localfs
    config:
      storage_dir: {directory}/files
      metadata_store: {{table_name: files_metadata, backend: sql}}
  batches:
  - provider_id: reference
    provider_type: inline::reference
    config:
      sqlstore: {{table_name: batches, backend: sql}}
      max_concurrent_batches: 1
      max_concurrent_requests_per_batch: 4
storage:
  backends:
    kv: {{type: kv_sqlite, db_path: {directory}/kv.db}}
    sql: {{type: sql_sqlite, db_path: {directory}/sql.db}}
  stores:
    metadata: {{namespace: registry, backend: kv}}
    inference: {{table_name: inference_store, backend: sql}}
    conversations: {{table_name: openai_conversations, backend: sql}}
    prompts: {{table_name: prompts, backend: sql}}
    connectors: {{table_name: connectors, backend: sql}}
server: {{host: 127.0.0.1, port: {port}}}
"""


class Ogx:
    """Keeps what it knows in `directory`, so that it may be killed and started again."""

    def __init__(self, directory: Path, model_server: str) -> None:
        self.directory = directory
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._process: asyncio.subprocess.Process
        (directory / "files").mkdir(parents=True)
        config = _CONFIG.format(model_server=model_server, directory=directory, port=self.port)
        (directory / "ogx.yaml").write_text(config)

    async def start(self) -> None:
        assert OGX is not None
        env = {"PATH": os.environ["PATH"], "HOME": str(self.directory), "OTEL_SDK_DISABLED": "true",
               "OGX_TELEMETRY": "0", "COLUMNS": "200"}  # fmt: skip
        self._process = await asyncio.create_subprocess_exec(
            OGX, "run", str(self.directory / "ogx.yaml"), "--port", str(self.port), "--insecure",
            env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        assert self._process.stdout is not None
        async with asyncio.timeout(_START_S):
            log = b""
            while _STARTED not in log:
                line = await self._process.stdout.readline()
                assert line, f"ogx did not start: {log.decode(errors='replace')[-2000:]}"
                log += line
        self._reading = asyncio.create_task(self._process.stdout.read(), name="the log of ogx")

    async def kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        await self._reading


@asynccontextmanager
async def ogx_before(model_server: str, directory: Path) -> AsyncIterator[Ogx]:
    """One that asks that server."""
    ogx = Ogx(directory, model_server)
    await ogx.start()
    try:
        yield ogx
    finally:
        await ogx.kill()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
