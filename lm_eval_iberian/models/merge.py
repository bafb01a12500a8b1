"""What both back ends need before they start: the recipe read, its sources checked, tokenizer and dtype chosen.

`prepare` does all of it, and finds mistakes in the order in which they are cheapest to find: the recipe's text, its
sources, whether they fit, the tokenizer. Only then does an engine start.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from lm_eval_iberian.identity.identity import Identity, counting, of_model
from merge_hooks.checks.estimate import refuse_too_large
from merge_hooks.checks.preflight import check_fit, fit_notes, table
from merge_hooks.checks.swap import check_swap
from merge_hooks.errors import EngineError, PreflightError, RecipeError, SourceError, explained
from merge_hooks.hashing import digest, template_hash
from merge_hooks.machine.deadline import OutOfTime, within
from merge_hooks.machine.stopping import unwind_on_sigterm
from merge_hooks.planning.config import dump_config
from merge_hooks.recipe.recipe import Recipe, passthrough
from merge_hooks.recipe.resolved import Resolved
from merge_hooks.recipe.short_form import refuse_errors, take_recipe
from merge_hooks.recipe.signature import Signature, sign
from merge_hooks.resolve.resolver import refuse_changed, resolve
from merge_hooks.sources.headers import FLOATS
from merge_hooks.sources.residents import Residents
from merge_hooks.stream.stream import Stream, open_stream
from merge_hooks.stream.template import RENDER_SECONDS
from merge_hooks.stream.tokenizer import (
    TokenizerChoice,
    choose_tokenizer,
    end_tokens,
    generation_hash,
    generation_settings,
)
from merge_hooks.texts import seen, shortened

# Below lm_eval's own logger, whose handler and level its command line sets.
LOG = logging.getLogger("lm_eval.iberian")
SWAPS = ("auto", "always", "never")
# Other names of dtypes, which engines take; signatures have one.
SAME_DTYPE = {"half": "float16", "float": "float32"}
MIXED = "the last swap broke off, so the engine holds weights of two merges. Swap again."


@dataclass(frozen=True)
class Prepared:
    """A merge that is ready to be loaded.

    Args:
        stream: its tensors.
        tokenizer: what it reads and writes with.
        dtype: what the engine is to compute in ("auto": as the merged configuration says).
        rows: the preflight table.
    """

    stream: Stream
    tokenizer: TokenizerChoice
    dtype: str
    rows: list[dict[str, str]]

    @property
    def resolved(self) -> Resolved:
        return self.stream.resolved

    @cached_property
    def generation_config(self) -> dict[str, Any]:
        """The generation settings that hold where a task says nothing, as plain data."""
        return generation_settings(self.tokenizer.generation_folder, self.stream.model_config)

    def info(
        self, backend: str, dtype: str, signature: Signature, arguments: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """The part of lm_eval's results JSON under "config": all that `lm_eval_iberian.identity` asks of a model.

        Args:
            arguments: those that the model was made with, without the recipe's.
        """
        facts = self.tokenizer.facts
        return {
            "model_dtype": dtype,
            "iberian": {
                "signature": signature.format(short=False),
                "signature_short": signature.format(short=True),
                "signature_digest": signature.digest,
                "weights": signature.weights,
                "backend": backend,
                "arguments": counting(arguments or {}),
                "versions": dict(signature.versions),
                "recipe": self.resolved.recipe.text,
                "recipe_origin": self.resolved.recipe.origin,
                "recipe_resolved": dump_config(self.resolved.config),
                "sources": [
                    {"name": source.name, "folder": str(source.folder), "revision": source.revision,
                     "fingerprint": source.fingerprint()}
                    for source in self.resolved.sources.values()
                ],
                "tokenizer": self.tokenizer.origin,
                "tokenizer_hash": facts.hash,
                "chat_template_hash": template_hash(facts.template),
                "generation_config": self.generation_config,
            },
        }  # fmt: skip


@explained("this merge cannot be prepared")
def prepare(
    recipe: str | Mapping[str, Any] | None,
    pretrained: str | None,
    revision: str | None = None,
    dtype: str | None = "auto",
    tokenizer: str | None = None,
    trust_remote_code: bool = False,
    arguments: MutableMapping[str, Any] | None = None,
    holds_model: bool = False,
    residents: Residents | None = None,
) -> Prepared:
    """Read, resolve and check a merge (`recipe`) or a plain model (`pretrained`, scored through the same code).

    Args:
        arguments: all other arguments of the model. Those of the merge are taken out: `merge_seed` and `rng` (for
            random methods), and those of the short form (`method=...,models=...`) or of a preset. The engine's are
            left.
        holds_model: whether the model will lie in this machine's memory, which must then be large enough.
        residents: where this process keeps the sources between swaps.
    Raises:
        RecipeError, SourceError, PreflightError: with what to mend.
    """
    unwind_on_sigterm()  # temporary folders are made from here on
    given = _dtype_of(dtype)
    arguments = {} if arguments is None else arguments
    seed, rng = _draws(arguments)
    written = _written(recipe, pretrained, revision, dtype, arguments)
    stream = open_stream(resolve(written, seed, rng, trust_remote_code), residents=residents)
    rows = check_fit(stream)
    choice = choose_tokenizer(stream, tokenizer)
    LOG.info("merged: %s of\n%s", stream.resolved.method, seen(table(rows)))
    for note in fit_notes(stream):
        LOG.warning("merged: %s", shortened(seen(note), 2000))
    LOG.info("merged: tokenizer and generation config from %s", seen(choice.origin))
    chosen = stream.resolved.dtype or "auto" if given == "auto" else given
    refuse_too_large(stream, None if chosen == "auto" else chosen, holds_model)
    _ = stream.resolved.prints  # before the weights are read: the signature must not stamp what lies there hours later
    _ = choice.facts  # before an engine starts, and gives the tokenizer a token to pad with
    prepared = Prepared(stream, choice, chosen, rows)
    end_tokens(prepared.generation_config)  # damaged settings are found now, and not in the engine
    return prepared


def _dtype_of(given: object) -> str:
    """The name of a dtype in which weights can be, or "auto". Raises EngineError before anything is read."""
    name = "auto" if given is None else str(given).removeprefix("torch.")
    name = SAME_DTYPE.get(name, name)
    if name not in ("auto", *FLOATS.values()):
        raise EngineError(f"dtype={given}: no dtype of weights. Give one of auto, {', '.join(FLOATS.values())}.")
    return name


@explained("this merge cannot be prepared")
def prepare_swap(running: Prepared, resolved: Resolved, swaps_generation: bool = False) -> Prepared:
    """Check, before a weight is changed, that a merge can follow the running one in its engine.

    Args:
        swaps_generation: whether the engine takes the merge's generation config with its weights.
    Raises:
        PreflightError: it is another model, or one that reads and writes with another tokenizer.
    """
    # As at the engine's start: code that was not trusted then is not trusted now.
    resolved = replace(resolved, trust_remote_code=running.resolved.trust_remote_code)
    stream = open_stream(resolved, residents=running.stream.residents)
    rows = check_swap(running.stream, stream)
    choice = _tokenizer_after(running, stream, swaps_generation)
    refuse_changed(resolved)  # by somebody who holds it since another swap
    prepared = replace(running, stream=stream, rows=rows, tokenizer=choice)
    _ = prepared.generation_config  # as in `prepare`: before the weights are read
    return prepared


class Swapping:
    """What a back end needs for swaps: a mixin of `MergedVLLM` and `MergedHF`.

    Signature and results are those of the new merge as soon as its weights are in. If a swap breaks off and leaves
    weights of both merges in the engine, there is no signature, and so no result, until another swap succeeds.
    """

    prepared: Prepared
    tokenizer: Any
    swap_digest: str | None = None  # of the weights in the engine, where it is known
    was_started_anew = False  # whether the last swap took another engine
    # Whether the engine takes a merge's generation config with its weights; else it must be the running one's.
    swaps_generation = False
    # The arguments that the model was made with, without the recipe's; and those of the class that change an answer.
    arguments: Mapping[str, Any] = {}
    # Why no number can come from the engine now; "" where one can.
    _unusable = ""

    def swap(self, resolved: Resolved) -> str:
        """Put another merge of the same model into the running engine.

        Returns:
            The digest of the weights that went in (`merge_hooks.engines.weights_digest`), also kept as `swap_digest`.
            It is the same for the same recipe in any engine.
        Raises:
            PreflightError: another model or tokenizer than the engine runs with; nothing was changed.
            SourceError: a source holds NaN, or changed on disk, found while the weights went in.
            EngineError: the engine kept something of the old weights.
        """
        prepared = prepare_swap(self.prepared, resolved, self.swaps_generation)
        self.__dict__.pop("signature", None)
        self._unusable = MIXED
        self.swap_digest = None
        digest = self._put_in(prepared)
        refuse_changed(prepared.resolved)
        self._use_template(prepared.tokenizer.facts.template)
        self.prepared, self.swap_digest, self._unusable = prepared, digest, ""
        return digest

    def _use_template(self, template: Any) -> None:
        self.tokenizer.chat_template = template

    @contextmanager
    def template_named(self, name: str | None) -> Iterator[None]:
        """Prompt with the template of this name, where the tokenizer has several (`--apply_chat_template NAME`).

        lm_eval writes the named one's hash into its results, and prompts with the default one.

        Raises:
            EngineError: there are several, and none of that name.
        """
        templates = self.prepared.tokenizer.facts.template
        if name is None or not isinstance(templates, dict):
            yield
            return
        if name not in templates:
            raise EngineError(
                f"--apply_chat_template {name}: no template of that name in {self.prepared.tokenizer.origin}. There are: "
                f"{', '.join(sorted(templates))}."
            )
        before = self.tokenizer.chat_template
        self._use_template(templates[name])
        try:
            yield
        finally:
            self._use_template(before)

    @property
    def tokenizer_name(self) -> str:
        """What lm_eval's `--cache_requests` tells prompts apart by: two merges may have other templates on one tokenizer,
        and arguments (enable_thinking) change what a template makes."""
        facts = self.prepared.tokenizer.facts
        return f"{facts.hash}-{template_hash(self.tokenizer.chat_template)}-{digest(counting(self.arguments))}"

    def apply_chat_template(self, *arguments: Any, **options: Any) -> str:
        """lm_eval's, in bounded time. Raises SourceError for a template that does not end on this conversation."""
        try:
            with within(RENDER_SECONDS):
                return str(super().apply_chat_template(*arguments, **options))  # type: ignore[misc]
        except OutOfTime:
            raise SourceError(
                f"{self.prepared.tokenizer.origin}: its chat template does not end within {RENDER_SECONDS:.0f} s on one "
                "of the conversations. Name another with `chat_template:` or tokenizer=."
            ) from None

    def _refuse_unusable(self) -> None:
        if self._unusable:
            raise EngineError(self._unusable)

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> Any:
        """lm_eval's, from one whole merge or not at all."""
        self._refuse_unusable()
        return super().loglikelihood(requests, disable_tqdm=disable_tqdm)  # type: ignore[misc]

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> Any:
        """lm_eval's, from one whole merge or not at all."""
        self._refuse_unusable()
        return super().loglikelihood_rolling(requests, disable_tqdm=disable_tqdm)  # type: ignore[misc]

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> Any:
        """lm_eval's, from one whole merge or not at all."""
        self._refuse_unusable()
        return super().generate_until(requests, disable_tqdm=disable_tqdm)  # type: ignore[misc]

    def _put_in(self, prepared: Prepared) -> str:
        raise NotImplementedError

    @property
    def identity(self) -> Identity:
        """Everything that an answer depends on; names the file of `--use_cache`."""
        return of_model(self.get_model_info(), self.arguments.get("seed"))

    def get_model_info(self) -> dict[str, Any]:
        raise NotImplementedError

    def _sign(self, dtype: str, engine: str, quantization: str = "") -> Signature:
        self._refuse_unusable()
        return sign_model(self.prepared, dtype, engine, quantization)


def _tokenizer_after(running: Prepared, stream: Stream, swaps_generation: bool) -> TokenizerChoice:
    """What the merge reads and writes with, as if its engine had started with it.

    Raises:
        PreflightError: the engine has something else.
    """
    ours = running.tokenizer
    wanted = choose_tokenizer(stream, ours.folder if ours.is_named else None)
    if wanted.facts.hash != ours.facts.hash:
        what = "tokenizer"
    elif swaps_generation or end_tokens(running.generation_config) == end_tokens(
        generation_settings(wanted.generation_folder, stream.model_config)
    ):
        return wanted
    else:
        what = "end tokens (generation_config.json)"
    raise PreflightError(
        f"{stream.resolved.recipe.origin}: this merge has the {what} of {wanted.origin}, the engine runs with that "
        f"of {ours.origin}. Start a new engine for it, or name one for all with tokenizer=FOLDER."
    )


def way_of_swapping(swap: str) -> str:
    """The argument `swap`. Raises EngineError if it is none of SWAPS."""
    if swap not in SWAPS:
        raise EngineError(f"swap={swap}: there is no such way. Give one of {', '.join(SWAPS)}.")
    return swap


def switched_on(name: str, value: str | bool) -> bool:
    """An argument that is "on" or "off". Raises EngineError if it is neither."""
    if isinstance(value, bool):
        return value
    if value not in ("on", "off"):
        raise EngineError(f"{name}={value}: give on or off.")
    return value == "on"


def _draws(arguments: MutableMapping[str, Any]) -> tuple[int, str]:
    """Seed and generator for methods that draw at random. An argument `seed` is the engine's."""
    seed = arguments.pop("merge_seed", 0)
    try:
        return int(seed), str(arguments.pop("rng", "iberian"))
    except ValueError:
        raise RecipeError(f"merge_seed={seed}: a whole number is wanted.") from None


def _written(
    recipe: str | Mapping[str, Any] | None,
    pretrained: str | None,
    revision: str | None,
    dtype: str | None,
    arguments: MutableMapping[str, Any],
) -> Recipe:
    """The recipe that the arguments name, checked for keys that mergekit would ignore; its warnings are logged."""
    merged = take_recipe(recipe, arguments, dtype)
    if (merged is None) == (pretrained is None):
        given = "both were" if merged is not None else "neither was"
        raise RecipeError(
            f"the model `merged` wants recipe= (a merge) or pretrained= (a plain model); {given} given. "
            "Example: --model_args recipe=merge.yml,dtype=bfloat16"
        )
    if merged is None:
        return passthrough(str(pretrained), revision)
    refuse_errors(merged)
    for finding in merged.findings:
        LOG.warning("%s", seen(finding.message))
    return merged


def sign_model(prepared: Prepared, dtype: str, engine: str, quantization: str = "") -> Signature:
    """The signature of a prepared merge in the engine that runs it, or will."""
    facts = prepared.tokenizer.facts
    return sign(
        prepared.resolved,
        dtype=dtype,
        tokenizer=facts.hash,
        template=template_hash(facts.template),
        generation=generation_hash(prepared.generation_config),
        engine=engine,
        quantization=quantization,
    )
