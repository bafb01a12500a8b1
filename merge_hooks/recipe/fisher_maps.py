"""The Fisher maps of a recipe: found on disk, hashed for the signature, and checked before a weight is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from merge_hooks.errors import FisherError
from merge_hooks.hashing import file_hash_once
from merge_hooks.sources.fisher_file import FisherMap

METHOD = "fisher"
PARAMETER = "fisher"


def localise_maps(config: Any, beside: Path | None) -> Any:
    """A MergeConfiguration whose maps are absolute paths: from the current folder, else from the recipe's.

    Raises:
        FisherError: a map is not there, or no map.
    """
    from merge_hooks.planning.config import map_parameter

    if config.merge_method != METHOD:
        return config

    def localise(path: str) -> str:
        candidates = [Path(path).expanduser()]
        if beside is not None:
            candidates.append(beside / candidates[0])
        found = next((candidate for candidate in candidates if candidate.is_file()), None)
        if found is None:
            also = f" and {beside}" if beside else ""
            raise FisherError(
                f"{path}: no such Fisher map. Looked in {Path.cwd()}{also}. Make it: `iberian fisher MODEL --data "
                f"texts.jsonl --out {path}`."
            )
        return str(FisherMap.open(found.resolve()).path)

    return map_parameter(config, PARAMETER, localise)


def map_paths(config: Any) -> list[Path]:
    """The maps of a resolved recipe, in order, each once."""
    from merge_hooks.planning.config import map_parameter

    found: dict[str, None] = {}
    if config.merge_method == METHOD:
        map_parameter(config, PARAMETER, lambda path: found.setdefault(path) or path)
    return [Path(path) for path in found]


def map_prints(config: Any) -> dict[str, str]:
    """The content hash of each map, by its path; it replaces the path in a recipe's digest."""
    return {str(path): f"fisher:{file_hash_once(path)}" for path in map_paths(config)}
