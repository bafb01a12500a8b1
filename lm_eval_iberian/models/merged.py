"""The model `merged`: lm_eval's own back ends, fed with merged weights.

    lm_eval --model merged --model_args recipe=merge.yml,dtype=bfloat16 --tasks iberian_suite

`Merged(...)` picks the back end (backends.py) and returns its model. Their classes are heavy, and are imported only when
one is made.
"""

from __future__ import annotations

import logging
from typing import Any

from lm_eval.api.model import LM
from lm_eval.utils import simple_parse_args_string

from lm_eval_iberian.models.backends import choose_backend, named
from lm_eval_iberian.noise import quieten, wrap_logs

# Below lm_eval's own logger, whose handler and level its command line sets.
LOG = logging.getLogger("lm_eval.iberian")


class Merged(LM):
    """What lm_eval knows as `merged`. Making one returns an object of the chosen back end's class.

    Args:
        backend: "vllm", "hf" (transformers), "server" (a vLLM server that runs already, at base_url=), or "auto": vLLM
            if it is installed and its device is there.
        arguments: `recipe=` or `pretrained=`, and every argument of lm_eval's `VLLM` or `HFLM`.
    Raises:
        EngineError: the back end is not installed, or there is no such back end.
    """

    def __new__(cls, backend: str = "auto", **arguments: Any) -> Any:
        quieten()
        wrap_logs()
        chosen = choose_backend(backend)
        LOG.info("merged: backend=%s%s", chosen, " (chosen by backend=auto)" if backend == "auto" else "")
        return named(chosen).make(**arguments)

    @classmethod
    def create_from_arg_obj(cls, arg_dict: dict[str, Any], additional_config: dict[str, Any] | None = None) -> Any:
        """As lm_eval makes a model of --model_args. What they say counts, above the batch size and device that lm_eval
        gives by itself: it would end in a TypeError over two values.
        """
        more = {key: value for key, value in (additional_config or {}).items() if key not in arg_dict}
        return super().create_from_arg_obj(arg_dict, more)

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: dict[str, Any] | None = None) -> Any:
        """The same of a text."""
        return cls.create_from_arg_obj(simple_parse_args_string(arg_string), additional_config)
