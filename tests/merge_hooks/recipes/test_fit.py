"""Preflight: what stops a merge, what is a note, and awkward checkpoints against mergekit and transformers."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from lm_eval_iberian.toy.tiny import build_family
from merge_hooks.checks.preflight import _computing_note, _settings, check_fit, fit_notes, table
from merge_hooks.engines.hf import build_model
from merge_hooks.errors import EngineError, PreflightError, SourceError
from merge_hooks.recipe.recipe import read_recipe
from merge_hooks.resolve import resolver
from merge_hooks.resolve.resolver import resolve
from merge_hooks.sources import facts as facts_module
from merge_hooks.sources.checkpoint import Source
from merge_hooks.sources.facts import _rope, facts_of, generation_of, is_code, is_quantised, token_rules, tokens_of
from merge_hooks.sources.headers import TensorEntry
from merge_hooks.stream.stream import Stream, open_stream
from merge_hooks.stream.tokenizer import choose_tokenizer
from tests.merge_hooks.families import TEXT, make_family
from tests.merge_hooks.recipes.conftest import assert_same, streamed, tensors_of


def linear(*models: str, **more: Any) -> dict[str, Any]:
    return {"merge_method": "linear", "parameters": {"weight": 0.5, "normalize": True},
            "models": [{"model": model} for model in models], **more}  # fmt: skip


def opened(data: Any) -> Stream:
    return open_stream(resolve(read_recipe(data)))


def copy(folder: str, to: Path, **config: Any) -> str:
    """A copy of a checkpoint with other entries in its config.json; None removes one."""
    shutil.copytree(folder, to)
    edit(to / "config.json", **config)
    return str(to)


def edit(file: Path, **changes: Any) -> None:
    content = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def assert_loads_as_mergekits(data: dict[str, Any], folder: Path) -> None:
    """Our transformers model has the parameters and configuration of mergekit's output, loaded by transformers."""
    stream = opened(data)
    check_fit(stream)
    choose_tokenizer(stream)
    ours = build_model(stream)
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=ours.dtype)
    assert_same(dict(ours.state_dict()), dict(theirs.state_dict()))
    assert ours.config.vocab_size == theirs.config.vocab_size
    assert ours.config.tie_word_embeddings == theirs.config.tie_word_embeddings
    tokens = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        assert torch.equal(ours(tokens).logits, theirs(tokens).logits)


# --- tied embeddings -------------------------------------------------------------------------------------------


def with_head(folder: str, to: Path, noise: float) -> str:
    """A tied checkpoint whose files hold a head too: the embedding, or (noise) something else."""
    shutil.copytree(folder, to)
    tensors = load_file(to / "model.safetensors")
    embedding = tensors["model.embed_tokens.weight"]
    tensors["lm_head.weight"] = (embedding + noise * torch.randn(embedding.shape)).to(embedding.dtype).contiguous()
    save_file(tensors, to / "model.safetensors", metadata={"format": "pt"})
    return str(to)


@pytest.mark.slow
@pytest.mark.parametrize("which", ["none", "base", "instruct", "both"])
def test_tied_with_and_without_a_head_in_the_files(
    which: str, qwen: dict[str, str], tmp_path: Path, mergekit: Callable[..., Path]
) -> None:
    models = {
        name: with_head(qwen[name], tmp_path / name, 0.0) if which in (name, "both") else qwen[name]
        for name in ("base", "instruct")
    }
    data = linear(*models.values(), base_model=models["base"])
    folder = mergekit(data)
    theirs = tensors_of(folder)
    head = theirs.pop("lm_head.weight", None)  # no tensor of its own: it is the embedding, here as in mergekit's files
    assert head is None or torch.equal(head, theirs["model.embed_tokens.weight"])
    assert_same(streamed(data), theirs)
    assert_loads_as_mergekits(data, folder)


def test_a_tied_model_with_another_head_in_its_files_is_refused(qwen: dict[str, str], tmp_path: Path) -> None:
    """transformers 5 unties such a checkpoint, vLLM ties it: a score would depend on the engine."""
    odd = with_head(qwen["instruct"], tmp_path / "odd", 0.5)
    loaded = AutoModelForCausalLM.from_pretrained(odd)
    assert not torch.equal(loaded.lm_head.weight, loaded.model.embed_tokens.weight)
    with pytest.raises(PreflightError, match=r"ties head and embedding, but .*differs.*tie_word_embeddings: false"):
        check_fit(opened(linear(qwen["base"], odd)))


def test_who_ties_is_said_where_the_config_says_nothing(tmp_path: Path) -> None:
    """Mistral Small 3 is published so: without a word of ties, and with a head of its own."""
    folder = make_family("mistral3", tmp_path, names=("one",))["one"]
    content = json.loads((folder / "config.json").read_text())
    for part in (content, content["text_config"]):
        part.pop("tie_word_embeddings", None)
    (folder / "config.json").write_text(json.dumps(content))
    tensors = load_file(folder / "model.safetensors")
    embedding = next(tensor for name, tensor in tensors.items() if "embed_tokens" in name)
    save_file(tensors | {"language_model.lm_head.weight": embedding + 1}, folder / "model.safetensors")
    with pytest.raises(PreflightError, match=r"\(config.json does not say; transformers' class does by default\), but"):
        check_fit(opened({"merge_method": "passthrough", "models": [{"model": str(folder)}]}))


@pytest.mark.slow
def test_tied_and_untied_merge_only_under_the_untied_one(
    qwen: dict[str, str], tmp_path: Path, mergekit: Callable[..., Path]
) -> None:
    untied = with_head(qwen["instruct"], tmp_path / "untied", 0.5)
    edit(tmp_path / "untied" / "config.json", tie_word_embeddings=False)
    for data in (linear(qwen["base"], untied), linear(qwen["base"], untied, base_model=qwen["base"])):
        with pytest.raises(PreflightError, match=f"Name {untied} as `base_model:`"):
            check_fit(opened(data))
    data = linear(qwen["base"], untied, base_model=untied)
    assert any("`tied` differs" in note and f"with that of {untied}" in note for note in fit_notes(opened(data)))
    assert_loads_as_mergekits(data, mergekit(data))


# --- vocabularies ----------------------------------------------------------------------------------------------


def with_rows(folder: str, to: Path, rows: int) -> str:
    """The checkpoint with its embeddings grown to so many rows, as padded vocabularies are."""
    shutil.copytree(folder, to)
    model = AutoModelForCausalLM.from_pretrained(folder)
    torch.manual_seed(rows)
    model.resize_token_embeddings(rows, mean_resizing=False)
    model.save_pretrained(to)
    return str(to)


@pytest.mark.slow
@pytest.mark.parametrize("source", [None, "base", "union"])
def test_padded_vocabularies(
    source: str | None, qwen: dict[str, str], tmp_path: Path, mergekit: Callable[..., Path]
) -> None:
    """151936 rows against 151665 tokens, in small: 2048 rows, 2000 tokens, in both models."""
    models = [with_rows(qwen[name], tmp_path / name, 2048) for name in ("base", "instruct")]
    data = linear(*models, base_model=models[0]) | ({"tokenizer_source": source} if source else {})
    folder = mergekit(data)
    assert_same(streamed(data), tensors_of(folder))
    assert_loads_as_mergekits(data, folder)
    rows = tensors_of(folder)["model.embed_tokens.weight"].shape[0]
    assert rows == (2000 if source else 2048)  # mergekit drops the padding where it aligns


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["llama", "qwen"])
@pytest.mark.parametrize("source", ["base", "union"])
def test_unequal_vocabularies(
    source: str,
    architecture: str,
    tmp_path: Path,
    mergekit: Callable[..., Path],
    request: pytest.FixtureRequest,
) -> None:
    """128256 against 128320: refused unless the recipe says which tokens hold."""
    family = request.getfixturevalue(architecture)
    longer = with_rows(family["instruct"], tmp_path / "instruct", 2064)
    data = linear(family["base"], longer, base_model=family["base"])
    with pytest.raises(PreflightError, match=r"differs in vocabulary: .*2000x64.*2064x64.*tokenizer_source: base"):
        check_fit(opened(data))
    data["tokenizer_source"] = source
    folder = mergekit(data)
    assert_same(streamed(data), tensors_of(folder))
    assert_loads_as_mergekits(data, folder)


@pytest.mark.slow
@pytest.mark.parametrize("source", ["base", "union"])
def test_more_tokens_in_one_model(
    source: str, llama: dict[str, str], tmp_path: Path, mergekit: Callable[..., Path]
) -> None:
    """A tokenizer with two tokens of its own, end to end: weights, configuration, tokenizer."""
    from transformers import AutoTokenizer

    longer = with_rows(llama["instruct"], tmp_path / "instruct", 2002)
    tokenizer = AutoTokenizer.from_pretrained(longer)
    tokenizer.add_tokens(["<|bai|>", "<|ez|>"], special_tokens=True)
    tokenizer.save_pretrained(longer)
    data = linear(llama["base"], longer, base_model=llama["base"])
    with pytest.raises(PreflightError, match="differs in vocabulary"):
        check_fit(opened(data))
    data["tokenizer_source"] = source
    folder = mergekit(data)
    assert_same(streamed(data), tensors_of(folder))
    assert_loads_as_mergekits(data, folder)
    choice = choose_tokenizer(opened(data))
    # vLLM reads the configuration beside a tokenizer, as it lies in mergekit's checkpoint.
    beside, whole = (json.loads((Path(place) / "config.json").read_text()) for place in (choice.folder, folder))
    assert (beside["vocab_size"], beside["model_type"]) == (whole["vocab_size"], whole["model_type"])
    ours, theirs = choice.load(), AutoTokenizer.from_pretrained(folder)
    assert ours.get_vocab() == theirs.get_vocab()
    assert ours("Kaixo<|bai|>").input_ids == theirs("Kaixo<|bai|>").input_ids


def _swap_tokens(folder: Path) -> None:
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    vocabulary = content["model"]["vocab"]
    first, second = list(vocabulary)[500:502]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    file.write_text(json.dumps(content))


def _add_token(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<|ez|>"])
    tokenizer.save_pretrained(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_swap_tokens, "different tokens to the same ids .2 of them"),
        (_add_token, "has 1 tokens that .* lacks, e.g. '<|ez|>'"),
    ],
)
def test_rows_that_mean_other_tokens_are_refused(
    change: Callable[[Path], None], words: str, llama: dict[str, str], tmp_path: Path
) -> None:
    other = Path(copy(llama["instruct"], tmp_path / "other"))
    change(other)
    with pytest.raises(PreflightError, match=words.replace("|", r"\|")):
        check_fit(opened(linear(llama["base"], str(other))))


def in_older_files(folder: Path, swapped: bool) -> None:
    """A byte-level BPE tokenizer as vocab.json and merges.txt, without a tokenizer.json."""
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer.json").unlink()
    if swapped:
        first, second = list(model["vocab"])[300:302]
        model["vocab"][first], model["vocab"][second] = model["vocab"][second], model["vocab"][first]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, model["merges"])) + "\n")
    edit(folder / "tokenizer_config.json", tokenizer_class="GPT2Tokenizer", unk_token="<|pad|>")


def named_in_the_config(folder: Path, swapped: bool) -> None:
    """Tokens that somebody added by writing them into tokenizer_config.json."""
    names = ["<|im_start|>", "<|im_end|>"]
    edit(folder / "tokenizer_config.json", extra_special_tokens=names[::-1] if swapped else names)


def in_a_list_of_their_own(folder: Path, swapped: bool) -> None:
    names = ["<|im_start|>", "<|im_end|>"]
    (folder / "added_tokens.json").write_text(json.dumps({name: 2000 + place for place, name in
                                                          enumerate(names[::-1] if swapped else names)}))  # fmt: skip


@pytest.mark.parametrize("write", [in_older_files, named_in_the_config, in_a_list_of_their_own])
def test_tokens_beside_tokenizer_json_are_compared_too(
    write: Callable[[Path, bool], None], llama: dict[str, str], tmp_path: Path
) -> None:
    one, same, other = (copy(llama[name], tmp_path / to)
                        for name, to in (("base", "one"), ("instruct", "same"), ("instruct", "other")))  # fmt: skip
    for folder, swapped in ((one, False), (same, False), (other, True)):
        write(Path(folder), swapped)
    check_fit(opened(linear(one, same)))
    with pytest.raises(PreflightError, match=r"different tokens to the same ids \(2 of them"):
        check_fit(opened(linear(one, other)))


def test_a_tokenizer_that_cannot_be_read_is_said(llama: dict[str, str], tmp_path: Path) -> None:
    other = Path(copy(llama["instruct"], tmp_path / "other"))
    (other / "tokenizer.json").unlink()
    stream = opened(linear(llama["base"], str(other)))
    check_fit(stream)
    assert any(f"{other} has no tokenizer that can be read" in note for note in fit_notes(stream))
    assert not any("can be read" in note for note in fit_notes(opened(linear(llama["base"], llama["instruct"]))))


def test_a_token_without_a_row_is_no_difference(llama: dict[str, str], tmp_path: Path) -> None:
    """A pad in tokenizer_config.json alone: transformers numbers it behind all rows, and no weight is of it."""
    other = Path(copy(llama["instruct"], tmp_path / "other"))
    edit(other / "tokenizer_config.json", pad_token="[PAD]")
    assert tokens_of(other)["[PAD]"] == 2000
    for folders in ((llama["base"], str(other)), (str(other), llama["base"])):
        check_fit(opened(linear(*folders)))
    _swap_tokens(other)
    with pytest.raises(PreflightError, match="different tokens to the same ids"):
        check_fit(opened(linear(llama["base"], str(other))))


def test_a_tokenizer_of_another_library(llama: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """mistral_common's has no `get_added_vocab`; with tekken.json alone (Devstral) it is not loaded, which takes 10 s."""
    from transformers import AutoTokenizer

    class Foreign:
        def get_vocab(self) -> dict[str, int]:
            return {"a": 0}

    asked = []
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda *names, **settings: asked.append(names) or Foreign())
    for file in ("tokenizer.model", "tekken.json"):
        other = Path(copy(llama["instruct"], tmp_path / file))
        (other / "tokenizer.json").rename(other / file)
        check_fit(opened(linear(llama["base"], str(other))))
        assert tokens_of(other) is None
    assert len(asked) == 1


def test_tokenizers_of_many_models_are_read_once(
    llama: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of 128,000 tokens takes a second, and each was read again at each question where models were more than 8."""
    read = []
    plain = facts_module._plain_tokenizer
    monkeypatch.setattr(facts_module, "_plain_tokenizer", lambda folder: read.append(folder) or plain(folder))
    folders = [copy(llama["instruct"], tmp_path / str(number)) for number in range(10)]
    stream = opened(linear(*folders))
    check_fit(stream)
    fit_notes(stream)
    assert len(read) == len(folders)
    assert len({id(tokens_of(Path(folder))) for folder in folders}) == 1  # one copy in memory


@pytest.mark.parametrize(
    ("source", "donor", "words"),
    [
        ("base", "other", r"'<\|ez\|>' a row, and .*base, whose tokenizer is the merge's .* Write `source: union`"),
        (
            "union",
            "base",
            r"cannot align the vocabularies .* Token '<\|ez\|>' not found in model .*Look at `tokenizer:`",
        ),
        ("union", "other", None),
    ],
)
def test_a_token_whose_row_cannot_be_had(
    source: str, donor: str, words: str | None, llama: dict[str, str], tmp_path: Path, mergekit: Callable[..., Path]
) -> None:
    """mergekit stops with a KeyError, or an AssertionError."""
    other = with_rows(llama["instruct"], tmp_path / "other", 2001)
    _add_token(Path(other))
    donors = {"base": llama["base"], "other": other}
    data = linear(llama["base"], other, base_model=llama["base"])
    data["tokenizer"] = {"source": source, "tokens": {"<|ez|>": {"source": donors[donor]}}}
    if words is None:
        check_fit(opened(data))
        assert_same(streamed(data), tensors_of(mergekit(data)))
        return
    with pytest.raises(PreflightError, match=words):
        check_fit(opened(data))
        dict(opened(data))


# --- everything else -------------------------------------------------------------------------------------------

# What is changed in config.json, and what the refusal says without a `base_model:`.
COMPUTING = {
    "rope": ({"rope_theta": 500000.0, "rope_parameters": None}, "`rope` differs .*10000.*500000"),
    "rope scaling": ({"rope_parameters": {"rope_theta": 10000.0, "rope_type": "linear", "factor": 4.0}},
                     "`rope` differs .*linear, factor 4"),
    "norm": ({"rms_norm_eps": 1e-2}, "`rms_norm_eps` differs"),
    "activation": ({"hidden_act": "gelu"}, "`hidden_act` differs"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "words"), COMPUTING.values(), ids=COMPUTING)
def test_what_is_computed_with_differs(changes: dict, words: str, llama: dict[str, str], tmp_path: Path) -> None:
    other = copy(llama["instruct"], tmp_path / "other", **changes)
    with pytest.raises(PreflightError, match=words):
        check_fit(opened(linear(llama["base"], other)))
    stream = opened(linear(llama["base"], other, base_model=other))
    rows = check_fit(stream)
    assert any(f"computes with that of {other}" in note for note in fit_notes(stream))
    assert rows[0]["model"] == other


# Settings that equal weights are computed with, and that nobody listed: what config.json says, and the name in the refusal.
BY_CLASS = {
    "gpt2": ({"layer_norm_epsilon": 0.1}, "layer_norm_epsilon"),
    "gpt_neox": ({"use_parallel_residual": False}, "use_parallel_residual"),
    "gpt_j": ({"rotary_dim": 4}, "rotary_dim"),
    "bloom": ({"apply_residual_connection_post_layernorm": True}, "apply_residual_connection_post_layernorm"),
    "cohere": ({"logit_scale": 1.0}, "logit_scale"),
    "smollm3": ({"no_rope_layers": [0, 0]}, "no_rope_layers"),
    "gemma3_text": ({"layer_types": ["full_attention", "full_attention"]}, "layer_types"),
    "mixtral": ({"num_experts_per_tok": 1}, "num_experts_per_tok"),
    "glm4_moe": ({"routed_scaling_factor": 2.5}, "routed_scaling_factor"),
    "mamba2": ({"time_step_limit": [0.0, 0.1]}, "time_step_limit"),
    "deepseek_v3": ({"rope_interleave": False}, "rope_interleave"),
}


@pytest.mark.parametrize("family", BY_CLASS)
def test_what_a_class_computes_with_differs(family: str, tmp_path: Path) -> None:
    changes, name = BY_CLASS[family]
    one, two = (str(folder) for folder in make_family(family, tmp_path, names=("one", "two")).values())
    edit(Path(two) / "config.json", **changes)
    with pytest.raises(PreflightError, match=f"`{name}` differs"):
        check_fit(opened(linear(one, two)))
    stream = opened(linear(one, two, base_model=two))
    check_fit(stream)
    assert any(f"`{name}` differs" in note and f"with that of {two}" in note for note in fit_notes(stream))


@pytest.mark.parametrize("family", ["gpt2", "bloom", "gpt_j"])
def test_heads_of_classes_that_call_them_otherwise(family: str, tmp_path: Path) -> None:
    one, two = (str(folder) for folder in make_family(family, tmp_path, names=("one", "two")).values())
    edit(Path(two) / "config.json", n_head=2)
    with pytest.raises(PreflightError, match="`num_attention_heads` differs"):
        check_fit(opened(linear(one, two, base_model=one)))


# What a trainer leaves in config.json, and other words for what the class takes by itself.
IDLE = {
    "llama": {
        "attention_dropout": 0.1,
        "initializer_range": 0.5,
        "use_cache": False,
        "pretraining_tp": 2,
        "a_tool": "x",
    },
    "qwen2": {"max_window_layers": 1, "head_dim": 32},
    "mixtral": {"head_dim": 32, "router_aux_loss_coef": 0.5, "output_router_logits": True},
    "olmo2": {"head_dim": 32},
    "granite": {"logits_scaling": 1},
    # LFM2's older files name the attention layers, and take the width of the MLP as it is before it is rounded.
    "lfm2": {"full_attn_idxs": [1], "intermediate_size": 256, "block_auto_adjust_ff_dim": False},
    "phi3": {"original_max_position_embeddings": 128},
    "gpt2": {"n_inner": 512},
    "gemma3_text": {
        "rope_parameters": {
            "full_attention": {"rope_theta": 1000000, "type": "default"},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000, "factor": None},
        }
    },
}


@pytest.mark.parametrize("family", IDLE)
def test_settings_that_change_no_answer_may_differ(family: str, tmp_path: Path) -> None:
    one, two = (str(folder) for folder in make_family(family, tmp_path, names=("one", "two")).values())
    file = Path(two) / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | IDLE[family]))
    stream = opened(linear(one, two))
    check_fit(stream)
    assert not [note for note in fit_notes(stream) if "computes with" in note]


def test_ropes_that_are_written_otherwise(tmp_path: Path) -> None:
    """Factors as whole numbers or not; sections for images, which a text model beside Qwen's VL lacks."""
    factors = {
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "long_factor": [1.0, 2.5],
        "short_factor": [1, 1],
        "factor": 8.0,
    }
    assert _rope({"rope_parameters": factors}) == _rope(
        {
            "rope_theta": 10000,
            "rope_scaling": {"type": "longrope", "long_factor": [1, 2.5], "short_factor": [1.0, 1], "factor": 8},
        }
    )
    assert _rope({"rope_parameters": factors | {"long_factor": [1, 2]}}) != _rope({"rope_parameters": factors})
    images = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24], "mrope_interleaved": True}
    assert _rope({"rope_parameters": images}) == _rope({"rope_theta": 1e6})


def test_settings_of_a_class_that_is_not_known(llama: dict[str, str]) -> None:
    """A model that brings code of its own: what tools write into its config.json is no setting."""
    plain = {"model_type": "own", "hidden_size": 64, "num_attention_heads": 4, "norm_eps": 1e-5, "hidden_act": "silu"}
    made = []
    for extra in ({}, {"_name_or_path": "a/b", "transformers_version": "4.1", "a_tool": "1.0", "auto_map": {"AutoConfig": "x"},
                       "torch_dtype": "bfloat16", "architectures": ["Own"]}, {"norm_eps": 1e-6, "hidden_act": "gelu"}):  # fmt: skip
        source = Source(f"model {len(made)}", Path(llama["base"]))
        source.__dict__["config"] = plain | {"_name_or_path": "c/d", "a_tool": "2.0"} | extra
        source.__dict__["built"] = None
        made.append(facts_of(source))
    assert [name for name in _settings(made[:2]) if _computing_note(name, made[:2])] == []
    assert [name for name in _settings(made) if _computing_note(name, made)] == ["hidden_act", "norm_eps"]


def test_revisions_of_one_model_are_told_apart(
    llama: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are called owner/model, and what they differ in was looked up by that name."""
    folders = {"first": Path(llama["base"]), "second": Path(copy(llama["instruct"], tmp_path / "b", rms_norm_eps=1e-2))}
    monkeypatch.setattr(
        resolver, "open_source", lambda path, revision, beside: Source(path, folders[revision], revision)
    )
    data = linear("owner/model@first", "owner/model@second")
    with pytest.raises(
        PreflightError, match=r"`rms_norm_eps` differs \(owner/model@first 1e-06, owner/model@second 0.01"
    ):
        check_fit(opened(data))
    _swap_tokens(folders["second"])
    edit(folders["second"] / "config.json", rms_norm_eps=1e-6)
    with pytest.raises(PreflightError, match=r"different tokens to the same ids .* owner/model@second"):
        check_fit(opened(data))


def test_who_lends_only_its_configuration_is_compared(llama: dict[str, str], tmp_path: Path) -> None:
    """`passthrough` merges nothing of its base model, and computes with the base model's settings."""

    def stacked(base: str) -> Stream:
        return opened({"merge_method": "passthrough", "base_model": base,
                       "slices": [{"sources": [{"model": llama["instruct"], "layer_range": [0, 4]}]}]})  # fmt: skip

    rope = copy(llama["base"], tmp_path / "rope", rope_theta=500000.0, rope_parameters=None)
    stream = stacked(rope)
    check_fit(stream)
    assert any(f"`rope` differs ({rope} 500000" in note for note in fit_notes(stream))
    with pytest.raises(PreflightError, match="`num_attention_heads` differs"):
        check_fit(stacked(copy(llama["base"], tmp_path / "heads", **MEANING["heads"])))
    tokens = Path(copy(llama["base"], tmp_path / "tokens"))
    vocabulary = json.loads((tokens / "tokenizer.json").read_text())
    ids = vocabulary["model"]["vocab"]
    first, second = list(ids)[300:302]
    ids[first], ids[second] = ids[second], ids[first]
    (tokens / "tokenizer.json").write_text(json.dumps(vocabulary))
    with pytest.raises(PreflightError, match="different tokens to the same ids"):
        check_fit(stacked(str(tokens)))


def _repeats_less(folder: Path) -> None:
    edit(folder / "generation_config.json", repetition_penalty=1.3, temperature=1.0)


def _no_bos(folder: Path) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(content | {"post_processor": None}))


def _other_merges(folder: Path) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["merges"].reverse()
    (folder / "tokenizer.json").write_text(json.dumps(content))


def _merges_as_pairs(folder: Path) -> None:
    """As newer tokenizers write them."""
    content = json.loads((folder / "tokenizer.json").read_text())
    merges = content["model"]["merges"]
    content["model"]["merges"] = [" ".join(pair) if isinstance(pair, list) else pair.split(" ") for pair in merges]
    (folder / "tokenizer.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_repeats_less, 'generation settings differ .*other {"repetition_penalty": 1.3}'),
        (_no_bos, "rules by which texts become tokens differ"),
        (_other_merges, "rules by which texts become tokens differ"),
        (_merges_as_pairs, None),
    ],
)
def test_whose_reading_and_writing_is_used_is_noted(
    change: Callable[[Path], None], words: str | None, llama: dict[str, str], tmp_path: Path
) -> None:
    other = Path(copy(llama["instruct"], tmp_path / "other"))
    change(other)
    stream = opened(linear(llama["base"], str(other)))
    check_fit(stream)
    notes = fit_notes(stream)
    assert [bool(re.search(f"{words}.* those of {llama['base']} are used", note)) for note in notes] == [True] * bool(
        words
    )


def test_what_changes_no_text_is_not_noted(llama: dict[str, str], tmp_path: Path) -> None:
    """What fine-tunes of one model differ in after each save."""
    other = Path(copy(llama["instruct"], tmp_path / "other"))
    edit(other / "generation_config.json", max_new_tokens=2048, cache_implementation="hybrid", max_length=4096)
    edit(other / "tokenizer_config.json", add_prefix_space=False, add_bos_token=False, split_special_tokens=False)
    assert generation_of(other) == generation_of(Path(llama["instruct"]))
    assert token_rules(other) == token_rules(Path(llama["instruct"]))
    edit(other / "tokenizer_config.json", add_eos_token=True)
    assert token_rules(other) != token_rules(Path(llama["instruct"]))


def test_layers_of_unlike_kinds_are_noted(tmp_path: Path) -> None:
    from transformers import Gemma3TextConfig

    config = Gemma3TextConfig(**{**TEXT, "head_dim": 32, "num_hidden_layers": 4},
                              layer_types=["sliding_attention", "full_attention"] * 2)  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    for name in ("one", "two"):
        model.save_pretrained(tmp_path / name)

    def notes(first: list[int], second: list[int]) -> list[str]:
        sources = [{"model": str(tmp_path / name), "layer_range": layers, "parameters": {"weight": 0.5}}
                   for name, layers in (("one", first), ("two", second))]  # fmt: skip
        stream = opened({"merge_method": "linear", "slices": [{"sources": sources}]})
        check_fit(stream)
        return [note for note in fit_notes(stream) if "unlike kinds (`layer_types`)" in note]

    assert notes([0, 2], [1, 3]) and not notes([0, 2], [2, 4])


def test_a_configuration_that_no_model_can_be_made_of_is_found_before_a_load(tmp_path: Path) -> None:
    """Gemma 3n has the width of each layer, and what its embedding brings to each, in lists and tensors of all layers."""
    from transformers import Gemma3nTextConfig

    config = Gemma3nTextConfig(**{**TEXT, "head_dim": 32, "num_hidden_layers": 4}, hidden_size_per_layer_input=8,
                               vocab_size_per_layer_input=320, num_kv_shared_layers=0, laurel_rank=8,
                               activation_sparsity_pattern=[0.9, 0.0, 0.5, 0.0],
                               layer_types=["sliding_attention", "full_attention"] * 2)  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "one")
    slices = [{"sources": [{"model": str(tmp_path / "one"), "layer_range": layers}]} for layers in ([0, 3], [1, 4])]
    stream = opened({"merge_method": "passthrough", "slices": slices})
    with pytest.raises(PreflightError, match="transformers makes no model of the merged configuration"):
        check_fit(stream)
    with pytest.raises(EngineError, match="transformers cannot make this model: IndexError"):
        build_model(stream)


def test_a_dense_layer_behind_those_of_experts_is_said(tmp_path: Path) -> None:
    one = str(make_family("glm4_moe", tmp_path, names=("one",))["one"])
    slices = [{"sources": [{"model": one, "layer_range": [0, 2]}]}] * 2
    with pytest.raises(PreflightError, match="puts a layer where the configuration has one of other tensors"):
        opened({"merge_method": "passthrough", "slices": slices})


def test_another_window_is_noted(llama: dict[str, str], tmp_path: Path) -> None:
    stream = opened(linear(llama["base"], copy(llama["instruct"], tmp_path / "long", max_position_embeddings=8192)))
    check_fit(stream)
    assert any(f"the window is that of {llama['base']}" in note for note in fit_notes(stream))


def test_old_and_new_spelling_of_rope_are_one(llama: dict[str, str], tmp_path: Path) -> None:
    """config.json of transformers 4 says rope_theta and rope_scaling, that of 5 rope_parameters."""
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 512}  # fmt: skip
    old = copy(llama["base"], tmp_path / "old", rope_parameters=None, rope_theta=5e5, rope_scaling=scaling)
    new = copy(llama["instruct"], tmp_path / "new", rope_parameters=scaling | {"rope_theta": 5e5})
    rows = check_fit(opened(linear(old, new)))
    assert rows[0]["rope"] == rows[1]["rope"]
    assert "llama3" in rows[0]["rope"] and rows[0]["rope"].startswith("500000")


MEANING = {
    "heads": {"num_attention_heads": 8, "head_dim": 16, "num_key_value_heads": 4},
    "key heads": {"num_key_value_heads": 4},
}


@pytest.mark.parametrize(("changes", "word"), [("heads", "num_attention_heads"), ("key heads", "num_key_value_heads")])
def test_equal_shapes_with_other_heads_are_refused_even_with_a_base(
    changes: str, word: str, llama: dict[str, str], tmp_path: Path
) -> None:
    other = copy(llama["instruct"], tmp_path / "other", **MEANING[changes])
    with pytest.raises(PreflightError, match=f"`{word}` differs"):
        check_fit(opened(linear(llama["base"], other, base_model=llama["base"])))


def test_notes_on_what_changes_no_weight(llama: dict[str, str], tmp_path: Path) -> None:
    other = Path(copy(llama["instruct"], tmp_path / "other"))
    edit(other / "generation_config.json", eos_token_id=[1])
    edit(other / "tokenizer_config.json", eos_token="<|end|>", pad_token="<|end|>")
    (other / "chat_template.jinja").write_text("{{ messages }}")
    stream = opened(linear(llama["base"], str(other)))
    rows = check_fit(stream)
    notes = "\n".join(fit_notes(stream))
    for words in ("generation eos", "eos token", "pad token", "chat template"):
        assert f"the {words} differs" in notes
    assert f"that of {llama['base']} is used" in notes
    marked = [line.split()[1] for line in table(rows).splitlines() if line.startswith("*")]
    assert marked == ["eos", "pad", "generation", "template"]


def test_the_tokenizer_of_the_recipe_is_the_one_that_notes_name(llama: dict[str, str], tmp_path: Path) -> None:
    other = Path(copy(llama["instruct"], tmp_path / "other"))
    (other / "chat_template.jinja").write_text("{{ messages }}")
    stream = opened(linear(llama["base"], str(other), tokenizer_source=str(other)))
    assert any(f"that of {other} is used" in note for note in fit_notes(stream))


def test_dtypes_may_differ(llama: dict[str, str], tmp_path: Path, mergekit: Callable[..., Path]) -> None:
    other = Path(copy(llama["instruct"], tmp_path / "other"))
    halves = {name: tensor.bfloat16() for name, tensor in load_file(other / "model.safetensors").items()}
    save_file(halves, other / "model.safetensors", metadata={"format": "pt"})
    data = linear(llama["base"], str(other), dtype="float32")
    assert any("dtype of the files differs" in note for note in fit_notes(opened(data)))
    assert_same(streamed(data), tensors_of(mergekit(data)))


STRANGE = [torch.uint8, torch.int8, torch.int32, torch.bool, torch.float8_e4m3fn, torch.float8_e5m2]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_config_without_a_dtype_has_that_of_the_files(
    dtype: torch.dtype, llama: dict[str, str], tmp_path: Path, mergekit: Callable[..., Path]
) -> None:
    """As `from_pretrained(dtype="auto")`, which lm_eval's `hf` calls, takes mergekit's checkpoint."""
    folders = []
    for name in ("base", "instruct"):
        folder = Path(copy(llama[name], tmp_path / name, dtype=None, torch_dtype=None))
        tensors = load_file(folder / "model.safetensors")
        save_file({own: tensor.to(dtype) for own, tensor in tensors.items()}, folder / "model.safetensors")
        folders.append(str(folder))
    data = linear(*folders)
    ours = build_model(opened(data))
    assert ours.dtype == AutoModelForCausalLM.from_pretrained(mergekit(data), dtype="auto").dtype == dtype


@pytest.mark.parametrize(
    ("tensor", "dtype"),
    [
        *(("model.layers.0.mlp.up_proj.weight", dtype) for dtype in STRANGE),
        ("model.norm.weight", torch.uint8),
        ("lm_head.weight", torch.int8),
    ],
    ids=str,
)
def test_codes_of_a_quantised_model_are_no_numbers(
    tensor: str, dtype: torch.dtype, llama: dict[str, str], tmp_path: Path
) -> None:
    """Without a quantization_config: uint8 was merged as numbers up to 127.5. As a source, a parent and in a stage."""
    folder = Path(copy(llama["basque"], tmp_path / "codes"))
    tensors = load_file(folder / "model.safetensors")
    tensors[tensor] = tensors[tensor].mul(50).abs().to(dtype)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    stage = yaml.safe_dump({"name": "stage", **linear(str(folder), llama["base"], dtype="float32")})
    for data in (linear(llama["base"], str(folder), dtype="float32"),
                 {"merge_method": "passthrough", "models": [{"model": str(folder)}]},
                 f"{stage}---\n" + yaml.safe_dump(linear("stage", llama["base"], dtype="float32"))):  # fmt: skip
        with pytest.raises(PreflightError, match=rf"codes holds 1 weights .*{tensor} is .*quantised.*bfloat16"):
            check_fit(opened(data))


def test_experts_in_one_tensor_of_codes_are_refused(tmp_path: Path) -> None:
    made = make_family("qwen3_moe", tmp_path, names=("one", "two"))
    for folder in made.values():
        whole = AutoModelForCausalLM.from_pretrained(folder).state_dict()
        codes = {name: (tensor * 50).round().to(torch.int8) if tensor.ndim == 3 else tensor.contiguous()
                 for name, tensor in whole.items()}  # fmt: skip
        save_file(codes, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PreflightError, match="it is quantised, though its config"):
        check_fit(opened(linear(*map(str, made.values()))))


def test_what_is_a_whole_number_by_nature_is_no_code() -> None:
    """GPT-NeoX's and BERT's: a mask, position ids, a counter. As in mergekit, which copies them where they agree."""
    for name, dtype, shape in (
        ("gpt_neox.layers.0.attention.bias", "BOOL", (1, 1, 64, 64)), ("h.0.attn.bias", "U8", (1, 1, 64, 64)),
        ("embeddings.position_ids", "I64", (1, 64)), ("norm.num_batches_tracked", "I64", ()),
        ("gpt_neox.layers.0.attention.masked_bias", "F32", ()), ("model.norm.weight", "F64", (64,)),
    ):  # fmt: skip
        assert not is_code(name, TensorEntry("", dtype, shape))


@pytest.mark.parametrize("name", ["LLaMAForCausalLM", "LlamaModel", "AutoModelForCausalLM"])
def test_a_class_under_another_name(name: str, llama: dict[str, str], tmp_path: Path) -> None:
    """The first is the name that early checkpoints have; transformers takes LlamaForCausalLM for both."""
    other = copy(llama["instruct"], tmp_path / "other", architectures=[name])
    right = streamed(linear(llama["base"], llama["instruct"]))
    for data in (linear(llama["base"], other), linear(other, llama["base"])):
        check_fit(opened(data))
        assert_same(streamed(data), right)
    with pytest.raises(PreflightError, match="weights of different architectures"):
        reward = copy(llama["instruct"], tmp_path / "reward", architectures=["LlamaForSequenceClassification"])
        check_fit(opened(linear(llama["base"], reward)))


def test_another_size_or_architecture_is_refused(llama: dict[str, str], qwen: dict[str, str], tmp_path: Path) -> None:
    from lm_eval_iberian.toy.tiny import build_family

    with pytest.raises(PreflightError, match="architectures"):
        check_fit(opened(linear(llama["base"], qwen["base"])))
    wide = str(build_family(tmp_path, hidden_size=96)["base"])
    with pytest.raises(PreflightError, match="differs in shape"):
        check_fit(opened(linear(llama["base"], wide)))
    short = str(build_family(tmp_path / "short", num_hidden_layers=2)["base"])
    with pytest.raises(PreflightError, match=r"it has 2 layers, 0 to 1|same number of layers"):
        check_fit(opened(linear(llama["base"], short)))


def test_a_layer_range_outside_the_model_is_refused(llama: dict[str, str]) -> None:
    data = {
        "merge_method": "passthrough",
        "slices": [{"sources": [{"model": llama["base"], "layer_range": [0, 6]}]}],
    }
    with pytest.raises(PreflightError, match=r"it has 4 layers, 0 to 3\. In a recipe `layer_range: \[0, 4\]`"):
        check_fit(opened(data))


def test_a_config_with_endless_layers_is_refused(llama: dict[str, str], tmp_path: Path) -> None:
    other = copy(llama["instruct"], tmp_path / "other", num_hidden_layers=10**12)
    with pytest.raises(PreflightError, match="Is it damaged"):
        opened(linear(llama["base"], other))


def test_gemma_is_tied_where_its_config_says_nothing(tmp_path: Path) -> None:
    from lm_eval_iberian.toy.tiny import build_family

    family = build_family(tmp_path, "gemma")
    edit(family["base"] / "config.json", tie_word_embeddings=None)
    rows = check_fit(opened(linear(str(family["base"]), str(family["basque"]))))
    assert [row["tied"] for row in rows] == ["yes", "yes"]


def test_more_memory_than_there_is(llama: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    import psutil

    from merge_hooks.checks.estimate import estimate, refuse_too_large

    stream = opened(linear(llama["base"], llama["instruct"]))
    count = sum(tensor.numel() for tensor in tensors_of(llama["base"]).values())
    needs = estimate(stream, "bfloat16")
    assert (needs.parameters, needs.model, needs.read) == (count, 2 * count, 8 * count)
    refuse_too_large(stream, "float32", holds_model=True)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=300_000_000))
    with pytest.raises(PreflightError, match=r"needs about .* of memory .* are free"):
        refuse_too_large(stream, "float32", holds_model=True)


def test_a_source_that_changes_during_the_merge_is_noticed(llama: dict[str, str], tmp_path: Path) -> None:
    from merge_hooks.errors import SourceError

    moving = Path(copy(llama["instruct"], tmp_path / "moving"))
    stream = iter(opened(linear(llama["base"], str(moving))))
    next(stream)
    tensors = load_file(moving / "model.safetensors")
    (moving / "model.safetensors").unlink()
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, moving / "model.safetensors")
    with pytest.raises(SourceError, match="changed during the merge"):
        list(stream)


def test_a_quantised_model_is_refused(llama: dict[str, str], tmp_path: Path) -> None:
    other = copy(llama["instruct"], tmp_path / "other", quantization_config={"bits": 4})
    with pytest.raises(PreflightError, match="is quantised; merge the original weights instead"):
        check_fit(opened(linear(llama["base"], other)))


def test_more_rows_than_the_config_says_are_found_before_a_load(llama: dict[str, str], tmp_path: Path) -> None:
    folders = []
    for name in ("base", "instruct"):
        folder = Path(copy(llama[name], tmp_path / name))
        tensors = load_file(folder / "model.safetensors")
        for end in ("model.embed_tokens.weight", "lm_head.weight"):
            tensors[end] = torch.cat([tensors[end], tensors[end][:8]])
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        folders.append(str(folder))
    words = r"2 tensors have another shape .* of \S+base gives .* is 2008x64 and should be 2000x64"
    with pytest.raises(PreflightError, match=words):
        check_fit(opened(linear(*folders)))


def test_one_model_under_two_paths(llama: dict[str, str], tmp_path: Path) -> None:
    """mergekit takes them for two models; here they are one source, and its word for that names no model."""
    (tmp_path / "link").symlink_to(llama["base"])
    words = f"{llama['base']} is listed twice .* List it once, with the sum of the weights"
    with pytest.raises(PreflightError, match=words):
        opened(linear(llama["base"], llama["instruct"], str(tmp_path / "link")))


@pytest.mark.parametrize("ending", ["qweight", "weight_packed", "weight.absmax", "SCB"])
def test_packed_tensors_tell_a_quantised_model(ending: str, llama: dict[str, str], tmp_path: Path) -> None:
    """AutoGPTQ's config lies in a file of its own, and a config.json may have been replaced."""
    other = Path(copy(llama["instruct"], tmp_path / "other"))
    tensors = load_file(other / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    packed = f"{name.removesuffix('weight')}{ending}"
    tensors[packed] = tensors.pop(name).to(torch.int32)
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PreflightError, match=rf"other is quantised \({packed} in its files\); merge the original"):
        check_fit(opened(linear(llama["base"], str(other))))


def test_a_config_that_says_null_is_not_quantised(llama: dict[str, str], tmp_path: Path) -> None:
    other = Path(copy(llama["instruct"], tmp_path / "other"))
    content = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(content | {"quantization_config": None}))
    stream = opened(linear(str(other), llama["base"]))
    check_fit(stream)
    build_model(stream)
    assert is_quantised({"text_config": {"quantization_config": {"bits": 4}}, "quantization_config": None})


def test_a_model_that_only_lends_its_tokenizer_need_not_fit(llama: dict[str, str], tmp_path: Path) -> None:
    wide = str(build_family(tmp_path / "wide", hidden_size=96)["base"])
    rows = check_fit(opened(linear(llama["base"], llama["instruct"], tokenizer_source=wide)))
    assert [row["model"] for row in rows] == [llama["base"], llama["instruct"]]
    with pytest.raises(PreflightError, match=r"model.embed_tokens.weight differs in vocabulary: \S+ 64, \S+ 96"):
        check_fit(opened(linear(llama["base"], wide, tokenizer_source="union")))


@pytest.mark.parametrize(
    "content",
    [{"added_tokens": [1, 2]}, {"added_tokens": 3}, {"added_tokens": [{"content": "a"}]}, {"model": 1},
     {"model": {"vocab": ["a", "b"]}}, {"model": {"vocab": 7}}, {"added_tokens": [{"content": "a", "id": None}]}],
)  # fmt: skip
def test_a_damaged_tokenizer_is_a_message_wherever_it_is_read(tmp_path: Path, content: Any) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(SourceError, match=r"tokenizer\.json: its vocabulary or its added tokens .* Download the model"):
        tokens_of(tmp_path)
