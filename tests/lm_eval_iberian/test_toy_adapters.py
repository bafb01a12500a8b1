"""Adapters of the toys: trained once, each by itself, and merged in the second paper's four ways."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from lm_eval_iberian.sweep.spec import read_sweep
from lm_eval_iberian.toy.adapters import ADAPTERS, AdapterSettings, adapters_hash, build_adapters
from lm_eval_iberian.toy.train import RECORD, Schedule, Settings
from merge_hooks.recipe.recipe import read_recipe
from merge_hooks.resolve.resolver import resolve
from merge_hooks.stream.stream import open_stream

FEW = Settings(vocabulary=400, base=Schedule(2, 1e-3), instruct=Schedule(2, 1e-3), language=Schedule(2, 1e-3))
SHORT = AdapterSettings(rank=4, alpha=8, schedule=Schedule(3, 3e-2))


def test_the_sweep_of_the_toys_is_the_second_papers() -> None:
    """Four methods and two densities over all adapters, as preset:language_specific/table1."""
    merges = [point for point in read_sweep("preset:toy/adapters").points if point.role == "merge"]
    methods = ("TIES", "DARE-TIES", "KnOTS-TIES", "KnOTS-DARE-TIES")
    assert [(point.labels["method"], point.labels["density"]) for point in merges] == [
        (method, density) for method in methods for density in ("1.0", "0.5")
    ]
    for point in merges:
        models = yaml.safe_load(point.recipe.text)["models"]
        assert [one["model"] for one in models] == [
            {"model": "toys/instruct", "lora": f"toys/adapters/{name}"} for name in ADAPTERS
        ]
        assert {(one["parameters"]["weight"], str(one["parameters"]["density"])) for one in models} == {
            (1.0, point.labels["density"])
        }


def test_the_stamp_of_an_adapter() -> None:
    stamp = adapters_hash(SHORT, FEW, 0)
    assert stamp == adapters_hash(SHORT, FEW, 0)
    others = {
        adapters_hash(AdapterSettings(), FEW, 0),
        adapters_hash(SHORT, Settings(), 0),
        adapters_hash(SHORT, FEW, 1),
    }
    assert len({stamp, *others}) == 4


@pytest.mark.slow
def test_adapters_are_trained_once_and_merge_in_four_ways(tmp_path: Path) -> None:
    said: list[str] = []
    tell = lambda name, *_: said.append(name)  # noqa: E731
    names = ("basque", "english")
    paths = build_adapters(tmp_path, settings=SHORT, progress=tell, names=names, family=FEW)
    assert dict.fromkeys(said) == dict.fromkeys(("base", "instruct", *names))
    written = {name: load_file(path / "adapter_model.safetensors") for name, path in paths.items()}
    for name, tensors in written.items():
        assert json.loads((paths[name] / RECORD).read_text())["digest"] == adapters_hash(SHORT, FEW, 0)
        assert any(tensor.any() for key, tensor in tensors.items() if "lora_B" in key), "nothing was learnt"
    said.clear()
    build_adapters(tmp_path, settings=SHORT, progress=tell, names=names, family=FEW)
    assert said == []
    # One adapter anew: the others stay as they are.
    (paths["basque"] / RECORD).unlink()
    build_adapters(tmp_path, settings=SHORT, progress=tell, names=names, family=FEW)
    assert set(said) == {"basque"}
    again = load_file(paths["basque"] / "adapter_model.safetensors")
    assert all(again[key].equal(tensor) for key, tensor in written["basque"].items())
    parameters = {"weight": 1.0, "density": 0.5}
    for method in ("ties", "dare_ties", "knots_ties", "knots_dare_ties"):
        models = [
            {"model": {"model": str(tmp_path / "instruct"), "lora": str(path)}, "parameters": parameters}
            for path in paths.values()
        ]
        recipe = {
            "merge_method": method,
            "base_model": str(tmp_path / "instruct"),
            "models": models,
            "dtype": "float32",
        }
        merged = dict(open_stream(resolve(read_recipe(yaml.safe_dump(recipe)))))
        base = load_file(tmp_path / "instruct" / "model.safetensors")
        assert merged.keys() == base.keys()
        moved = {name for name, tensor in merged.items() if not tensor.equal(base[name])}
        assert any("q_proj" in name for name in moved) and not any("embed" in name or "norm" in name for name in moved)
