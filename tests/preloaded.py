"""What forked commands have imported already: the module that the fork server of `forks` loads before it forks.

Nothing here starts a thread or computes: only the thread that forks lives on in a fork.
"""

# ruff: noqa: E402, F401
import atexit
import gc
import os
from importlib.util import find_spec

atexit.register(os._exit, 0)  # the last to run; Triton would list what it leaks
gc.disable()
# Read when vLLM is imported. In a new Python we set it before that (merge_hooks/engines/vllm.py).
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")

import datasets
import lm_eval.__main__
import lm_eval._cli.harness
import lm_eval.evaluator
import lm_eval.models.huggingface
import lm_eval.tasks
import mergekit.merge
import numba
import optuna
import rich.console
import torch._dynamo
import transformers.models.llama.modeling_llama

import lm_eval_iberian.commands.main
import lm_eval_iberian.models.hf
import lm_eval_iberian.sweep.driver
import lm_eval_iberian.sweep.worker
import merge_hooks.engines.hf
import merge_hooks.stream.stream

if find_spec("vllm"):
    import vllm.entrypoints.llm
    import vllm.model_executor.models.llama
    import vllm.v1.engine.async_llm
    import vllm.v1.worker.cpu_worker

    import lm_eval_iberian.models.vllm
    import merge_hooks.engines.vllm_proof
    import merge_hooks.engines.vllm_worker

from tests.kept_index import TaskIndex, build_from_kept

TaskIndex.build = staticmethod(build_from_kept())  # else each command reads ten thousand files
gc.enable()
gc.freeze()  # collections pass over what is here already: vLLM asks for eight of them an engine
