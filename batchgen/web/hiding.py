"""The last thing that is done to a page: no secret leaves in it, though none should be there."""

from collections.abc import Callable

from batchgen.config import Config, secrets_of
from batchgen.jobs.configured_servers import configured_servers


def hiding(config: Config) -> Callable[[str], str]:
    """What is stored has no secrets any more; this is for what nobody has thought of."""
    secrets_ = [secrets_of(one.model) for one in configured_servers(config)]

    def hide(text: str) -> str:
        for one in secrets_:
            text = one.hide_in_answer(text)
        return text

    return hide
