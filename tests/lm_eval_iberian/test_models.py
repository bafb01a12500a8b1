"""`merged` against lm_eval's own back ends on the checkpoint that mergekit writes: same numbers, same text."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from merge_hooks.engines.weights_digest import digest_of
from merge_hooks.errors import EngineError, RecipeError, SourceError
from tests import forks
from tests.conftest import ROOT, linear, task_arithmetic
from tests.merge_hooks.test_stream import stream_of

TASKS = ["iberian_eus_trivia", "iberian_cola_ca", "iberian_flores_es-eu"]
SMALL = {"max_length": 4096, "batch_size": 1}
CASES = [("llama", linear, "float32"), ("qwen3", task_arithmetic, "bfloat16")]


def evaluate(request: dict[str, Any]) -> Any:
    """lm_eval on the embedded samples; vLLM in a process of its own."""
    if "vllm" not in (request["model"], request["model_args"].get("backend")):
        from tests.lm_eval_iberian.evaluate import run

        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("IBERIAN_DATA", "samples")
            return run(request)
    command = [sys.executable, "-m", "tests.lm_eval_iberian.evaluate", json.dumps(request)]
    done = forks.run(command, env={**os.environ, "IBERIAN_DATA": "samples"}, cwd=ROOT, timeout=600)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    assert lines, done.stderr[-3000:]
    return json.loads(lines[0].removeprefix("RESULT"))


def numbers(samples: dict[str, Any]) -> list[float]:
    """All log-likelihoods, in order."""
    return [resp[0][0] for task, rows in samples.items() if "flores" not in task for row in rows for resp in row]


def greedy(samples: dict[str, Any]) -> list[Any]:
    """All generated texts and is_greedy flags, in order."""
    return [
        resp[0] if "flores" in task else resp[0][1] for task, rows in samples.items() for row in rows for resp in row
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "recipe", "dtype"),
    [
        pytest.param(*CASES[0], id="llama-linear"),
        pytest.param(*CASES[1], id="qwen3-task_arithmetic", marks=pytest.mark.nightly),
    ],
)
@pytest.mark.parametrize("backend", ["hf", "vllm"])
def test_same_scores_as_the_written_checkpoint(
    backend: str, family: str, recipe: Any, dtype: str, request: Any, mergekit_merge: Any
) -> None:
    written = recipe(request.getfixturevalue(family), dtype)
    checkpoint = mergekit_merge(written)
    common = {"tasks": TASKS, "limit": 3, "num_fewshot": 1, "gen_kwargs": "max_gen_toks=24"}
    # vLLM computes a float32 checkpoint in bfloat16 unless told otherwise; ours follows the recipe. Say it to both.
    extra = {"enforce_eager": True, "dtype": dtype} if backend == "vllm" else {"device": "cpu"}
    theirs = evaluate({"model": backend, "model_args": {"pretrained": str(checkpoint), **SMALL, **extra}, **common})
    ours = evaluate(
        {"model": "merged", "model_args": {"recipe": written, "backend": backend, **SMALL, **extra}, **common}
    )
    assert len(numbers(ours["samples"])) == 3 * 4 + 3 * 2
    # Ours is another way to the same numbers.
    tolerance = 1e-4 if dtype == "float32" else 0.1
    differences = [abs(a - b) for a, b in zip(numbers(ours["samples"]), numbers(theirs["samples"]), strict=True)]
    assert max(differences) <= tolerance
    assert greedy(ours["samples"]) == greedy(theirs["samples"])


@pytest.mark.slow
@pytest.mark.nightly  # test_vllm_swaps.py holds it below lm_eval
def test_a_swap_gives_the_fresh_engine_and_back(llama: dict[str, Path]) -> None:
    """A -> B -> A in a running vLLM: A's numbers and text again, B's those of an engine started with B.

    The sources stay in memory; the digest that comes back from the worker is that of the stream, computed here.
    """
    first, second = linear(llama), linear(llama, weights=(0.2, 1.0))
    common = {"tasks": TASKS, "limit": 2, "num_fewshot": 1, "gen_kwargs": "max_gen_toks=24"}
    args = {"backend": "vllm", "max_model_len": 2048}
    a, b, again = evaluate(
        {
            "model": "merged",
            "model_args": {"recipe": first, "resident": "auto", **args},
            "swaps": [second, first],
            **common,
        }
    )
    assert [run["digest"] for run in (b, again)] == [digest_of(stream_of(recipe)) for recipe in (second, first)]
    fresh = evaluate({"model": "merged", "model_args": {"recipe": second, **args}, **common})
    assert a["samples"] == again["samples"]
    stamps = [run["config"]["iberian"]["signature"] for run in (a, b, again, fresh)]
    assert stamps[0] == stamps[2] != stamps[1] == stamps[3]
    assert numbers(b["samples"]) == pytest.approx(numbers(fresh["samples"]), abs=1e-5)
    assert numbers(a["samples"]) != pytest.approx(numbers(b["samples"]), abs=1e-3)


@pytest.mark.slow
def test_an_error_in_the_engine_reaches_the_user(llama: dict[str, Path], tmp_path: Path) -> None:
    """NaN is found only while streaming, inside the engine: the message is ours, the exit code not 0."""
    recipe = linear(llama, weights=(1.0, -1.0))
    done = fork_cli(tmp_path, "--model", "merged", "--model_args", json.dumps({"recipe": recipe, "backend": "vllm"}))
    assert done.returncode != 0
    # torch.distributed puts "[rank0]: " before whatever ends a process of its group.
    assert re.search(r"^(\[rank0\]: )?Error: .*gave NaN or infinite values", done.stderr, re.MULTILINE)


def nightly(*values: Any) -> Any:
    return pytest.param(*values, marks=pytest.mark.nightly)


def run_cli(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`lm_eval ...` as a user would start it."""
    command = [str(Path(sys.executable).parent / "lm_eval"), *arguments]
    settings = os.environ | {"IBERIAN_DATA": "samples", "PYTHONPATH": str(ROOT)} | environment
    return subprocess.run(command, capture_output=True, text=True, env=settings, cwd=folder, timeout=600, check=False)


def fork_cli(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`lm_eval ... --tasks iberian_eus_trivia`."""
    command = [sys.executable, "-m", "lm_eval", *arguments, "--tasks", "iberian_eus_trivia"]
    return forks.run(command, env=os.environ | {"IBERIAN_DATA": "samples"} | environment, cwd=folder, timeout=600)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        ("recipe=nowhere.yml", {}, "\nError: nowhere.yml: no such recipe"),
        nightly("backend=hf", {}, "\nError: the model `merged` wants recipe= (a merge) or pretrained= (a plain model)"),
        nightly("pretrained={llama},backend=tpu", {}, "\nError: backend=tpu: there is no such back end"),
        nightly("pretrained={llama},backend=hf,peft=x", {}, "\nError: peft: not with the model `merged`"),
        ("pretrained={llama},backend=hf", {"IBERIAN_DATA": "/nowhere"}, "\nError: IBERIAN_DATA=/nowhere: no such folder"),
        nightly("pretrained={llama},backend=hf", {"IBERIAN_DATA": ""}, "HiTZ/EusTrivia (default) cannot be had"),
    ],
)  # fmt: skip
def test_bad_input_is_one_message(
    arguments: str, environment: dict[str, str], message: str, llama: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    done = fork_cli(
        tmp_path / "empty", "--model", "merged", "--model_args", arguments.format(llama=llama["base"]),
        "--output_path", "out", **environment,
    )  # fmt: skip
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "empty").iterdir()) == []


@pytest.mark.slow
def test_nothing_is_written_but_results(llama: dict[str, Path], tmp_path: Path) -> None:
    """The whole main command, by a config file, in an empty home: what is new on disk afterwards is small, and holds no weights."""
    for name in ("home", "work"):
        (tmp_path / name).mkdir()
    (tmp_path / "tmp").mkdir()
    recipe, config = tmp_path / "merge.yml", tmp_path / "run.yml"
    recipe.write_text(json.dumps(linear(llama)))
    settings = {
        "model": "merged", "model_args": {"recipe": str(recipe), "max_model_len": 4096}, "limit": 2, "output_path": "out",
        "tasks": ["iberian_eus_trivia", "iberian_flores_es-eu"], "gen_kwargs": {"max_gen_toks": 4},
    }  # fmt: skip
    config.write_text(json.dumps(settings))
    done = run_cli(
        tmp_path / "work", "run", "--config", str(config), HOME=str(tmp_path / "home"), TMPDIR=str(tmp_path / "tmp"),
        HF_HOME=str(tmp_path / "home" / "hf"), XDG_CACHE_HOME=str(tmp_path / "home" / "cache"), VLLM_NO_USAGE_STATS="1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path not in (recipe, config)]
    results = [path for path in files if path.is_relative_to(tmp_path / "work" / "out")]
    assert [path.suffix for path in results] == [".json"]
    weights = (llama["basque"] / "model.safetensors").stat().st_size
    assert sum(path.stat().st_size for path in files) < weights / 4
    assert not [path for path in files if path.suffix in {".safetensors", ".bin", ".pt"}]
    check_results(json.loads(results[0].read_text()))


def check_results(results: dict[str, Any]) -> None:
    iberian = results["config"]["iberian"]
    assert iberian["backend"] == "vllm"
    # Four tokens are not enough for random weights to come to a line's end.
    assert iberian["answers"] == {"iberian_flores_es-eu": {"cut_answers": 2, "documents": 2}}
    assert iberian["signature"].startswith("method:linear|sources:")
    assert "|mergekit:0.1" in iberian["signature"] and "|lm_eval_iberian:" in iberian["signature"]
    assert [source["revision"] for source in iberian["sources"]] == [None, None]
    assert all(len(source["fingerprint"]) == 16 for source in iberian["sources"])
    assert iberian["recipe_resolved"]["merge_method"] == "linear"


@pytest.mark.slow
def test_transformers_gets_the_very_weights(qwen3: dict[str, Path], mergekit_merge: Any) -> None:
    """Parameters, buffers, dtype and logits equal those of `from_pretrained` on mergekit's checkpoint."""
    from transformers import AutoModelForCausalLM

    from merge_hooks.engines.hf import build_model
    from merge_hooks.recipe.recipe import read_recipe
    from merge_hooks.resolve.resolver import resolve
    from merge_hooks.stream.stream import open_stream

    recipe = task_arithmetic(qwen3)
    ours = build_model(open_stream(resolve(read_recipe(recipe))))
    theirs = AutoModelForCausalLM.from_pretrained(mergekit_merge(recipe), dtype="auto")
    assert ours.dtype == theirs.dtype == torch.bfloat16
    for (name, mine), (other, yours) in zip(ours.state_dict().items(), theirs.state_dict().items(), strict=True):
        assert name == other and torch.equal(mine, yours)
    for (name, mine), (_, yours) in zip(ours.named_buffers(), theirs.named_buffers(), strict=True):
        assert torch.equal(mine, yours), name
    tokens = torch.arange(5, 60)[None]
    assert torch.equal(ours(tokens).logits, theirs(tokens).logits)


def test_generation_follows_the_model_whose_tokenizer_is_used(llama: dict[str, Path]) -> None:
    from lm_eval_iberian.models.hf import MergedHF

    model = MergedHF(recipe=linear(llama), device="cpu")
    assert model.model.generation_config.eos_token_id == [1, 3]
    assert model.prepared.tokenizer.origin == f"first model {llama['basque']}"


def test_vllm_is_greedy_where_a_task_does_not_say_otherwise() -> None:
    pytest.importorskip("vllm")
    from lm_eval_iberian.models.vllm import MergedVLLM

    def temperature(**settings: Any) -> Any:
        return MergedVLLM.modify_gen_kwargs(settings)[0].get("temperature")

    assert temperature(until=["\n"]) == 0.0
    assert temperature(until=["\n"], do_sample=False) == 0.0
    assert temperature(do_sample=True, temperature=0.7) == 0.7
    assert temperature(temperature=0.7) == 0.7
    assert temperature(do_sample=True) is None  # the task asks for sampling and leaves the rest to vLLM


@pytest.mark.parametrize(
    ("argument", "value"),
    [("kv_transfer_config", {"kv_connector": "OffloadingConnector", "kv_role": "kv_both"}), ("kv_offloading_size", 4),
     ("lora_local_path", "adapter")],
)  # fmt: skip
def test_what_answers_would_depend_on_beside_the_merge_is_refused(argument: str, value: Any) -> None:
    """Keys and values that outlive a swap, and an adapter that no signature knows."""
    pytest.importorskip("vllm")
    from lm_eval_iberian.models.vllm import MergedVLLM

    with pytest.raises(EngineError, match=argument):
        MergedVLLM(pretrained="nowhere", **{argument: value})


@pytest.mark.parametrize(
    ("said", "dtype"),
    [("half", "float16"), ("float", "float32"), ("torch.bfloat16", "bfloat16"), ("float16", "float16")],
)
def test_a_dtype_has_one_name(said: str, dtype: str, llama: dict[str, Path]) -> None:
    """Plans, signatures and engines must mean the same by it."""
    from lm_eval_iberian.models.merge import prepare

    assert prepare(None, str(llama["base"]), dtype=said).dtype == dtype


@pytest.mark.parametrize("said", ["bf16", "sin", "int8"])
def test_what_is_no_dtype_is_refused_before_anything_is_read(said: str) -> None:
    from lm_eval_iberian.models.merge import prepare

    with pytest.raises(EngineError, match=f"dtype={said}: no dtype of weights. Give one of auto, float32, bfloat16"):
        prepare(None, "nowhere/at-all", dtype=said)


@pytest.mark.parametrize(
    ("device", "said"), [("cuda:99", "torch finds [0-9]+ GPUs here"), ("gpu", "torch knows no such device")]
)
def test_a_device_that_is_not_here_is_refused_before_anything_is_read(device: str, said: str) -> None:
    from lm_eval_iberian.models.hf import MergedHF

    with pytest.raises(EngineError, match=said):
        MergedHF(pretrained="nowhere/at-all", device=device)


def test_the_device_that_lm_eval_gives_by_itself_is_not_refused() -> None:
    """Its command line says cuda:0 where there is no GPU, and HFLM takes the CPU."""
    from lm_eval_iberian.models.hf import MergedHF

    with pytest.raises(SourceError, match="nowhere/at-all"):
        MergedHF(pretrained="nowhere/at-all", device="cuda:0")


def test_a_tokenizer_can_be_named(llama: dict[str, Path]) -> None:
    from lm_eval_iberian.models.merge import prepare

    assert prepare(linear(llama), None, tokenizer=str(llama["base"])).tokenizer.folder == str(llama["base"])


def test_the_recipe_chooses_the_chat_template(llama: dict[str, Path]) -> None:
    from lm_eval_iberian.models.merge import prepare

    template = "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}{% endfor %}"
    prepared = prepare({**linear(llama), "chat_template": template}, None)
    assert prepared.tokenizer.load().chat_template == template


@pytest.mark.parametrize(("recipe", "pretrained"), [(None, None), ({"merge_method": "linear"}, "model")])
def test_recipe_or_pretrained_and_not_both(recipe: Any, pretrained: str | None) -> None:
    from lm_eval_iberian.models.merge import prepare

    with pytest.raises(RecipeError, match="wants recipe="):
        prepare(recipe, pretrained)


def test_no_back_end_names_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_eval_iberian.models.backends import choose_backend
    from merge_hooks.engines import vllm as vllm_loader

    monkeypatch.setattr(vllm_loader, "distribution", lambda: None)
    assert choose_backend("auto") == "hf"
    with pytest.raises(EngineError, match=r"pip install 'lm_eval_iberian\[vllm\]'"):
        choose_backend("vllm")


def test_signatures_tell_merges_apart_and_places_not(llama: dict[str, Path], tmp_path: Path) -> None:
    import shutil

    from merge_hooks.recipe.recipe import read_recipe
    from merge_hooks.recipe.signature import sign
    from merge_hooks.resolve.resolver import resolve

    def stamp(recipe: Any) -> str:
        return sign(resolve(read_recipe(recipe)), dtype="float32", tokenizer="t", template="c", engine="vllm").digest

    elsewhere = {name: Path(shutil.copytree(path, tmp_path / "moved" / path.name)) for name, path in llama.items()}
    stamps = [stamp(linear(llama)), stamp(linear(llama, weights=(1.0, 1.001))), stamp(linear(llama, "bfloat16"))]
    assert len(set(stamps)) == 3
    assert stamp(linear(elsewhere)).encode() == stamps[0].encode()
