"""Language vectors: cosines as numpy has them on what PEFT folds and on checkpoints; what cannot be compared is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.torch import load_file, save_file

from merge_hooks.errors import MergeHooksError, PreflightError, RecipeError, SourceError
from merge_hooks.tools.vectors.compare import Change, Product, Similarity, compare, cosines, inner_products
from merge_hooks.tools.vectors.inputs import open_vectors, short_names, stamp
from tests.merge_hooks.recipes.conftest import Tensors, tensors_of
from tests.merge_hooks.recipes.test_lora import KINDS, fold, make_adapter


def flat(after: Tensors, before: Tensors, keep: Callable[[str], bool] = lambda name: True) -> np.ndarray:
    """The vector itself, as nobody should compute it for large models."""
    return np.concatenate([
        (after[name].double() - before[name].double()).numpy().ravel() for name in before if keep(name)
    ])  # fmt: skip


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def of(*written: Any, base: Any = None) -> Similarity:
    return compare(open_vectors([str(item) for item in written], str(base) if base else None))


# Numbers ---------------------------------------------------------------------------------------------------------


@st.composite
def updates(draw: st.DrawFn, kinds: str) -> list[Product | Change]:
    """Two to four updates of one shape, as products ("p"), changes ("c") or both."""
    rows, columns = draw(st.integers(1, 6)), draw(st.integers(1, 6))

    def tensor(*shape: int) -> torch.Tensor:
        numbers = st.floats(-8, 8, width=32).map(lambda number: round(number, 2))
        return torch.from_numpy(draw(hnp.arrays(np.float32, shape, elements=numbers)))

    made: list[Product | Change] = []
    for kind in draw(st.lists(st.sampled_from(kinds), min_size=2, max_size=4)):
        rank = draw(st.integers(0, 3))
        product = Product(tensor(rows, rank), tensor(rank, columns))
        made.append(product if kind == "p" else Change(tensor(rows, columns), tensor(rows, columns)))
    return made


def formed(update: Product | Change) -> np.ndarray:
    if isinstance(update, Product):
        return (update.left.double().numpy() @ update.right.double().numpy()).ravel()
    return (update.after.double() - update.before.double()).numpy().ravel()


@pytest.mark.slow
@pytest.mark.parametrize("kinds", ["p", "c", "pc"])
def test_inner_products_are_those_of_the_formed_updates(kinds: str) -> None:
    @given(updates(kinds))
    def check(made: list[Product | Change]) -> None:
        golden = np.stack([formed(update) for update in made])
        found = inner_products(made)
        assert found == pytest.approx(golden @ golden.T, rel=1e-12, abs=1e-9)
        assert (found == found.T).all()

    check()


@given(updates("c"), st.floats(0.01, 100))
@settings(max_examples=50)
def test_properties_of_cosines(made: list[Change], factor: float) -> None:
    """Symmetric, 1 on the diagonal, blind to length, within -1 and 1; NaN for those that did not move, and no others."""
    found = cosines(inner_products(made))
    moved = np.array([formed(update).any() for update in made])
    assert np.array_equal(found, found.T, equal_nan=True)
    assert (found.diagonal()[moved] == 1).all() and (np.abs(found[moved][:, moved]) <= 1).all()
    assert np.array_equal(np.isnan(found), ~(moved[:, None] & moved))
    longer = [Change((made[0].after.double() - made[0].before.double()) * factor, 0.0 * made[0].after), *made[1:]]
    assert cosines(inner_products(longer)) == pytest.approx(found, abs=1e-9, nan_ok=True)


def test_what_moved_too_little_to_have_a_length_has_no_cosine() -> None:
    """Its square is 0 in float64, the product with another is not: over a length of 0 it would be a cosine of 1."""
    found = cosines(np.array([[1.0, 1e-170], [1e-170, 0.0]]))
    assert np.array_equal(np.isnan(found), [[False, True], [True, True]])


def test_a_part_of_a_product_may_begin_within_a_row() -> None:
    from merge_hooks.kernels.blocks import Workspace

    product = Product(torch.randn(5, 2), torch.randn(2, 7))
    for start, stop in [(0, 35), (3, 5), (7, 14), (9, 30), (34, 35)]:
        part = torch.empty(stop - start, dtype=torch.float64)
        product.write(slice(start, stop), part, Workspace())
        assert part.numpy() == pytest.approx(formed(product)[start:stop])


def test_orthogonal_is_zero_and_opposite_minus_one() -> None:
    base = torch.ones(3, 4)
    left, right = torch.zeros(3, 4), torch.zeros(3, 4)
    left[0], right[1] = 0.3, -0.7
    found = cosines(inner_products([Change(base + step, base) for step in (left, right, -left)]))
    assert found == pytest.approx(np.array([[1, 0, -1], [0, 1, 0], [-1, 0, 1]]), abs=1e-6)


def test_the_product_is_never_formed() -> None:
    """Formed, each of these would take 80 GB."""
    size = 100_000
    generator = torch.Generator().manual_seed(0)
    made = [Product(*(torch.randn(shape, generator=generator) for shape in ((size, 2), (2, size)))) for _ in range(2)]
    assert abs(cosines(inner_products(made))[0, 1]) < 0.01


def test_half_precision_is_summed_exactly() -> None:
    """A million small steps of one size: summed in bfloat16 or float32 they would stop counting."""
    base = torch.full((1000, 3000), 1.0, dtype=torch.bfloat16)
    step = base + torch.full_like(base, 2.0**-7)
    (square, _), _ = inner_products([Change(step, base), Change(base, base)]).tolist()
    assert square == 3_000_000 * 2.0**-14


# Models ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_are_what_peft_folds(kind: str, llama: dict[str, str], tmp_path: Path) -> None:
    """merge_and_unload minus base, in every way to scale and with every kind of tensor."""
    adapters = [make_adapter(llama["base"], tmp_path / str(seed), seed, **KINDS[kind]) for seed in (1, 2)]
    before = tensors_of(llama["base"])
    one, other = (flat(fold(llama["base"], adapter, torch.float32), before) for adapter in adapters)
    found = of(*adapters, base=llama["base"])
    assert cosines(found.whole)[0, 1] == pytest.approx(cosine(one, other), abs=1e-6)
    assert np.sqrt(found.whole.diagonal()) == pytest.approx([np.linalg.norm(one), np.linalg.norm(other)], rel=1e-5)


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16], ids=str)
def test_adapters_need_no_base(stored: torch.dtype, llama: dict[str, str], tmp_path: Path) -> None:
    """By themselves the same numbers as over their base, though the base is nowhere; files in bfloat16 too."""
    adapters = [make_adapter(llama["base"], tmp_path / str(seed), seed, stored, **KINDS["patterns"]) for seed in (1, 2)]
    over = of(*adapters, base=llama["base"])
    for adapter in adapters:
        file = adapter / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": "gated/base"}))
    alone = of(*adapters)
    assert alone.products.keys() == over.products.keys()
    assert alone.whole == pytest.approx(over.whole, rel=1e-12)


def test_adapters_of_other_modules_and_none(llama: dict[str, str], tmp_path: Path) -> None:
    """Where an adapter has no factors it is 0; adapters with no module in common are orthogonal."""
    modules = (["q_proj"], ["down_proj"], ["q_proj", "down_proj"])
    adapters = [
        make_adapter(llama["base"], tmp_path / str(seed), seed, r=4, lora_alpha=4, target_modules=names)
        for seed, names in enumerate(modules)
    ]
    found = of(*adapters)
    assert cosines(found.whole)[0, 1] == 0
    both = cosines(found.whole)[2]
    assert 0 < abs(both[0]) < 1 and 0 < abs(both[1]) < 1
    assert np.isnan(cosines(found.kinds["mlp.down_proj"])[0]).all()


@pytest.mark.parametrize("architecture", ["llama", "qwen"])
def test_full_weights_are_numpys(architecture: str, request: pytest.FixtureRequest) -> None:
    """In all, by layer and by kind; qwen is bfloat16, and its tied head counts once."""
    family = request.getfixturevalue(architecture)
    before, one, other = (tensors_of(family[name]) for name in ("base", "basque", "instruct"))
    found = of(family["basque"], family["instruct"], base=family["base"])
    assert cosines(found.whole)[0, 1] == pytest.approx(cosine(flat(one, before), flat(other, before)), abs=1e-12)
    assert found.products.keys() == before.keys() and list(found.layers) == [0, 1, 2, 3]

    def part(inside: str) -> float:
        return cosine(*(flat(side, before, lambda name: inside in name) for side in (one, other)))

    assert cosines(found.layers[2])[0, 1] == pytest.approx(part(".layers.2."), abs=1e-12)
    assert cosines(found.kinds["mlp.up_proj"])[0, 1] == pytest.approx(part("mlp.up_proj"), abs=1e-12)
    assert cosines(found.kinds["embed_tokens"])[0, 1] == pytest.approx(part("embed_tokens"), abs=1e-12)


def test_a_tied_head_that_is_written_out_counts_once(qwen: dict[str, str], tmp_path: Path) -> None:
    """Some checkpoints hold it beside the embedding."""

    def write_out(tensors: Tensors) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()

    written = {name: changed(folder, tmp_path / name, write_out) for name, folder in qwen.items()}
    found = of(written["basque"], written["instruct"], base=written["base"])
    plain = of(qwen["basque"], qwen["instruct"], base=qwen["base"])
    assert "lm_head.weight" not in found.products and (found.whole == plain.whole).all()


def test_an_adapter_beside_full_weights(llama: dict[str, str], tmp_path: Path) -> None:
    adapter = make_adapter(llama["base"], tmp_path, 1, **KINDS["plain"])
    before = tensors_of(llama["base"])
    sides = [flat(side, before) for side in (fold(llama["base"], adapter, torch.float32), tensors_of(llama["basque"]))]
    found = of(adapter, llama["basque"], base=llama["base"])
    assert cosines(found.whole)[0, 1] == pytest.approx(cosine(*sides), abs=1e-6)


# What may be given -----------------------------------------------------------------------------------------------


def recipe(place: Path, models: list[str], **more: Any) -> Path:
    data = {"merge_method": "linear", "models": [{"model": m, "parameters": {"weight": 1.0}} for m in models], **more}
    place.write_text(yaml.safe_dump(data))
    return place


def test_recipes_give_their_models(llama: dict[str, str], tmp_path: Path) -> None:
    """Every model but the base, each once; two recipes and --base come to the same."""
    both = {"merge_method": "task_arithmetic", "base_model": llama["base"]}
    first = recipe(tmp_path / "a.yml", [llama["basque"], llama["base"]], **both)
    second = recipe(tmp_path / "b.yml", [llama["basque"], llama["instruct"]], **both)
    found = of(first, second)
    assert found.names == ("basque", "instruct")
    assert (found.whole == of(llama["basque"], llama["instruct"], base=llama["base"]).whole).all()
    without = recipe(tmp_path / "c.yml", [llama["basque"], llama["instruct"]])
    assert (of(without, base=llama["base"]).whole == found.whole).all()
    with pytest.raises(RecipeError, match="--base"):
        of(without)


def test_adapters_in_a_recipe_without_a_base(llama: dict[str, str], tmp_path: Path) -> None:
    adapters = [make_adapter(llama["base"], tmp_path / str(seed), seed, **KINDS["plain"]) for seed in (1, 2)]
    pairs = [f"{llama['base']}+{adapter}" for adapter in adapters]
    written = recipe(tmp_path / "merge.yml", pairs)
    assert (of(written).whole == of(*pairs).whole).all()
    assert of(written).whole == pytest.approx(of(*adapters).whole, rel=1e-12)


def test_a_stage_is_a_source(llama: dict[str, str], tmp_path: Path) -> None:
    """The mean of two fine-tunes lies between them."""
    stage = {"name": "mean", **yaml.safe_load(recipe(tmp_path / "s", [llama["basque"], llama["instruct"]]).read_text())}
    last = yaml.safe_load(
        recipe(tmp_path / "l", ["mean", llama["basque"]], base_model=llama["base"], merge_method="ties").read_text()
    )
    (tmp_path / "merge.yml").write_text(yaml.safe_dump_all([stage, last]))
    before, one, other = (tensors_of(llama[name]) for name in ("base", "basque", "instruct"))
    middle = flat(one, before) + flat(other, before)
    found = of(tmp_path / "merge.yml")
    assert found.names == ("mean", "basque")
    assert cosines(found.whole)[0, 1] == pytest.approx(cosine(middle, flat(one, before)), abs=1e-6)


@pytest.mark.parametrize(
    ("written", "message"),
    [(["basque"], "--base"), (["basque", "instruct"], "--base"), (["nowhere/at/all"], "no such recipe")],
)
def test_what_is_no_vector(written: list[str], message: str, llama: dict[str, str]) -> None:
    with pytest.raises(RecipeError, match=message):
        of(*(llama.get(name, name) for name in written))


def test_one_vector_is_none(llama: dict[str, str]) -> None:
    with pytest.raises(PreflightError, match="must be two"):
        of(llama["basque"], base=llama["base"])


def test_short_names() -> None:
    assert short_names(["/a/eu/final", "/a/gl/final"]) == ["eu/final", "gl/final"]
    assert short_names(["HiTZ/latxa", "b/instruct/"]) == ["latxa", "instruct"]
    assert short_names(["a/b", "a/b"]) == ["a/b (1)", "a/b (2)"]


# What cannot be compared -----------------------------------------------------------------------------------------


def changed(model: str, to: Path, change: Callable[[Tensors], None]) -> Path:
    """A copy of a checkpoint whose tensors are changed."""
    shutil.copytree(model, to)
    tensors = load_file(to / "model.safetensors")
    change(tensors)
    save_file(tensors, to / "model.safetensors", {"format": "pt"})
    return to


def test_vocabularies_of_other_sizes_are_left_out(llama: dict[str, str], tmp_path: Path) -> None:
    def grow(tensors: Tensors) -> None:
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            tensors[name] = torch.cat([tensors[name], torch.zeros(3, tensors[name].shape[1])])

    larger = changed(llama["basque"], tmp_path / "larger", grow)
    found = of(larger, llama["instruct"], base=llama["base"])
    (note,) = found.notes
    assert "embed_tokens, lm_head" in note and "vocabularies differ" in note and "2003" in note
    before, one, other = (tensors_of(llama[name]) for name in ("base", "basque", "instruct"))
    vectors = (flat(side, before, lambda name: "embed" not in name and "head" not in name) for side in (one, other))
    assert cosines(found.whole)[0, 1] == pytest.approx(cosine(*vectors), abs=1e-12)


def test_vocabularies_of_other_tokens_are_left_out(llama: dict[str, str], tmp_path: Path) -> None:
    """Of one size, but two tokens have changed their places: shapes would never tell."""
    other = changed(llama["basque"], tmp_path / "other", lambda tensors: None)
    content = json.loads((other / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    first, second = list(vocabulary)[500:502]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (other / "tokenizer.json").write_text(json.dumps(content))
    found = of(other, llama["instruct"], base=llama["base"])
    assert "other tokens to the same ids" in found.notes[0]
    assert not {"model.embed_tokens.weight", "lm_head.weight"} & found.products.keys()


def test_a_model_that_did_not_move(llama: dict[str, str], tmp_path: Path) -> None:
    still = changed(llama["base"], tmp_path / "still", lambda tensors: None)
    found = of(still, llama["basque"], llama["instruct"], base=llama["base"])
    assert found.unmoved == ["still"]
    matrix = cosines(found.whole)
    assert np.isnan(matrix[0]).all() and np.isnan(matrix[:, 0]).all() and not np.isnan(matrix[1:, 1:]).any()


def test_an_adapter_at_its_start_did_not_move(llama: dict[str, str], tmp_path: Path) -> None:
    """PEFT starts with B = 0."""
    adapter = make_adapter(llama["base"], tmp_path / "start", 1, **KINDS["plain"])
    file = adapter / "adapter_model.safetensors"
    save_file({name: t * 0 if "lora_B" in name else t for name, t in load_file(file).items()}, file)
    assert of(adapter, make_adapter(llama["base"], tmp_path / "eu", 2, **KINDS["plain"])).unmoved == ["start"]


def test_nan_is_refused(llama: dict[str, str], tmp_path: Path) -> None:
    def spoil(tensors: Tensors) -> None:
        tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = float("nan")

    spoilt = changed(llama["basque"], tmp_path / "spoilt", spoil)
    with pytest.raises(SourceError, match=r"spoilt: model\.layers\.1\.mlp\.up_proj\.weight"):
        of(spoilt, llama["instruct"], base=llama["base"])


def test_a_missing_tensor_is_refused(llama: dict[str, str], tmp_path: Path) -> None:
    lacking = changed(llama["basque"], tmp_path / "lacking", lambda tensors: tensors.pop("model.norm.weight"))
    with pytest.raises(SourceError, match=r"model\.norm\.weight, which .*lacking lacks"):
        of(lacking, llama["instruct"], base=llama["base"])


def test_other_architectures_are_refused(llama: dict[str, str], qwen: dict[str, str]) -> None:
    with pytest.raises(PreflightError, match="architecture"):
        of(llama["basque"], qwen["basque"], base=llama["base"])


@pytest.mark.parametrize("kind", ["dora", "whole modules"])
def test_an_adapter_that_needs_its_base_says_so(kind: str, llama: dict[str, str], tmp_path: Path) -> None:
    adapters = [make_adapter(llama["base"], tmp_path / str(seed), seed, **KINDS[kind]) for seed in (1, 2)]
    with pytest.raises(SourceError, match="--base"):
        of(*adapters)


def test_an_adapter_alone_beside_a_model(llama: dict[str, str], tmp_path: Path) -> None:
    adapter = make_adapter(llama["base"], tmp_path / "eu", 1, **KINDS["plain"])
    written = recipe(tmp_path / "m.yml", [llama["basque"]], base_model=llama["base"], merge_method="task_arithmetic")
    with pytest.raises(MergeHooksError, match="--base"):
        of(adapter, written)


def test_adapters_of_other_sizes_are_refused(llama: dict[str, str], tmp_path: Path) -> None:
    adapters = [make_adapter(llama["base"], tmp_path / str(seed), seed, **KINDS["plain"]) for seed in (1, 2)]
    file = adapters[1] / "adapter_model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if "up_proj.lora_B" in name)
    save_file(tensors | {name: torch.cat([tensors[name], tensors[name]])}, file)
    with pytest.raises(PreflightError, match="differs in shape"):
        of(*adapters)


def test_other_bases_are_said(llama: dict[str, str], tmp_path: Path) -> None:
    adapters = [make_adapter(llama[base], tmp_path / base, 1, **KINDS["plain"]) for base in ("base", "instruct")]
    assert "do not start from one base" in of(*adapters).notes[0]


def test_the_stamp_names_what_was_read(llama: dict[str, str], tmp_path: Path) -> None:
    """Another byte in the weights is another stamp; an adapter's is the same with and without its base."""
    one, other = open_vectors([llama["basque"], llama["instruct"]], llama["base"])
    assert stamp(one) != stamp(other) and "base@" in stamp(one)
    adapter = make_adapter(llama["base"], tmp_path / "eu", 1, **KINDS["plain"])
    (alone,), (over,) = open_vectors([str(adapter)]), open_vectors([str(adapter)], llama["base"])
    assert stamp(alone) in stamp(over)
