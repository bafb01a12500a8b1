"""A transformers model is the merge, to the last buffer, or it says which tensor is not, and answers nothing."""

from __future__ import annotations

import copy
import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from merge_hooks.engines.hf import build_model, load_into, swap_into
from merge_hooks.engines.hf_proof import as_made, held_by, prove, weighted_sum
from merge_hooks.engines.weights_digest import Digest
from merge_hooks.errors import EngineError, PreflightError, SourceError
from merge_hooks.recipe.recipe import read_recipe
from merge_hooks.resolve.resolver import resolve
from merge_hooks.stream.stream import Stream, open_stream
from tests.conftest import first_ones

DTYPES = ("float32", "bfloat16", "float16")
ROPE = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2, "hidden_size": 64,
        "intermediate_size": 96, "max_position_embeddings": 64}  # fmt: skip
GPT = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64}
ENDS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
# What makes each worth its time: the buffers that it keeps.
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", ROPE),
    "llama3 rope": ("LlamaConfig", ROPE | {"rope_parameters": {
        "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32}}),
    "qwen2": ("Qwen2Config", ROPE),
    "qwen3 tied": ("Qwen3Config", ROPE | {"head_dim": 32, "tie_word_embeddings": True}),
    "gemma2": ("Gemma2Config", ROPE | {"head_dim": 16}),
    "gemma3": ("Gemma3TextConfig", ROPE | {"head_dim": 16}),
    "gptj": ("GPTJConfig", GPT | {"rotary_dim": 8}),
    "codegen": ("CodeGenConfig", GPT | {"rotary_dim": 8}),
    "gpt2": ("GPT2Config", GPT),
    "gpt_neox": ("GPTNeoXConfig", {key: value for key, value in ROPE.items() if key != "num_key_value_heads"}),
    "falcon alibi": ("FalconConfig", {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "alibi": True,
                                      "new_decoder_architecture": True, "tie_word_embeddings": False}),
    "bloom": ("BloomConfig", {"hidden_size": 64, "n_layer": 2, "n_head": 4}),
    "phi": ("PhiConfig", ROPE),
    "olmo2": ("Olmo2Config", ROPE),
    "cohere2": ("Cohere2Config", ROPE),
}  # fmt: skip


def family(folder: Path, name: str, **more: Any) -> list[str]:
    """Two checkpoints of an architecture, with weights far from each other."""
    config_class, settings = ARCHITECTURES[name]
    config = getattr(transformers, config_class)(vocab_size=300, **ENDS, **settings | more)
    torch.manual_seed(1)
    model, paths = AutoModelForCausalLM.from_config(config, dtype=torch.float32), []
    for number in range(2):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn(parameter.shape))
        paths.append(str(folder / f"{name.replace(' ', '_')}-{number}"))
        copy.deepcopy(model).save_pretrained(paths[-1])
    return paths


def recipe(paths: list[str], weight: float = 0.5, dtype: str = "float32") -> dict[str, Any]:
    models = [
        {"model": path, "parameters": {"weight": value}} for path, value in zip(paths, (weight, 0.5), strict=True)
    ]
    return {"merge_method": "linear", "models": models, "dtype": dtype}


def opened(data: Any) -> Stream:
    return open_stream(resolve(read_recipe(data)))


def same(ours: Any, theirs: Any) -> bool:
    """Equal dtypes, shapes and bits, NaN included."""
    if ours.dtype != theirs.dtype or ours.shape != theirs.shape:
        return False
    bits = (tensor.detach().contiguous().view(-1).view(torch.uint8) for tensor in (ours, theirs))
    return torch.equal(*bits)


@pytest.mark.parametrize("name", first_ones(ARCHITECTURES, 5))
def test_what_from_pretrained_makes_of_mergekits_checkpoint(
    name: str, tmp_path: Path, mergekit: Callable[..., Path]
) -> None:
    """Every parameter and every buffer, with its dtype, in each dtype; and so the same logits."""
    paths = family(tmp_path, name)
    # mergekit asks for masks in GPT-NeoX's files, which newer ones do not have: there, the checkpoint as it is.
    data = {"merge_method": "passthrough", "models": [{"model": paths[0]}]} if name == "gpt_neox" else recipe(paths)
    folder = paths[0] if name == "gpt_neox" else mergekit(data)
    tokens = torch.randint(3, 300, (2, 40), generator=torch.Generator().manual_seed(0))
    for dtype in DTYPES:
        ours = build_model(opened(data), dtype=dtype)
        theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
        held, wanted = dict(held_by(ours)), dict(held_by(theirs))
        assert held.keys() == wanted.keys()
        assert [key for key, tensor in held.items() if not same(tensor, wanted[key])] == []
        assert {key for key, module in ours.named_modules() if not module.training} == {
            key for key, module in theirs.named_modules() if not module.training
        }
        if dtype == "float32":
            with torch.no_grad():
                assert torch.equal(ours(tokens).logits, theirs(tokens).logits)


# --- sabotage --------------------------------------------------------------------------------------------------

KINDS = {
    "embedding": "model.embed_tokens.weight", "head": "lm_head.weight", "q": "model.layers.1.self_attn.q_proj.weight",
    "k": "model.layers.0.self_attn.k_proj.weight", "v": "model.layers.0.self_attn.v_proj.weight",
    "o": "model.layers.1.self_attn.o_proj.weight", "gate": "model.layers.0.mlp.gate_proj.weight",
    "up": "model.layers.1.mlp.up_proj.weight", "down": "model.layers.0.mlp.down_proj.weight",
    "norm": "model.layers.0.input_layernorm.weight", "last norm": "model.norm.weight",
    "bias": "model.layers.1.self_attn.q_proj.bias", "angles": "model.rotary_emb.inv_freq",
}  # fmt: skip


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def biased(request: Any, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two Qwen2, which have biases, with weights that differ everywhere."""
    return family(tmp_path_factory.mktemp("biased"), "qwen2", tie_word_embeddings=request.param)


def expected_of(model: Any, stream: Stream) -> dict[str, str]:
    """What a model of this dtype must hold after this stream, by our own hands."""
    held = dict(held_by(model))
    with Digest() as digest:
        given = {name: digest.checksum(tensor.to(held[name].dtype)) for name, tensor in stream if name in held}
    return as_made(model).checksums | given


def dropped(model: Any, name: str, stale: dict[str, torch.Tensor]) -> None:
    dict(held_by(model))[name].data.zero_()


def scaled(model: Any, name: str, stale: dict[str, torch.Tensor]) -> None:
    dict(held_by(model))[name].data.mul_(1.01)


def stale_one(model: Any, name: str, stale: dict[str, torch.Tensor]) -> None:
    dict(held_by(model))[name].data.copy_(stale[name])


def one_element(model: Any, name: str, stale: dict[str, torch.Tensor]) -> None:
    dict(held_by(model))[name].data.view(-1)[-1] += 1


def moved_on(model: Any, name: str, stale: dict[str, torch.Tensor]) -> None:
    """The same elements, each in the next one's place."""
    flat = dict(held_by(model))[name].data.view(-1)
    flat.copy_(flat.roll(1))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_tensor_that_is_not_the_merges_is_named(dtype: str, biased: list[str]) -> None:
    """Each kind of tensor in turn, after a swap to other weights, in the merge's own dtype and in another."""
    model = build_model(opened(recipe(biased, 0.9)), dtype=dtype)
    stale = {name: tensor.detach().clone() * 1.5 if name == KINDS["angles"] else tensor.detach().clone()
             for name, tensor in held_by(model)}  # fmt: skip
    swap_into(model, opened(recipe(biased, 0.1)))
    expected = expected_of(model, opened(recipe(biased, 0.1)))
    prove(model, expected)
    good = copy.deepcopy(model.state_dict()) | {KINDS["angles"]: model.model.rotary_emb.inv_freq.clone()}
    tied = model.lm_head.weight is model.model.embed_tokens.weight
    ways = (dropped, scaled, stale_one, one_element, moved_on)
    for how, (kind, name) in itertools.product(ways, KINDS.items()):
        how(model, name, stale)
        both = tied and kind in ("embedding", "head")
        wrong = f"{KINDS['embedding']}, {KINDS['head']}" if both else name
        with pytest.raises(EngineError, match=rf"^{2 if both else 1} of \d+ tensors.*: {wrong}\."):
            prove(model, expected)
        dict(held_by(model))[name].data.copy_(good[name])
        prove(model, expected)


def test_two_tensors_in_each_others_place_are_named(biased: list[str]) -> None:
    model = build_model(opened(recipe(biased)))
    expected = expected_of(model, opened(recipe(biased)))
    first, second = model.model.layers[0].mlp, model.model.layers[1].mlp
    first.up_proj, first.gate_proj = first.gate_proj, first.up_proj
    with pytest.raises(EngineError, match=r"layers\.0\.mlp\.gate_proj\.weight, model\.layers\.0\.mlp\.up_proj"):
        prove(model, expected)
    first.up_proj, first.gate_proj = first.gate_proj, first.up_proj
    first.down_proj, second.down_proj = second.down_proj, first.down_proj
    with pytest.raises(EngineError, match=r"layers\.0\.mlp\.down_proj\.weight, model\.layers\.1\.mlp\.down_proj"):
        prove(model, expected)


def test_a_head_that_came_loose_and_stayed_behind_is_named(tmp_path: Path) -> None:
    """As vLLM's packed head did. One that came loose and holds the right weights is right."""
    paths = family(tmp_path, "llama", tie_word_embeddings=True)
    model = build_model(opened(recipe(paths, 0.9)))
    head = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    swap_into(model, opened(recipe(paths, 0.1)))
    expected = expected_of(model, opened(recipe(paths, 0.1)))
    model.lm_head.weight = torch.nn.Parameter(model.model.embed_tokens.weight.detach().clone())
    prove(model, expected)
    model.lm_head.weight = head
    with pytest.raises(EngineError, match=r"1 of \d+ tensors.*: lm_head\.weight\."):
        prove(model, expected)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("first", [True, False], ids=["load", "swap"])
def test_a_load_ends_with_the_proof(first: bool, dtype: str, biased: list[str], monkeypatch: Any) -> None:
    """Something that spoils a weight while others are loaded is found; `proof=False` does not look."""
    stream, spoilt = opened(recipe(biased, 0.3)), []

    def spoil(model: Any) -> Any:
        for name, tensor in stream.into({}):
            yield name, tensor
            if name == KINDS["up"]:
                dict(held_by(model))[KINDS["k"]].data.mul_(2)
                spoilt.append(name)

    model = build_model(opened(recipe(biased)), dtype=dtype)
    if not first:
        swap_into(model, opened(recipe(biased, 0.8)))
    with pytest.raises(EngineError, match=rf"1 of \d+ tensors.*: {KINDS['k']}\."):
        load_into(model, spoil(model))
    with pytest.raises(EngineError, match="did not come whole"):
        model(torch.tensor([[5, 6]]))
    load_into(model, spoil(model), proof=False)
    model(torch.tensor([[5, 6]]))
    assert len(spoilt) == 2


# --- what stays of the merge before ----------------------------------------------------------------------------


def logits(model: Any, count: int = 40) -> torch.Tensor:
    tokens = torch.randint(3, 300, (1, count), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(tokens).logits


@pytest.mark.parametrize("kind", ["dynamic", "longrope", "default"])
def test_a_swap_forgets_the_texts_that_were_read(kind: str, tmp_path: Path) -> None:
    """Dynamic rope keeps a table for the longest text so far: after a swap the answers are a fresh model's."""
    half = ROPE["hidden_size"] // ROPE["num_attention_heads"] // 2
    rope: dict[str, Any] = {"rope_type": kind, "rope_theta": 10000.0}
    if kind == "dynamic":
        rope["factor"] = 4.0
    if kind == "longrope":
        rope |= {"short_factor": [1.0] * half, "long_factor": [4.0] * half, "original_max_position_embeddings": 64}
    paths = family(tmp_path, "llama", rope_parameters=rope)
    model = build_model(opened(recipe(paths, 0.9)))
    logits(model, 200)
    swap_into(model, opened(recipe(paths, 0.1)))
    fresh = build_model(opened(recipe(paths, 0.1)))
    for count in (80, 40, 120):
        assert torch.equal(logits(model, count), logits(fresh, count))


def edited(path: str, to: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> str:
    """A copy of a checkpoint with other tensors."""
    shutil.copytree(path, to)
    tensors = load_file(to / "model.safetensors")
    change(tensors)
    save_file(tensors, to / "model.safetensors", metadata={"format": "pt"})
    return str(to)


def spoil_with_nan(tensors: dict[str, torch.Tensor]) -> None:
    tensors[KINDS["up"]][3, 3] = float("nan")


def test_a_swap_that_breaks_off_leaves_a_model_that_refuses(biased: list[str], tmp_path: Path) -> None:
    """NaN found in the middle, a file that changes, a tensor of another shape: no answer until a swap succeeds."""
    good = opened(recipe(biased, 0.4))
    model, wanted = build_model(opened(recipe(biased))), logits(build_model(good))

    def nan() -> None:
        bad = edited(biased[0], tmp_path / "nan", spoil_with_nan)
        swap_into(model, opened(recipe([bad, biased[1]])))

    def change() -> None:
        moved = edited(biased[0], tmp_path / "changed", lambda tensors: None)
        stream = opened(recipe([moved, biased[1]]))

        def changing() -> Any:
            for name, tensor in stream:
                os.utime(Path(moved) / "model.safetensors", ns=(1, 1))
                yield name, tensor

        load_into(model, changing())

    def shape() -> None:
        def cut() -> Any:
            for name, tensor in opened(recipe(biased, 0.2)):
                yield name, tensor[:-1] if name == KINDS["up"] else tensor

        load_into(model, cut())

    def end() -> None:
        load_into(model, itertools.islice(opened(recipe(biased, 0.2)), 7))

    cases = ((nan, SourceError, "NaN"), (change, SourceError, "changed"), (shape, PreflightError, "shape"),
             (end, EngineError, "unset"))  # fmt: skip
    for broken, kind, words in cases:
        for _ in range(2 if broken is shape else 1):
            with pytest.raises(kind, match=words):
                broken()
        for ask in (model, model.model):  # our scoring asks the inner model
            with pytest.raises(EngineError, match="two merges"):
                ask(torch.tensor([[5, 6]]))
        swap_into(model, good)
        assert torch.equal(logits(model), wanted)


# --- the checksum that a GPU computes --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.bool, torch.int64])
def test_the_weighted_sum_tells_everything_apart(dtype: torch.dtype) -> None:
    large = torch.randn(2_500_001, generator=torch.Generator().manual_seed(0)).clamp(0).mul(50).to(dtype)
    assert weighted_sum(large) == weighted_sum(large.clone())
    assert weighted_sum(large) == weighted_sum(torch.stack([large, large])[1])
    others = [large.flip(0), large.roll(1), large[:-1], large.view(1, -1)]
    for place in (0, 1 << 20, 2_500_000):
        changed = large.clone().view(torch.uint8)
        changed[place * large.itemsize] ^= 1
        others.append(changed.view(dtype))
    swapped = torch.cat([large[1 << 20 : 1 << 21], large[: 1 << 20], large[1 << 21 :]])
    small = large[:1000].clone()
    sums = [weighted_sum(tensor) for tensor in (large, *others, swapped, small, small.flip(0), small.roll(1))]
    assert len(set(sums)) == len(sums)
    assert weighted_sum(torch.empty(0, dtype=dtype)) != weighted_sum(torch.empty(0, 2, dtype=dtype))


def test_a_device_is_proved_by_it_and_named(biased: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU here: the model's side says that it is on one. The merge's side is computed where the merge is."""
    monkeypatch.setattr("merge_hooks.engines.hf_proof.is_hashed", lambda tensor: False)
    for dtype in ("float32", "bfloat16"):
        model = build_model(opened(recipe(biased)), dtype=dtype)
        swap_into(model, opened(recipe(biased, 0.2)))

        def spoil(model: Any = model) -> Any:
            for name, tensor in opened(recipe(biased, 0.3)):
                yield name, tensor
                if name == KINDS["up"]:
                    dict(held_by(model))[KINDS["k"]].data.mul_(2)

        with pytest.raises(EngineError, match=rf"1 of \d+ tensors.*: {KINDS['k']}\."):
            load_into(model, spoil())
