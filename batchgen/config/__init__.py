"""Settings: what there is to set, and where a value comes from.

This is the door. Behind it:

    settings     the table of all settings: the reference
    values       what they are, section by section
    kinds        what a value must be
    sent         headers, and what is added to the URL
    price        what tokens cost
    servers      several servers or keys for one run
    steps        several calls for each item: step_settings are the reference, step_list reads them
    sources      defaults < file < environment < overrides
    strict_yaml  the file
    secrets      what of them no text may show

An error is one line: the file or the variable, the key's path, what is wrong. Neither the API key
nor a base_url, in which somebody may have hidden one, is ever quoted.
"""

from typing import TYPE_CHECKING

from batchgen.on_demand import names_on_demand

__all__ = [
    "BatchConfig", "Config", "Leaf", "ModelConfig", "OutputConfig", "Price", "PromptsConfig",
    "Secrets", "SentValue", "SentValues", "ServerConfig", "StepConfig", "StepKey", "StepPrompt",
    "WorkConfig", "gives_key", "leaf_table", "load", "missing_variables", "model_of",
    "model_setting", "place_in", "plan_of", "secrets_of", "server_names", "step_keys",
]  # fmt: skip

if TYPE_CHECKING:
    from batchgen.config.price import Price
    from batchgen.config.secrets import Secrets, secrets_of
    from batchgen.config.sent import SentValue, SentValues, gives_key, missing_variables
    from batchgen.config.servers import ServerConfig, server_names
    from batchgen.config.settings import Leaf, leaf_table
    from batchgen.config.sources import load, model_setting
    from batchgen.config.step_settings import StepKey, step_keys
    from batchgen.config.steps import StepConfig, StepPrompt, model_of, place_in, plan_of
    from batchgen.config.values import (
        BatchConfig,
        Config,
        ModelConfig,
        OutputConfig,
        PromptsConfig,
        WorkConfig,
    )
else:
    __getattr__ = names_on_demand(
        __name__, __all__,
        "values", "settings", "price", "sent", "servers", "sources", "secrets", "steps",
        "step_settings",
    )  # fmt: skip
