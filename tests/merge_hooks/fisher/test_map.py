"""Maps against gradients taken by other means, and runs that are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from lm_eval_iberian.toy.tiny import build_family
from merge_hooks.errors import FisherError, SourceError
from merge_hooks.sources.fisher_file import FORMAT, FisherMap, read_map
from merge_hooks.tools.fisher import make_map
from tests.merge_hooks.fisher.conftest import CPU, SMALL, TEXTS

ROOT = Path(__file__).resolve().parents[3]


def by_hand(folder: Path, texts: list[str], length: int) -> dict[str, torch.Tensor]:
    """torch.func: a functional call, its gradient for each text, squared and averaged in float64."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    parameters = {name: value.detach() for name, value in model.named_parameters()}

    def loss(values: dict[str, torch.Tensor], ids: torch.Tensor) -> torch.Tensor:
        logits = torch.func.functional_call(model, values, (ids,)).logits
        # The mean, times the number of predicted tokens: transformers' own convention turned into the sum.
        return torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:]) * (ids.shape[1] - 1)

    sums = {name: torch.zeros_like(value, dtype=torch.float64) for name, value in parameters.items()}
    for text in texts:
        ids = torch.tensor([tokenizer(text)["input_ids"][:length]])
        for name, gradient in torch.func.grad(loss)(parameters, ids).items():
            sums[name] += gradient.double() ** 2
    return {name: total / len(texts) for name, total in sums.items()}


def assert_close(made: dict[str, torch.Tensor], golden: dict[str, torch.Tensor]) -> None:
    assert made.keys() == golden.keys()
    for name, values in golden.items():
        assert made[name].dtype == torch.float32
        torch.testing.assert_close(made[name].double(), values, rtol=2e-3, atol=1e-6 * float(values.max()))


def test_a_map_is_the_mean_of_squared_gradients_of_each_text(family: Any, maps: Any) -> None:
    made = load_file(maps["base"])
    assert_close(made, by_hand(family["base"], TEXTS, 32))
    assert made.keys() == load_file(family["base"] / "model.safetensors").keys()
    facts = FisherMap.open(maps["base"]).facts
    assert (facts.count, facts.position, facts.truncated) == (len(TEXTS), len(TEXTS), 0)


def test_long_texts_are_cut_and_counted_and_empty_ones_do_not_count(family: Any, tmp_path: Path) -> None:
    file = tmp_path / "plain.txt"
    file.write_text(f"{TEXTS[1]}\n\n{TEXTS[2]}\n", encoding="utf-8")
    made = make_map(str(family["base"]), file, tmp_path / "map", replace(CPU, max_length=4))
    assert_close(load_file(tmp_path / "map"), by_hand(family["base"], [TEXTS[1], TEXTS[2]], 4))
    assert (made.facts.count, made.facts.truncated) == (2, 2)


def test_a_text_of_one_token_predicts_nothing_and_does_not_count(family: Any, tmp_path: Path) -> None:
    assert len(AutoTokenizer.from_pretrained(family["base"])("")["input_ids"]) == 1
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in (TEXTS[1], "", TEXTS[2])), encoding="utf-8")
    made = make_map(str(family["base"]), file, tmp_path / "map", CPU)
    assert (made.facts.count, made.facts.position) == (2, 3)
    assert_close(load_file(tmp_path / "map"), by_hand(family["base"], [TEXTS[1], TEXTS[2]], 32))


def test_each_text_draws_targets_of_its_own(family: Any, tmp_path: Path) -> None:
    """Else a text that is there twice would count as once."""
    sampled = replace(CPU, targets="sampled")
    for count in (1, 2):
        (tmp_path / f"{count}.txt").write_text(f"{TEXTS[1]}\n" * count, encoding="utf-8")
        make_map(str(family["base"]), tmp_path / f"{count}.txt", tmp_path / f"{count}", sampled)
    once, twice = (load_file(tmp_path / name)["model.norm.weight"] for name in "12")
    assert not torch.allclose(once, twice)


def test_tied_embeddings_have_one_entry_under_both_names(tmp_path: Path, texts: Path) -> None:
    family = build_family(tmp_path, "qwen3", dtype="bfloat16", **SMALL)
    made = make_map(str(family["base"]), texts, tmp_path / "map", CPU)
    assert_close(load_file(tmp_path / "map"), by_hand(family["base"], TEXTS, 32))
    assert made.facts.aliases == {"lm_head.weight": "model.embed_tokens.weight"}
    assert made.entry("lm_head.weight") == made.entry("model.embed_tokens.weight") is not None


@pytest.mark.slow
def test_sampled_targets_are_seeded_and_estimate_the_true_fisher(family: Any, tmp_path: Path) -> None:
    """On many draws for one text the mean nears the exact expectation, which is enumerated over all targets."""
    text, count = "Bon", 400
    file = tmp_path / "one.txt"
    file.write_text(f"{text}\n" * count, encoding="utf-8")
    sampled = replace(CPU, targets="sampled")
    make_map(str(family["base"]), file, tmp_path / "a", sampled)
    make_map(str(family["base"]), file, tmp_path / "b", sampled)
    make_map(str(family["base"]), file, tmp_path / "c", replace(sampled, seed=1))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    name = "model.norm.weight"
    made = load_file(tmp_path / "a")[name]
    assert not torch.equal(load_file(tmp_path / "c")[name], made)
    golden = _true_fisher(family["base"], text, name)
    assert float((made - golden).norm() / golden.norm()) < 0.2


def _true_fisher(folder: Path, text: str, name: str) -> torch.Tensor:
    """sum_t sum_y p(y | x_<t) (d log p(y | x_<t))^2 for one parameter: the cross terms of positions vanish."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.tensor([AutoTokenizer.from_pretrained(folder)(text)["input_ids"]])
    parameter = model.get_parameter(name)

    def logs(value: torch.Tensor) -> torch.Tensor:
        logits = torch.func.functional_call(model, {name: value}, (ids,)).logits[0, :-1]
        return torch.log_softmax(logits, -1)

    jacobian = torch.func.jacfwd(logs)(parameter.detach())  # positions x tokens x width
    probabilities = logs(parameter.detach()).exp()
    return (probabilities[..., None] * jacobian**2).sum((0, 1)).detach()


KILLED = """
import sys
from pathlib import Path
import merge_hooks.tools.fisher as m
from tests.merge_hooks.fisher.conftest import CPU
model, texts, to, pause = sys.argv[1:]
def step(done, total):
    print(done, flush=True)
    if done == int(pause):
        import time; time.sleep(60)
m.make_map(model, Path(texts), Path(to), CPU, step, save_every=2)
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_and_gives_the_same_bytes(family: Any, texts: Path, maps: Any, tmp_path: Path) -> None:
    to = tmp_path / "base.safetensors"
    command = [sys.executable, "-c", KILLED, str(family["base"]), str(texts), str(to)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([*command, "3"], stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT)
    assert process.stdout is not None
    assert [int(next(process.stdout)) for _ in range(4)] == [0, 1, 2, 3]
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    process.stdout.close()
    state = tmp_path / "base.safetensors.partial"
    assert not to.exists() and read_map(state).facts.position == 2
    with pytest.raises(FisherError, match="unfinished"):
        FisherMap.open(state)
    seen: list[int] = []
    make_map(str(family["base"]), texts, to, CPU, lambda done, total: seen.append(done), save_every=2)
    assert seen == [2, 3, 4, 5]
    assert to.read_bytes() == maps["base"].read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == [to.name]


def test_a_state_of_another_run_is_not_gone_on_with(family: Any, texts: Path, maps: Any, tmp_path: Path) -> None:
    to = tmp_path / "map"
    (tmp_path / "map.partial").write_bytes(maps["base"].read_bytes())
    with pytest.raises(FisherError, match="another model"):
        make_map(str(family["basque"]), texts, to, CPU)
    with pytest.raises(FisherError, match="another settings"):
        make_map(str(family["base"]), texts, to, replace(CPU, max_length=5))


def test_a_finished_map_is_not_made_again_nor_written_over(family: Any, texts: Path, maps: Any, tmp_path: Path) -> None:
    before = maps["base"].stat().st_mtime_ns
    make_map(str(family["base"]), texts, maps["base"], CPU, lambda done, total: pytest.fail("made again"))
    assert maps["base"].stat().st_mtime_ns == before
    other = tmp_path / "other.txt"
    other.write_text("Agur.\n")
    with pytest.raises(FisherError, match="another texts"):
        make_map(str(family["base"]), other, maps["base"], CPU)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b'{"text": "x"}\n{"txt": "y"}\n', "line 2: wants an object"),
        ("a.jsonl", b"plain\n", "line 1: not a line of JSON"),
        ("a.jsonl", b"[" * 100_000, "line 1: not a line of JSON"),
        ("a.txt", b"\xff\xfe\n", "line 1: not UTF-8"),
        ("a.txt", b"\n \n", "no text in it"),
    ],
)
def test_bad_texts_are_told_with_their_line(name: str, content: bytes, said: str, family: Any, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FisherError, match=said):
        make_map(str(family["base"]), tmp_path / name, tmp_path / "map", CPU)
    assert not (tmp_path / "map").exists()


def test_what_is_no_map_is_refused(family: Any, maps: Any, tmp_path: Path) -> None:
    with pytest.raises(FisherError, match="no Fisher map"):
        FisherMap.open(family["base"] / "model.safetensors")
    with pytest.raises(FisherError, match="no such Fisher map"):
        FisherMap.open(tmp_path / "nowhere")
    (tmp_path / "cut").write_bytes(maps["base"].read_bytes()[:-100])
    with pytest.raises(FisherError, match="not a whole"):
        FisherMap.open(tmp_path / "cut")
    save_file({"a": torch.ones(1)}, tmp_path / "bad", {FORMAT: "[1]"})
    with pytest.raises(FisherError, match="not a whole"):
        FisherMap.open(tmp_path / "bad")


def test_models_and_settings_that_cannot_be_are_refused(family: Any, texts: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such folder"):
        make_map(str(tmp_path / "nowhere"), texts, tmp_path / "map", CPU)
    with pytest.raises(FisherError, match="no folder"):
        make_map(str(family["base"]), texts, tmp_path / "nowhere" / "map", CPU)
    with pytest.raises(FisherError, match="takes 64 tokens"):
        make_map(str(family["base"]), texts, tmp_path / "map", replace(CPU, max_length=65))


def test_the_command_makes_a_map_and_says_so(family: Any, texts: Path, maps: Any, tmp_path: Path, capsys: Any) -> None:
    from lm_eval_iberian.commands import main as cli

    to = tmp_path / "map.safetensors"
    command = ["fisher", str(family["base"]), "--data", str(texts), "--to", str(to), "--max-length", "32"]
    with pytest.raises(SystemExit) as stopped:
        cli.main([*command, "--device", "cpu"])
    assert not stopped.value.code
    assert f"{to}: 21 tensors from 5 texts (targets: data)." in capsys.readouterr().out
    assert to.read_bytes() == maps["base"].read_bytes()
    with pytest.raises(SystemExit) as stopped:
        cli.main([*command, "--device", "cpu", "--sampled"])
    assert stopped.value.code == 1
    assert "another settings" in capsys.readouterr().err
