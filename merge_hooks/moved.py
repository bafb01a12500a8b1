"""Old import paths: they work for one release, with a DeprecationWarning that names the new one.

    from merge_hooks.hf_loader import build_model     # merge_hooks.engines.hf since 0.2
    from merge_hooks.recipe import resolve            # the module recipe.py is a folder now: merge_hooks.resolve

`find` is asked for modules that do not exist, by the finders that the `__init__` of both packages adds at the end of
`sys.meta_path`. `door` gives a folder that was a module its public names, and its old ones. All of this goes in 0.3.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Callable, Mapping
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def find(name: str, moved: Mapping[str, str]) -> ModuleSpec | None:
    """The spec of a module's new place, for its old name; None for every other name."""
    if (new := moved.get(name)) is None:
        return None
    _warn(name, new, 4)
    return ModuleSpec(name, _Alias(new))  # type: ignore[arg-type]


def door(folder: str, public: Mapping[str, str], *before: str) -> Callable[[str], Any]:
    """`__getattr__` for a folder's `__init__`: what it offers, imported when it is asked for.

    Args:
        folder: its dotted name.
        public: from each public name to the module in which it is.
        before: modules that hold what stood here before the folder was one; these names warn.
    """

    def attribute(name: str) -> Any:
        if name in public:
            return getattr(importlib.import_module(public[name]), name)
        # `from folder import file` asks for the file here first.
        is_file = importlib.util.find_spec(f"{folder}.{name}") is not None
        for place in () if is_file or name.startswith("__") else before:
            module = importlib.import_module(place)
            if hasattr(module, name):
                _warn(f"{folder}.{name}", f"{place}.{name}", 3)
                return getattr(module, name)
        raise AttributeError(f"module {folder!r} has no attribute {name!r}")

    return attribute


def _warn(old: str, new: str, level: int) -> None:
    # `level`: as far up as the line that imports; importlib's own frames do not count.
    text = f"{old} is {new} now; the old path goes in lm_eval_iberian 0.3."
    warnings.warn(text, DeprecationWarning, stacklevel=level)


class _Alias:
    """Loads a module under its old name: the very same object, so that nothing stands twice."""

    def __init__(self, new: str) -> None:
        self.new = new

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self.new)
        self.spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        old = module.__spec__
        module.__spec__ = self.spec  # importlib has put that of the old name there
        if old is not None:
            sys.modules[old.name] = module


MOVED = {
    "merge_hooks._mergekit": "merge_hooks.planning.plan",
    "merge_hooks.card": "merge_hooks.tools.card",
    "merge_hooks.cgroup": "merge_hooks.machine.cgroup",
    "merge_hooks.digest": "merge_hooks.engines.weights_digest",
    "merge_hooks.estimate": "merge_hooks.checks.estimate",
    "merge_hooks.export": "merge_hooks.tools.export",
    "merge_hooks.facts": "merge_hooks.sources.facts",
    "merge_hooks.fisher_file": "merge_hooks.sources.fisher_file",
    "merge_hooks.fisher_fit": "merge_hooks.recipe.fisher_maps",
    "merge_hooks.fisher_map": "merge_hooks.tools.fisher",
    "merge_hooks.fisher_method": "merge_hooks.methods.fisher",
    "merge_hooks.fisher_texts": "merge_hooks.tools.fisher_texts",
    "merge_hooks.hf_loader": "merge_hooks.engines.hf",
    "merge_hooks.hf_proof": "merge_hooks.engines.hf_proof",
    "merge_hooks.knots": "merge_hooks.methods.knots",
    "merge_hooks.lint": "merge_hooks.recipe.lint",
    "merge_hooks.lora": "merge_hooks.sources.adapter",
    "merge_hooks.lora_config": "merge_hooks.sources.adapter_config",
    "merge_hooks.memory": "merge_hooks.machine.memory",
    "merge_hooks.methods.blocks": "merge_hooks.kernels.blocks",
    "merge_hooks.methods.compiled": "merge_hooks.kernels.cpu",
    "merge_hooks.methods.fused": "merge_hooks.kernels.one_pass",
    "merge_hooks.methods.masks": "merge_hooks.kernels.masks",
    "merge_hooks.methods.on_device": "merge_hooks.kernels.torch_steps",
    "merge_hooks.methods.operands": "merge_hooks.kernels.operands",
    "merge_hooks.methods.ranking": "merge_hooks.kernels.ranking",
    "merge_hooks.methods.task_arithmetic": "merge_hooks.kernels.task_arithmetic",
    "merge_hooks.own_methods": "merge_hooks.methods.register",
    "merge_hooks.plan_lint": "merge_hooks.checks.filters",
    "merge_hooks.preflight": "merge_hooks.checks.preflight",
    "merge_hooks.processors": "merge_hooks.machine.processors",
    "merge_hooks.proof": "merge_hooks.engines.proof",
    "merge_hooks.randomness": "merge_hooks.planning.draws",
    "merge_hooks.resident": "merge_hooks.sources.residents",
    "merge_hooks.short_form": "merge_hooks.recipe.short_form",
    "merge_hooks.show": "merge_hooks.tools.show",
    "merge_hooks.signature": "merge_hooks.recipe.signature",
    "merge_hooks.stages": "merge_hooks.resolve.stages",
    "merge_hooks.surprises": "merge_hooks.recipe.surprises",
    "merge_hooks.swap_check": "merge_hooks.checks.swap",
    "merge_hooks.tokenizer": "merge_hooks.stream.tokenizer",
    "merge_hooks.vector_fit": "merge_hooks.tools.vectors.fit",
    "merge_hooks.vector_inputs": "merge_hooks.tools.vectors.inputs",
    "merge_hooks.vectors": "merge_hooks.tools.vectors.compare",
    "merge_hooks.verify": "merge_hooks.tools.verify",
    "merge_hooks.vllm_loader": "merge_hooks.engines.vllm",
    "merge_hooks.vllm_proof": "merge_hooks.engines.vllm_proof",
    "merge_hooks.vllm_worker": "merge_hooks.engines.vllm_worker",
}
