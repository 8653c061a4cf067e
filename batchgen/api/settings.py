"""The keywords of a pipeline: every setting of docs/config.md by its name, for type checkers and
editors. What a value must be is checked in `config`."""

from collections.abc import Sequence
from pathlib import Path

from batchgen.api.model_settings import ModelSettings, Values
from batchgen.api.step import Step


class Settings(ModelSettings, total=False):
    """A section as a mapping, or any setting in one by its name."""

    model: str | Values
    prompts: Values
    output_data: Values
    work: Values
    batch: Values

    provider: str
    user: str | None

    system_prompt_path: str | Path | None
    user_prompt_path: str | Path | None
    system_prompt: str | None
    user_prompt: str | None

    output_dir: str | Path
    experiment_name: str
    need_time_stamp: bool

    database: str | Path
    parser: str
    structured_output: bool
    steps: Sequence[Step | Values] | None
    result: str | Sequence[str] | None
    log_dir: str | Path

    concurrency: int
    adaptive: bool
    timeout_s: float
    max_attempts: int
    parse_attempts: int
    retry_wait_s: float
    parse_feedback: bool
    parse_timeout_s: float
    stall_s: float
    grace_s: float
    lease_s: float
    patience_s: float

    max_requests: int
    max_mb: int
    max_open: int
    max_enqueued_tokens: int | None
    completion_window: str
    poll_s: float
    probe: bool
    delete_files: bool
