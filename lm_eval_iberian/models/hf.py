"""`merged` on transformers: lm_eval's HFLM, whose weights are streamed in."""

from __future__ import annotations

import difflib
import inspect
import logging
from collections.abc import Mapping
from functools import cached_property, partial
from typing import Any

from lm_eval.models.huggingface import HFLM

from lm_eval_iberian.models.hf_answers import Answers
from lm_eval_iberian.models.merge import Prepared, Swapping, prepare, switched_on, way_of_swapping
from merge_hooks.engines.hf import build_model, swap_into
from merge_hooks.engines.hf_quantised import QUANTISED
from merge_hooks.errors import EngineError
from merge_hooks.recipe.signature import Signature
from merge_hooks.resolve.resolver import refuse_changed
from merge_hooks.sources.residents import residents_for
from merge_hooks.sources.trust import trusts
from merge_hooks.stream.tokenizer import generation_config_of

# Below lm_eval's own logger, whose handler and level its command line sets.
LOG = logging.getLogger("lm_eval.iberian")

# Arguments of HFLM that load or change weights in a way that a stream cannot follow.
REFUSED = ("parallelize", "peft", "delta", "autogptq", "gptqmodel", "gguf_file", "tp_plan", "quantization_config",
           "load_in_4bit", "load_in_8bit", "subfolder")  # fmt: skip


# Arguments that are passed on to the model's class.
MODEL_OPTIONS = {"attn_implementation"}


class MergedHF(Swapping, Answers, HFLM):
    """lm_eval's `hf` with merged weights.

    Args:
        recipe: a file, a folder or Hub model with mergekit_config.yml, inline YAML, a preset, or a mapping.
        pretrained: instead of a recipe, a plain model.
        tokenizer: overrides the recipe's tokenizer.
        dtype: of the parameters; "auto" follows the recipe.
        scoring: how log-likelihoods are computed: "prefix" (see hf_scoring.py) or "full" (lm_eval's way).
        resident: for many swaps: where the sources are kept ("auto", "gpu", "pinned", "memory", "mapped"); "off".
        swap: how another merge comes in: into the model's own parameters ("auto", "always"), or the model is made anew
            before ("never").
        proof: "on": after each load and swap the model's parameters and buffers are proved to be the merge's; "off".
        quantization: "bnb_int8" or "bnb_nf4": linear layers are quantised by bitsandbytes as the merge comes in.
        arguments: HFLM's own, and instead of `recipe` those of the short form (method, base, models, ...).
    """

    swaps_generation = True

    def __init__(
        self,
        recipe: str | Mapping[str, Any] | None = None,
        pretrained: str | None = None,
        revision: str | None = None,
        dtype: str | None = "auto",
        tokenizer: str | None = None,
        trust_remote_code: bool = False,
        scoring: str = "prefix",
        resident: str = "off",
        swap: str = "auto",
        proof: str | bool = "on",
        **arguments: Any,
    ) -> None:
        _refuse(arguments)
        trust_remote_code = trusts(trust_remote_code)
        self._swaps, self._proves = way_of_swapping(swap), switched_on("proof", proof)
        self.choose_scoring(scoring)
        if arguments.get("device") is None:
            arguments["device"] = _default_device()  # HFLM's own is "cuda", there or not
        _refuse_absent(arguments["device"])
        self.prepared: Prepared = prepare(
            recipe, pretrained, revision, dtype, tokenizer, trust_remote_code, arguments,
            holds_model=str(arguments["device"]).startswith("cpu"), residents=residents_for(resident),
        )  # fmt: skip
        _refuse_unknown(arguments)
        self.arguments = {**arguments, "scoring": scoring, "trust_remote_code": trust_remote_code}
        self._quantization = arguments.pop("quantization", None) or ""
        super().__init__(
            pretrained=str(self.prepared.resolved.donor.folder),
            dtype=self.prepared.dtype,
            tokenizer=self.prepared.tokenizer.load(arguments.get("add_bos_token")),
            trust_remote_code=trust_remote_code,
            **arguments,
        )
        self.sum_in_float32()

    def _get_config(self, pretrained: str, **_: Any) -> None:
        """The merged model's configuration, which may have another layer count than any source."""
        self._config = self.prepared.stream.model_config

    def _create_model(self, pretrained: str, dtype: Any = "auto", **options: Any) -> None:
        """lm_eval's hook for making the model: made empty on its device, then filled from the stream."""
        options = {key: value for key, value in options.items() if key in MODEL_OPTIONS}
        build: Any = build_model
        self._build = partial(
            build, device=self.device, dtype=dtype, proof=self._proves, quantization=self._quantization, **options
        )
        self._model = self._build(self.prepared.stream, generation_folder=self.prepared.tokenizer.generation_folder)
        refuse_changed(self.prepared.resolved)

    def _encode_all(self, texts: list[str]) -> list[list[int]]:
        """Texts that begin with BOS get no second one, as in HFLM's `tok_encode`."""
        bos = self.tokenizer.decode(self.prefix_token_id)
        usual = {} if self.add_bos_token is None else {"add_special_tokens": self.add_bos_token}
        tokens: dict[str, list[int]] = {}
        for options, some in (({"add_special_tokens": False}, [text for text in texts if text.startswith(bos)]),
                              (usual, [text for text in texts if not text.startswith(bos)])):  # fmt: skip
            if some:
                tokens |= zip(some, self.tokenizer(some, **options)["input_ids"], strict=True)
        return [tokens[text] for text in texts]

    def _put_in(self, prepared: Prepared) -> str:
        """Fill the parameters in place, and take over what generates with them. See `Swapping.swap`."""
        folder = prepared.tokenizer.generation_folder
        if self._swaps == "never":
            self._model = None  # one at a time in memory
            self._model = self._build(prepared.stream, generation_folder=folder)
        digest = swap_into(self.model, prepared.stream, self._proves)
        self.model.generation_config = generation_config_of(folder, prepared.stream.model_config)
        return digest

    @cached_property
    def signature(self) -> Signature:
        """The stamp of what is measured."""
        return self._sign(self._dtype_name, "transformers", self._quantization)

    @property
    def _dtype_name(self) -> str:
        return str(self.model.dtype).removeprefix("torch.")

    def get_model_info(self) -> dict[str, Any]:
        """For the results JSON: parameters, dtype, and the merge's recipe, sources and signature."""
        info = self.prepared.info("hf", self._dtype_name, self.signature, self.arguments)
        info["iberian"] |= self.answers.told()
        info["iberian"]["proof"] = "proved" if self._proves else "off"
        return {"model_num_parameters": self.model.num_parameters(), **info}


def _default_device() -> str:
    """The accelerator if there is one, else the CPU."""
    import torch

    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found.type if found is not None else "cpu"


def _refuse_absent(device: object) -> None:
    """Refuse a GPU that is not here, before sources are read; HFLM takes another device for a name that it does not know."""
    import torch

    there = torch.accelerator.device_count() if torch.accelerator.is_available() else 0
    try:
        asked = torch.device(str(device))
    except RuntimeError:
        raise EngineError(f"device={device}: torch knows no such device. Give cpu, cuda or cuda:N.") from None
    if str(device) == "cuda:0" and not there:
        return  # lm_eval's command line says this by itself; HFLM then takes the CPU
    if asked.type != "cpu" and (asked.index or 0) >= there:
        raise EngineError(
            f"device={device}: torch finds {there} GPUs here. Leave it out to take what is there, or give cpu."
        )


def _refuse(arguments: dict[str, Any]) -> None:
    given = [name for name in REFUSED if arguments.get(name)]
    if given:
        raise EngineError(
            f"{', '.join(given)}: not with the model `merged`, whose weights are streamed in. "
            "For models too large for one GPU use backend=vllm,tensor_parallel_size=N; to quantise a merge as it comes, "
            f"quantization={' or '.join(QUANTISED)}."
        )
    for name in REFUSED:
        arguments.pop(name, None)


def _refuse_unknown(arguments: Mapping[str, Any]) -> None:
    """Refuse unknown arguments: HFLM hands them to from_pretrained, which is not called here."""
    known = set(inspect.signature(HFLM.__init__).parameters) | MODEL_OPTIONS | {"quantization"}
    strange = [name for name in arguments if name not in known]
    if strange:
        close = difflib.get_close_matches(strange[0], [*known, "method", "models", "density", "weight"], n=1)
        raise EngineError(
            f"{', '.join(strange)}: no such argument of the model `merged` on transformers, nor of this recipe."
            + (f" Did you mean {close[0]}?" if close else "")
        )
