"""Models that are broken on purpose: each fault is a function that spoils a checkpoint's folder."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any


def with_json(file: str, **said: Any) -> Callable[[Path], None]:
    """Write these keys into a JSON file of the model."""

    def spoil(folder: Path) -> None:
        path = folder / file
        path.write_text(json.dumps(json.loads(path.read_text()) | said))

    return spoil


def with_text(file: str, text: str) -> Callable[[Path], None]:
    """Write this instead of a file of the model."""

    def spoil(folder: Path) -> None:
        (folder / file).write_text(text)

    return spoil


def without(*files: str) -> Callable[[Path], None]:
    """These files are not there."""

    def spoil(folder: Path) -> None:
        for file in files:
            (folder / file).unlink()

    return spoil


def cut(file: str) -> Callable[[Path], None]:
    """Half of a file is missing."""

    def spoil(folder: Path) -> None:
        whole = (folder / file).read_bytes()
        (folder / file).write_bytes(whole[: len(whole) // 2])

    return spoil


def pipe(file: str) -> Callable[[Path], None]:
    """A pipe into which nobody writes, in place of a file."""

    def spoil(folder: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        os.mkfifo(folder / file)

    return spoil


def linked(file: str, to: str) -> Callable[[Path], None]:
    """A link to somewhere else, in place of a file."""

    def spoil(folder: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        (folder / file).symlink_to(to)

    return spoil


def as_folder(file: str) -> Callable[[Path], None]:
    """A folder in place of a file."""

    def spoil(folder: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        (folder / file).mkdir()

    return spoil


def header(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Another header of model.safetensors: what `change` makes of it (in place, or returned)."""

    def spoil(folder: Path) -> None:
        path = folder / "model.safetensors"
        whole = path.read_bytes()
        length = struct.unpack("<Q", whole[:8])[0]
        said = json.loads(whole[8 : 8 + length])
        made = change(said)
        text = json.dumps(said if made is None else made).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + whole[8 + length :])

    return spoil


FIRST = "model.layers.0.self_attn.q_proj.weight"


def entry(**said: Any) -> Callable[[Path], None]:
    """Another entry of one tensor in the header."""

    def change(found: dict[str, Any]) -> None:
        found[FIRST].update(said)

    return header(change)


def overlap(found: dict[str, Any]) -> None:
    """Two tensors at one place."""
    other = next(name for name in found if name != FIRST and found[name].get("shape") == found[FIRST]["shape"])
    found[FIRST]["data_offsets"] = found[other]["data_offsets"]


def gap(found: dict[str, Any]) -> None:
    """Bytes that belong to no tensor."""
    last = max((name for name in found if name != "__metadata__"), key=lambda name: found[name]["data_offsets"][0])
    del found[last]
    first = max((name for name in found if name != "__metadata__"), key=lambda name: found[name]["data_offsets"][0])
    del found[first]


TEMPLATES = {
    "two loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "three loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% for k in range(99999) %}{% endfor %}{% endfor %}{% endfor %}",
    "a long text": "{{ ('x' * 99999999) * 99999 }}",
    "a macro of itself": "{% macro m(n) %}{{ m(n) }}{{ m(n) }}{% endmacro %}{{ m(1) }}",
    "a list of lists": "{{ (range(99999) | list) * 99999999 }}",
}  # fmt: skip

# fault -> what spoils the model; each is refused or measured, and never ends a sweep or waits for ever.
BROKEN: dict[str, Callable[[Path], None]] = {
    "a cut generation_config.json": cut("generation_config.json"),
    "no heads": with_json("config.json", num_attention_heads=0, num_key_value_heads=0),
    "a pipe as config.json": pipe("config.json"),
    "a header of a list": header(lambda found: [1, 2]),
    "a cut config.json": cut("config.json"),
    "a cut tokenizer.json": cut("tokenizer.json"),
    "a cut tokenizer_config.json": cut("tokenizer_config.json"),
    "cut weights": cut("model.safetensors"),
    "no config.json": without("config.json"),
    "generation_config.json is a list": with_text("generation_config.json", "[1]"),
    "generation_config.json is a number": with_text("generation_config.json", "5"),
    "generation settings of a wrong kind": with_json("generation_config.json", eos_token_id={"a": 1}, temperature="hot"),
    "end tokens that are words": with_json("generation_config.json", eos_token_id=["a", "b"]),
    "a width of 0": with_json("config.json", hidden_size=0),
    "a negative width": with_json("config.json", hidden_size=-64),
    "a width that is a word": with_json("config.json", hidden_size="wide"),
    "heads that are a word": with_json("config.json", num_attention_heads="many"),
    "heads that are nothing": with_json("config.json", num_attention_heads=None),
    "no layers": with_json("config.json", num_hidden_layers=0),
    "half a layer": with_json("config.json", num_hidden_layers=0.5),
    "a million million layers": with_json("config.json", num_hidden_layers=10**12),
    "a vocabulary that is a list": with_json("config.json", vocab_size=[2000]),
    "architectures that are a number": with_json("config.json", architectures=5),
    "no architectures": with_json("config.json", architectures=[]),
    "an unknown model": with_json("config.json", model_type="nothing", architectures=["NothingForCausalLM"]),
    "a model type that is a list": with_json("config.json", model_type=["llama"]),
    "rope that is a word": with_json("config.json", rope_parameters="fast"),
    "rope of an unknown kind": with_json("config.json", rope_parameters={"rope_type": "x", "rope_theta": "y"}),
    "layer types that are a number": with_json("config.json", layer_types=3),
    "experts that are a word": with_json("config.json", num_experts="x"),
    "a dtype that is none": with_json("config.json", dtype="float99"),
    "config.json is a list": with_text("config.json", "[]"),
    "config.json is deep": with_text("config.json", "[" * 100_000),
    "config.json has a number of 10,000 digits": with_text("config.json", '{"hidden_size": ' + "9" * 10_000 + "}"),
    "config.json is not UTF-8": lambda folder: (folder / "config.json").write_bytes(b'{"a": "\xff"}'),
    "config.json is a folder": as_folder("config.json"),
    "config.json is endless": linked("config.json", "/dev/zero"),
    "config.json links to itself": linked("config.json", "config.json"),
    "a pipe as tokenizer.json": pipe("tokenizer.json"),
    "a pipe as tokenizer_config.json": pipe("tokenizer_config.json"),
    "a pipe as generation_config.json": pipe("generation_config.json"),
    "a pipe as chat_template.jinja": pipe("chat_template.jinja"),
    "a pipe as weights": pipe("model.safetensors"),
    "a pipe as an index": pipe("model.safetensors.index.json"),
    "weights are endless": linked("model.safetensors", "/dev/zero"),
    "tokenizer.json is a list": with_text("tokenizer.json", "[]"),
    "tokenizer.json of another kind": with_json("tokenizer.json", model={"type": "Nothing"}),
    "added tokens that are numbers": with_json("tokenizer.json", added_tokens=[1, 2]),
    "a token of a million letters": with_json("tokenizer.json", added_tokens=[{
        "id": 9, "content": "x" * 1_000_000, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
        "special": True,
    }]),
    "a vocabulary of texts": with_json("tokenizer.json", model={"type": "BPE", "vocab": {"a": "b"}, "merges": []}),
    "a token that is a list": with_json("tokenizer_config.json", eos_token=[1]),
    "an unknown tokenizer": with_json("tokenizer_config.json", tokenizer_class="Nothing"),
    "no tokenizer": without("tokenizer.json", "tokenizer_config.json"),
    "a template that is no Jinja": with_text("chat_template.jinja", "{% for %}"),
    "an index that is a list": with_text("model.safetensors.index.json", "[]"),
    "an index of numbers": with_text("model.safetensors.index.json", '{"weight_map": {"a": 1}}'),
    "an index whose map is a list": with_text("model.safetensors.index.json", '{"weight_map": [1]}'),
    "a header that is a text": header(lambda found: "x"),
    "an entry that is a number": header(lambda found: found.update({FIRST: 5})),
    "an entry without a shape": header(lambda found: found[FIRST].pop("shape") and None),
    "an entry without offsets": header(lambda found: found[FIRST].pop("data_offsets") and None),
    "offsets that are words": entry(data_offsets=["a", "b"]),
    "offsets that go backwards": entry(data_offsets=[4096, 0]),
    "negative offsets": entry(data_offsets=[-16, 0]),
    "one offset": entry(data_offsets=[0]),
    "a negative shape": entry(shape=[-64, -64]),
    "a shape that is a word": entry(shape="64x64"),
    "a shape of halves": entry(shape=[64.5, 64]),
    "a shape of other size": entry(shape=[1, 1]),
    "a huge shape": entry(shape=[2**40, 2**40]),
    "a dtype of nothing": entry(dtype="X99"),
    "a dtype that is a number": entry(dtype=5),
    "two tensors at one place": header(overlap),
    "a gap between tensors": header(gap),
    "metadata that are numbers": header(lambda found: found.update(__metadata__={"a": 1})),
    "metadata that are a list": header(lambda found: found.update(__metadata__=[1])),
    "bytes behind the end": lambda folder: (folder / "model.safetensors").write_bytes(
        (folder / "model.safetensors").read_bytes() + b"more"
    ),
    "a header of 2**63 bytes": lambda folder: (folder / "model.safetensors").write_bytes(b"\xff" * 64),
    "weights of 3 bytes": lambda folder: (folder / "model.safetensors").write_bytes(b"abc"),
    "no weights at all": lambda folder: (folder / "model.safetensors").write_bytes(b""),
    **{f"a template with {name}": with_text("chat_template.jinja", text) for name, text in TEMPLATES.items()},
}  # fmt: skip

ADAPTER = {
    "peft_type": "LORA",
    "r": 2,
    "lora_alpha": 4,
    "target_modules": ["q_proj"],
    "base_model_name_or_path": "base",
}
# fault -> what adapter_config.json says.
ADAPTERS: dict[str, dict[str, Any]] = {
    "rank 0": {"r": 0}, "a negative rank": {"r": -2}, "a rank that is a word": {"r": "two"}, "no rank": {"r": None},
    "an odd alpha_pattern": {"alpha_pattern": {"q_proj": "big"}}, "alpha_pattern is a list": {"alpha_pattern": ["q_proj"]},
    "alpha_pattern is a text": {"alpha_pattern": "q_proj"}, "alpha_pattern of lists": {"alpha_pattern": {"q_proj": [1]}},
    "alpha_pattern that is no pattern": {"alpha_pattern": {"(": 1}}, "alpha_pattern of NaN": {"alpha_pattern": {"q_proj": float("nan")}},
    "alpha is NaN": {"lora_alpha": float("nan")}, "alpha is infinite": {"lora_alpha": float("inf")}, "alpha is true": {"lora_alpha": True},
    "rank_pattern is a list": {"rank_pattern": ["q_proj"]}, "rank_pattern of words": {"rank_pattern": {"q_proj": "two"}},
    "use_rslora is a word": {"use_rslora": "false"}, "use_dora is a word": {"use_dora": "no"},
    "another kind": {"peft_type": "X"}, "a kind that is a list": {"peft_type": ["LORA"]},
}  # fmt: skip


def spoiled(model: Path, folder: Path, fault: str) -> Path:
    """A copy of a model, broken."""
    made = folder / "broken"
    shutil.copytree(model, made)
    BROKEN[fault](made)
    return made


def adapter(folder: Path, rank: int = 2, **said: Any) -> Path:
    """A LoRA adapter of the tiny Llama's first q_proj."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    where = "base_model.model.model.layers.0.self_attn.q_proj"
    save_file({f"{where}.lora_A.weight": torch.ones(rank, 64), f"{where}.lora_B.weight": torch.ones(128, rank)},
              folder / "adapter_model.safetensors")  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(ADAPTER | said))
    return folder
