"""`merged` on transformers: lm_eval's HFLM, whose weights are streamed in."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from lm_eval.models.huggingface import HFLM

from lm_eval_iberian.models.merge import Prepared, prepare, sign_model
from merge_hooks.errors import EngineError
from merge_hooks.hf_loader import build_model
from merge_hooks.signature import Signature

LOG = logging.getLogger(__name__)

# Arguments of HFLM that load or change weights in a way that a stream cannot follow.
REFUSED = ("parallelize", "peft", "delta", "autogptq", "gptqmodel", "gguf_file", "tp_plan", "quantization_config",
           "load_in_4bit", "load_in_8bit", "subfolder")  # fmt: skip


class MergedHF(HFLM):
    """lm_eval's `hf` with merged weights.

    Args:
        recipe: a file, a folder or Hub model with mergekit_config.yml, inline YAML, or a mapping.
        pretrained: instead of a recipe, a plain model.
        tokenizer: overrides the recipe's tokenizer.
        dtype: of the parameters; "auto" follows the recipe.
        arguments: HFLM's own.
    """

    def __init__(
        self,
        recipe: str | Mapping[str, Any] | None = None,
        pretrained: str | None = None,
        revision: str | None = None,
        dtype: str | None = "auto",
        tokenizer: str | None = None,
        trust_remote_code: bool = False,
        **arguments: Any,
    ) -> None:
        _refuse(arguments)
        if arguments.get("device") is None:
            arguments.pop("device", None)
        self.prepared: Prepared = prepare(recipe, pretrained, revision, dtype, tokenizer, trust_remote_code)
        super().__init__(
            pretrained=str(self.prepared.resolved.donor.folder),
            dtype=self.prepared.dtype,
            tokenizer=self.prepared.tokenizer.load(),
            trust_remote_code=trust_remote_code,
            **arguments,
        )

    def _get_config(self, pretrained: str, **_: Any) -> None:
        """The merged model's configuration, which may have another layer count than any source."""
        self._config = self.prepared.stream.model_config

    def _create_model(self, pretrained: str, dtype: Any = "auto", **options: Any) -> None:
        """HFLM's hook for making the model: made empty on its device, then filled from the stream."""
        known = {"attn_implementation"}
        self._model = build_model(
            self.prepared.stream,
            device=self.device,
            dtype=dtype,
            generation_folder=self.prepared.tokenizer.generation_folder,
            **{key: value for key, value in options.items() if key in known},
        )

    @cached_property
    def signature(self) -> Signature:
        """The stamp of what is measured."""
        return sign_model(self.prepared, self._dtype_name, "transformers", self.tokenizer, None)

    @property
    def _dtype_name(self) -> str:
        return str(self.model.dtype).removeprefix("torch.")

    def get_model_info(self) -> dict[str, Any]:
        """For the results JSON: parameters, dtype, and the merge's recipe, sources and signature."""
        info = self.prepared.info("hf", self._dtype_name, self.signature, self.tokenizer)
        return {"model_num_parameters": self.model.num_parameters(), **info}


def _refuse(arguments: dict[str, Any]) -> None:
    given = [name for name in REFUSED if arguments.get(name)]
    if given:
        raise EngineError(
            f"{', '.join(given)}: not with the model `merged`, whose weights are streamed in. "
            "For models too large for one GPU use backend=vllm,tensor_parallel_size=N."
        )
    for name in REFUSED:
        arguments.pop(name, None)

