"""Merges from residents: the bytes of the plain stream, for every method; nothing stale, nothing too large."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lm_eval_iberian.toy.tiny import build_family
from merge_hooks.engines.hf import build_model, swap_into
from merge_hooks.engines.hf_proof import held_by
from merge_hooks.engines.weights_digest import digest_of
from merge_hooks.errors import EngineError, SourceError
from merge_hooks.recipe.recipe import read_recipe
from merge_hooks.resolve.resolver import resolve
from merge_hooks.sources.residents import Residents, residents_for
from merge_hooks.stream.stream import Stream, open_stream
from tests.conftest import first_ones, linear, task_arithmetic

METHODS = ["linear", "task_arithmetic", "ties", "dare_linear", "dare_ties", "breadcrumbs", "breadcrumbs_ties",
           "knots_ties", "knots_dare_ties", "slerp"]  # fmt: skip
SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
         "num_key_value_heads": 1, "head_dim": 16}  # fmt: skip


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Path]]:
    """Three tiny Llamas in each dtype."""
    return {
        dtype: build_family(tmp_path_factory.mktemp(dtype), dtype=dtype, **SMALL)
        for dtype in ("float32", "bfloat16", "float16")
    }


@pytest.fixture(scope="module")
def residents() -> Residents:
    return Residents("memory")


def recipe_of(method: str, models: dict[str, Path], dtype: str, weight: float = 0.6, density: float = 0.4) -> Any:
    parameters = {"weight": weight, "density": density, "gamma": 0.05}
    unknown = {"linear": {"density", "gamma"}, "task_arithmetic": {"density", "gamma"}}.get(method, {"gamma"})
    if method.startswith("breadcrumbs"):
        unknown = set()
    per_model = {key: value for key, value in parameters.items() if key not in unknown}
    recipe: dict[str, Any] = {"merge_method": method, "dtype": dtype}
    if method == "slerp":
        recipe |= {"parameters": {"t": weight / 2}, "base_model": str(models["base"])}
        return recipe | {"models": [{"model": str(models["base"])}, {"model": str(models["basque"])}]}
    if method != "linear":
        recipe["base_model"] = str(models["base"])
    return recipe | {
        "models": [
            {"model": str(models["instruct"]), "parameters": per_model},
            {"model": str(models["basque"]), "parameters": per_model | {"weight": 0.8}},
        ]
    }


def stream_of(recipe: Any, residents: Residents | None = None) -> Stream:
    return open_stream(resolve(read_recipe(recipe)), residents=residents)


def same_bytes(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype
        and one[name].shape == other[name].shape
        and torch.equal(one[name].view(torch.uint8), other[name].view(torch.uint8))
        for name in one
    )


@pytest.mark.parametrize(
    "stored", ["bfloat16", *(pytest.param(name, marks=pytest.mark.slow) for name in ("float32", "float16"))]
)
@pytest.mark.parametrize("method", first_ones(METHODS, 5))
def test_the_same_bytes_as_the_plain_stream(method: str, stored: str, families: Any, residents: Residents) -> None:
    """One holder for all examples: what one of them left there, another finds."""
    for weight, density in ((0.3, 0.4), (-0.7, 0.1), (1.5, 0.4), (1.0, 1.0)):
        recipe = recipe_of(method, families[stored], "bfloat16", weight, density)
        plain = dict(stream_of(recipe))
        assert same_bytes(dict(stream_of(recipe, residents)), plain)
        reads = residents.reads
        assert same_bytes(dict(stream_of(recipe, residents)), plain)
        assert residents.reads == reads, "a source was read from its file again"


@pytest.mark.parametrize("policy", ["memory", "mapped", "auto"])
def test_every_place_has_the_same_bytes(policy: str, llama: dict[str, Path]) -> None:
    residents, recipe = Residents(policy), task_arithmetic(llama)
    for _ in range(2):
        assert same_bytes(dict(stream_of(recipe, residents)), dict(stream_of(recipe)))
    assert [row["source"] for row in residents.table()] == [str(llama[name]) for name in ("base", "basque", "instruct")]
    assert (residents.bytes > 0) == (policy != "mapped")


def test_adapters_and_stages_are_folded_once(llama: dict[str, Path], tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(llama["base"]),
        LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False),
    )
    model.save_pretrained(tmp_path / "adapter")
    adapted = f"{llama['base']}+{tmp_path / 'adapter'}"
    stages = "\n---\n".join(
        [
            f"name: both\nmerge_method: linear\ndtype: float32\nmodels:\n- {{model: {llama['basque']}, parameters: {{weight: 1}}}}\n"
            f"- {{model: {adapted}, parameters: {{weight: 1}}}}",
            f"merge_method: task_arithmetic\ndtype: float32\nbase_model: {llama['base']}\nmodels:\n"
            f"- {{model: both, parameters: {{weight: 0.7}}}}\n- {{model: {adapted}, parameters: {{weight: 0.2}}}}",
        ]
    )
    residents, plain = Residents("memory"), dict(stream_of(stages))
    assert same_bytes(dict(stream_of(stages, residents)), plain)
    reads = residents.reads
    assert same_bytes(dict(stream_of(stages, residents)), plain)
    assert residents.reads == reads


def copies(models: dict[str, Path], folder: Path) -> dict[str, Path]:
    return {name: Path(shutil.copytree(path, folder / name)) for name, path in models.items()}


def change(model: Path, value: float) -> None:
    """Other values in the same bytes' places, the size and the time of the file as they were."""
    file = model / "model.safetensors"
    before, tensors = file.stat(), load_file(file)
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = value
    save_file(tensors, file, metadata={"format": "pt"})
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("policy", ["memory", "mapped"])
@pytest.mark.parametrize("method", ["linear", "ties", "dare_ties"])
def test_a_source_that_changed_between_merges_is_read_again(
    method: str, policy: str, families: Any, tmp_path: Path
) -> None:
    """Even where somebody put its modification time back. What was computed from it is not used either."""
    models = copies(families["float32"], tmp_path)
    residents, recipe = Residents(policy), recipe_of(method, models, "float32")
    first = dict(stream_of(recipe, residents))
    change(models["instruct"], 3.0)
    second = dict(stream_of(recipe, residents))
    assert same_bytes(second, dict(stream_of(recipe))) and not same_bytes(first, second)
    assert len(residents.table()) == (2 if method == "linear" else 3), "the old one is still held"


def test_a_source_that_changes_during_a_merge_is_an_error(families: Any, tmp_path: Path) -> None:
    models = copies(families["float32"], tmp_path)
    residents, recipe = Residents("memory"), recipe_of("ties", models, "float32")
    with pytest.raises(SourceError, match="changed during the merge"):
        for _ in stream_of(recipe, residents):
            os.utime(models["instruct"] / "model.safetensors", ns=(1, 1))
    assert same_bytes(dict(stream_of(recipe, residents)), dict(stream_of(recipe)))


def test_nan_is_named_from_memory_too(families: Any, tmp_path: Path) -> None:
    models = copies(families["float32"], tmp_path)
    change(models["basque"], float("nan"))
    residents = Residents("memory")
    for _ in range(2):
        with pytest.raises(SourceError, match=r"basque.*model\.layers\.1\.mlp\.up_proj\.weight.*NaN"):
            dict(stream_of(recipe_of("ties", models, "float32"), residents))


@pytest.mark.slow
def test_what_does_not_fit_stays_in_its_files(families: Any) -> None:
    """Room for one source and a bit: the base comes first. An older sweep's sources make room for a new one's."""
    one = sum(tensor.nbytes for _, tensor in stream_of(linear(families["float32"])))
    residents, recipe = Residents("memory", budget=one * 8 // 5), recipe_of("ties", families["float32"], "float32")
    assert same_bytes(dict(stream_of(recipe, residents)), dict(stream_of(recipe)))
    assert [row["place"] for row in residents.table()] == ["memory", "its mapped files", "its mapped files"]
    assert residents.bytes <= one * 8 // 5
    other = recipe_of("task_arithmetic", families["bfloat16"], "float32")
    assert same_bytes(dict(stream_of(other, residents)), dict(stream_of(other)))
    kept = {row["source"]: row["place"] for row in residents.table()}
    assert [kept[str(families["bfloat16"][name])] for name in ("base", "instruct", "basque")].count("memory") == 3
    assert str(families["float32"]["base"]) not in kept


def test_a_full_machine_keeps_nothing(families: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("merge_hooks.sources.residents.free_on_host", lambda: 1000)
    residents, recipe = Residents("auto"), linear(families["float32"])
    assert same_bytes(dict(stream_of(recipe, residents)), dict(stream_of(recipe)))
    assert residents.bytes == 0


def test_constants_go_when_there_is_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("merge_hooks.sources.residents.KEPT_BYTES", 3000)
    residents = Residents("memory")
    made: list[int] = []

    def keep(number: int) -> Any:
        return residents.keep(number, lambda: made.append(number) or torch.zeros(250))

    for number in (1, 2, 1, 3, 4, 1):
        keep(number)
    assert made == [1, 2, 3, 4]  # 2 went, for 1 had been used after it


@pytest.mark.parametrize("policy", ["disk", "pinned", "gpu"])
def test_a_place_that_is_not_there_is_refused(policy: str) -> None:
    if policy != "disk" and torch.accelerator.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(EngineError, match=f"resident={policy}"):
        residents_for(policy)


def test_off_is_no_holder() -> None:
    assert residents_for("off") is residents_for(None) is None
    assert residents_for("memory") is residents_for("memory")


@pytest.mark.parametrize("engine_dtype", first_ones(["float32", "bfloat16"], 1))
@pytest.mark.parametrize("method", first_ones(["ties", "linear", "dare_ties", "slerp"]))
def test_a_swap_computes_in_the_parameters(method: str, engine_dtype: str, families: Any) -> None:
    """The digest is the stream's, and that of the parameters where they have its dtype; the weights a fresh model's."""
    models, residents = families["bfloat16"], Residents("memory")
    model = build_model(stream_of(linear(models, "bfloat16")), dtype=engine_dtype)
    places = [parameter.data_ptr() for parameter in model.parameters()]
    for weight in (0.3, 0.9, 0.3):
        recipe = recipe_of(method, models, "bfloat16", weight)
        digest = swap_into(model, stream_of(recipe, residents))
        assert digest == digest_of(stream_of(recipe))
        fresh = build_model(stream_of(recipe), dtype=engine_dtype)
        assert all(map(torch.equal, model.state_dict().values(), fresh.state_dict().values()))
        names, held = [name for name, _ in stream_of(recipe)], dict(held_by(model))
        assert (digest_of((name, held[name]) for name in names) == digest) == (engine_dtype == "bfloat16")
    assert places == [parameter.data_ptr() for parameter in model.parameters()]


def test_the_digest_tells_everything_apart() -> None:
    tensor = torch.arange(12, dtype=torch.float32)
    others = [
        [("a", tensor.view(3, 4))], [("b", tensor)], [("a", tensor.bfloat16())], [("a", tensor + 0.0001)],
        [("a", tensor.view(torch.int32))], [("a", tensor[:6]), ("b", tensor[6:])], [],
    ]  # fmt: skip
    values = [digest_of(weights) for weights in [[("a", tensor)], *others]]
    assert len(set(values)) == len(values)
    large = torch.randn(3_000_001)
    assert digest_of([("a", large)]) == digest_of([("a", large.clone())])
    changed = large.clone()
    changed[2_999_999] += 1
    assert digest_of([("a", large)]) != digest_of([("a", changed)])


def test_the_basis_of_knots_is_found_once(llama: dict[str, Path], tmp_path: Path, monkeypatch: Any) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from merge_hooks.methods import knots_basis

    names = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        config = LoraConfig(r=4, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
        get_peft_model(AutoModelForCausalLM.from_pretrained(llama["base"]), config).save_pretrained(
            tmp_path / f"{seed}"
        )
        names.append(f"{llama['base']}+{tmp_path / str(seed)}")
    calls: list[int] = []
    found = knots_basis.tie_factors
    monkeypatch.setattr(knots_basis, "tie_factors", lambda factors: calls.append(1) or found(factors))
    residents = Residents("memory")

    def recipe(weight: float, density: float) -> Any:
        models = [{"model": name, "parameters": {"weight": weight, "density": density}} for name in names]
        return {"merge_method": "knots_ties", "base_model": str(llama["base"]), "models": models, "dtype": "float32"}

    first = dict(stream_of(recipe(0.5, 0.5), residents))
    made = len(calls)
    assert made > 0 and same_bytes(first, dict(stream_of(recipe(0.5, 0.5))))
    calls.clear()
    other = dict(stream_of(recipe(0.7, 0.3), residents))
    assert calls == [] and same_bytes(other, dict(stream_of(recipe(0.7, 0.3)))) and len(calls) == made
