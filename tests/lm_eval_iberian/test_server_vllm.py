"""`backend=server` against a real vLLM server on loopback: scores, swaps, somebody else's swaps, a killed server."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lm_eval_iberian.runs.run import read_sweep_run
from lm_eval_iberian.toy.tiny import build_family
from merge_hooks.engines.vllm import WORKER
from merge_hooks.engines.vllm_server import Server
from merge_hooks.errors import EngineError
from tests import forks
from tests.conftest import ROOT, linear

pytestmark = pytest.mark.slow

CONTEXT = "Galdera: zein da Euskal Herriko hiriburua? " * 4
CHOICES = (" A", " B", " Gasteiz dela uste dut nik", " Gasteiz dela uste dute haiek, baina ez dakit", " ")
START_SECONDS = 400


class Running:
    """A server in a process of its own; it can be killed and started again at the same address."""

    def __init__(self, model: Path, log: Path, *options: str, dtype: str = "float32") -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url, self.log = f"http://127.0.0.1:{port}", log
        self.command = [
            sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--dtype", dtype,
            "--enforce-eager", "--block-size", "32", "--max-model-len", "512", "--gpu-memory-utilization", "0.05",
            "--host", "127.0.0.1", "--port", str(port), "--worker-extension-cls", WORKER, *options,
        ]  # fmt: skip
        self.process: Any = None

    def start(self) -> None:
        environment = os.environ | {
            "PYTHONPATH": str(ROOT), "VLLM_SERVER_DEV_MODE": "1", "TORCHDYNAMO_DISABLE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"
        }  # fmt: skip
        with self.log.open("ab") as log:
            self.process = forks.Popen(self.command, env=environment, stdout=log, stderr=log, cwd=ROOT, process_group=0)

    def wait(self) -> None:
        end, server = time.monotonic() + START_SECONDS, Server(self.url)
        while not server.is_healthy():
            assert self.process.poll() is None and time.monotonic() < end, self.log.read_text()[-3000:]
            time.sleep(0.5)

    def kill(self) -> None:
        """The server and its engine, at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    # Weights wide enough that some tokens are likelier than others.
    return build_family(tmp_path_factory.mktemp("wide"), initializer_range=0.15)


@pytest.fixture(scope="module")
def running(family: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    pytest.importorskip("vllm")
    made = Running(family["base"], tmp_path_factory.mktemp("server") / "log")
    made.start()
    try:
        made.wait()
        yield made
    finally:
        made.kill()


def served(running: Running, **arguments: Any) -> Any:
    from lm_eval_iberian.models import Merged

    return Merged(backend="server", base_url=running.url, **arguments)


def answers(model: Any, questions: int = 6) -> dict[str, Any]:
    """Of all kinds of requests."""
    from lm_eval.api.instance import Instance

    pairs = [(f"{CONTEXT}{number}", choice) for number in range(questions) for choice in CHOICES]
    pairs += [("", "Kaixo, zer moduz?"), ("Bai", " ez")]
    scored = [Instance("loglikelihood", {}, pair, index) for index, pair in enumerate(pairs)]
    rolling = [Instance("loglikelihood_rolling", {}, (CONTEXT * 2 * questions,), 0)]
    settings = [
        {"until": ["\n", " a"], "max_gen_toks": 5 + number % 9, "do_sample": False} for number in range(4 * questions)
    ]
    written = [Instance("generate_until", {}, (f"{CONTEXT}{n}", setting), n) for n, setting in enumerate(settings)]
    scores = model.loglikelihood(scored, disable_tqdm=True)
    return {
        "scores": [score for score, _ in scores], "greedy": [greedy for _, greedy in scores],
        "rolling": model.loglikelihood_rolling(rolling, disable_tqdm=True),
        "texts": model.generate_until(written, disable_tqdm=True), "digest": model.swap_digest,
        "weights": model.signature.weights, "template": model.apply_chat_template([{"role": "user", "content": "Bai"}]),
    }  # fmt: skip


def agree(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    for name in ("scores", "rolling"):
        assert ours[name] == pytest.approx(theirs[name], abs=1e-5), name
    for name in ("greedy", "texts", "digest", "weights", "template"):
        assert ours[name] == theirs[name], name


@pytest.fixture(scope="module")
def expected(family: dict[str, Path]) -> dict[str, Any]:
    """The answers of an engine in this process, to the base and to a merge."""
    from lm_eval_iberian.models.vllm import MergedVLLM
    from merge_hooks.engines.vllm import close
    from merge_hooks.recipe import read_recipe
    from merge_hooks.resolve import resolve

    engine = MergedVLLM(pretrained=str(family["base"]), dtype="float32", max_model_len=512)
    found = {"base": answers(engine)}
    engine.swap(resolve(read_recipe(linear(family))))
    found["merge"] = answers(engine)
    close(engine.model)
    return found


def test_scores_are_those_of_an_engine_in_this_process(
    running: Running, family: dict[str, Path], expected: dict[str, Any]
) -> None:
    """A plain model, a merge, and back by a swap."""
    from merge_hooks.recipe.recipe import passthrough
    from merge_hooks.resolve import resolve

    assert expected["base"]["scores"] != pytest.approx(expected["merge"]["scores"], abs=0.1)
    merged = served(running, recipe=linear(family))
    agree(answers(merged), expected["merge"])
    assert merged.get_model_info()["iberian"]["proof"] == "proved"
    merged.swap(resolve(passthrough(str(family["base"]), None)))
    agree(answers(merged), expected["base"])
    again = served(running, recipe=linear(family))
    agree(answers(again), expected["merge"])
    # What was swapped meanwhile is put in again, whoever asks.
    agree(answers(merged), expected["base"])
    agree(answers(served(running)), expected["base"])


def test_weights_that_came_by_other_means_are_noticed(
    running: Running, family: dict[str, Path], expected: dict[str, Any]
) -> None:
    """vLLM's own reload changes no stamp of ours; the layers are asked after each batch."""
    merged = served(running, recipe=linear(family))
    server = Server(running.url)
    body = {"method": "reload_weights", "kwargs": {"weights_path": str(family["instruct"])}}
    server.post("/collective_rpc", body)
    agree(answers(merged), expected["merge"])


def test_without_swaps_the_server_must_hold_the_recipe(running: Running, family: dict[str, Path]) -> None:
    served(running, recipe=linear(family))
    assert served(running, recipe=linear(family), swap="never").proof.in_words == "proved"
    with pytest.raises(EngineError, match="holds other weights"):
        served(running, swap="never")


def test_a_sweep_goes_on_when_a_killed_server_is_back(
    running: Running, family: dict[str, Path], tmp_path: Path
) -> None:
    """The same answers as of a sweep that was left alone."""
    models = [
        {"model": str(family["basque"]), "parameters": {"weight": "$weight"}},
        {"model": str(family["instruct"]), "parameters": {"weight": 1.0}},
    ]
    data = {
        "tasks": ["iberian_eus_trivia"], "parents": False, "axes": {"weight": [0.5, 1.0, 2.0]},
        "model_args": {"backend": "server", "base_url": running.url, "dtype": "float32", "patience": START_SECONDS},
        "recipe": {"merge_method": "linear", "models": models, "dtype": "float32"},
    }  # fmt: skip
    (tmp_path / "sweep.yml").write_text(yaml.safe_dump(data))
    command = [sys.executable, "-m", "lm_eval_iberian.commands.main", "sweep", "sweep.yml", "--out"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "IBERIAN_DATA": "samples"}
    alone = forks.run([*command, "alone"], cwd=tmp_path, env=environment)
    assert alone.returncode == 0, alone.stderr[-3000:]
    killed = forks.Popen([*command, "killed"], cwd=tmp_path, stderr=subprocess.PIPE, env=environment)
    while not list(tmp_path.glob("killed/points/*/results_*.json")):
        assert killed.poll() is None
        time.sleep(0.02)
    running.kill()
    time.sleep(3)
    running.start()
    _, said = killed.communicate(timeout=START_SECONDS)
    assert killed.returncode == 0, said[-3000:]
    ours, theirs = read_sweep_run(tmp_path / "killed"), read_sweep_run(tmp_path / "alone")
    for one, other in zip(ours.points, theirs.points, strict=True):
        assert one.answers("iberian_eus_trivia") == other.answers("iberian_eus_trivia"), one.name
        assert one.scores("iberian_eus_trivia") == other.scores("iberian_eus_trivia")
    assert len(ours.points) == 3


def test_a_server_that_quantises_is_swapped(family: dict[str, Path], tmp_path: Path) -> None:
    """It was started with a plain model; what it computes with after a swap is proved in float8, and to its scores."""
    from lm_eval_iberian.models.vllm import MergedVLLM
    from merge_hooks.engines.vllm import close

    made = Running(family["base"], tmp_path / "log", "--quantization", "fp8_per_channel", dtype="bfloat16")
    made.start()
    engine = MergedVLLM(
        recipe=linear(family), dtype="bfloat16", quantization="fp8_per_channel", max_model_len=512, seed=0
    )
    here = answers(engine, 1)  # torch multiplies float8 slowly on a CPU
    close(engine.model)
    try:
        made.wait()
        base = answers(served(made, dtype="bfloat16"), 1)
        merged = served(made, recipe=linear(family), dtype="bfloat16")
        there = answers(merged, 1)
        assert merged.get_model_info()["iberian"]["proof"] == "proved"
        assert there["digest"] == here["digest"] and there["weights"] == here["weights"]
        assert there["scores"] == pytest.approx(here["scores"], abs=1e-4)
        assert max(abs(one - other) for one, other in zip(there["scores"], base["scores"], strict=True)) > 0.1
        assert ("quantization", "fp8_per_channel") in merged.signature.pairs
    finally:
        made.kill()
