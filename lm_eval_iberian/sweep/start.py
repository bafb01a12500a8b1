"""A recipe and a sweep to start from, for two models that are looked at first: `iberian init`.

    start = look("meta-llama/Llama-3.1-8B-Instruct", "HiTZ/Latxa-Llama-3.1-8B")
    write(start, Path("."))      # merge.yml, sweep.yml

Models that lie here are checked as a merge checks them. Of others, config.json and the tokenizer are fetched from the Hub,
and the sizes of their weights are asked; no weights are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from lm_eval_iberian.runs.errors import SweepError
from merge_hooks.checks.estimate import RESERVE, gigabytes
from merge_hooks.sources.checkpoint import Source

FILES = ("merge.yml", "sweep.yml")
# Few prompts of the suite are longer, and a longer window costs memory.
MAX_WINDOW = 8192
BYTES_OF = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class Looked:
    """What a model is, by its small files.

    Args:
        name: as the recipe is to call it.
        facts: fact -> text, those that must agree in a merge.
        tokens: a digest of its tokens.
        has_template: whether it has a chat template.
        window: the tokens it takes; None: not said.
        parameters: how many numbers; 0: not known.
        size: bytes of its weights; 0: not known.
        is_here: whether its weights are on this machine.
    """

    name: str
    facts: dict[str, str]
    tokens: str
    has_template: bool
    window: int | None
    parameters: int
    size: int
    dtype: str
    is_here: bool


@dataclass(frozen=True)
class Start:
    """The models, as they were found, and what is to be measured.

    Args:
        base: what both were made from; then the recipe is task arithmetic, else a linear merge.
        warnings: what somebody should look at before starting.
    """

    instruct: Looked
    language: Looked
    base: Looked | None
    tasks: tuple[str, ...]
    warnings: tuple[str, ...] = field(default=())

    @property
    def models(self) -> tuple[Looked, ...]:
        return tuple(model for model in (self.instruct, self.language, self.base) if model is not None)

    @property
    def dtype(self) -> str:
        """bfloat16, but for models whose files are all float32."""
        return "float32" if {model.dtype for model in self.models} == {"float32"} else "bfloat16"


def look(instruct: str, language: str, base: str | None = None, tasks: tuple[str, ...] = ("iberian_eu",)) -> Start:
    """Look at the models.

    Raises:
        SourceError: a model is not to be had.
        SweepError: they are of different shapes, and do not merge.
        PreflightError: they do not merge for another reason; asked only where all are here.
    """
    found = [look_at(name) for name in (instruct, language, base) if name]
    differing = [fact for fact in found[0].facts if len({model.facts[fact] for model in found}) > 1]
    if differing:
        listed = "\n".join(
            f"- {fact}: {', '.join(f'{model.name} {model.facts[fact]}' for model in found)}" for fact in differing
        )
        raise SweepError(f"these models are of different shapes, and do not merge:\n{listed}")
    start = Start(found[0], found[1], found[2] if base else None, tasks)
    if all(model.is_here for model in found):
        _check_fit(start)
    return replace(start, warnings=tuple(_warnings(start)))


def _check_fit(start: Start) -> None:
    from merge_hooks.checks.preflight import check_fit
    from merge_hooks.recipe.recipe import find_recipe
    from merge_hooks.resolve.resolver import resolve
    from merge_hooks.stream.stream import open_stream

    check_fit(open_stream(resolve(find_recipe(recipe_text(start)))))


def look_at(name: str) -> Looked:
    """One model. Raises SourceError where it is neither here nor on the Hub."""
    from merge_hooks.sources.checkpoint import open_source

    if Path(name).expanduser().is_dir() or name.count("/") != 1 or name.startswith((".", "/", "~")):
        return _looked(open_source(name))
    return _looked(*_on_the_hub(name))


def _on_the_hub(name: str) -> tuple[Source, dict[str, int] | None]:
    """Its small files, and how many numbers of which dtype it has; None where its weights are in the cache."""
    from huggingface_hub import get_safetensors_metadata, snapshot_download

    from merge_hooks.sources.again import look_for_the_hub
    from merge_hooks.sources.hub import LOG, SMALL_PATTERNS, explain_hub_error, say_what_is_near

    say_what_is_near(name)
    look_for_the_hub(LOG)
    try:
        folder = Path(snapshot_download(name, allow_patterns=SMALL_PATTERNS))
        source = Source(name=name, folder=folder, revision=folder.name)
        is_cached = any(folder.glob("*.safetensors"))
        if is_cached:
            return source, None
        return source, {str(kind): count for kind, count in get_safetensors_metadata(name).parameter_count.items()}
    except Exception as error:
        from merge_hooks.errors import SourceError

        raise SourceError(explain_hub_error(error, name, None)) from error


def _looked(source: Source, elsewhere: dict[str, int] | None = None) -> Looked:
    """What a model is. `elsewhere`: how many numbers of which dtype, where its weights are not on this machine."""
    from merge_hooks.sources.facts import full_config, tokenizer_digest, tokens_of
    from merge_hooks.sources.headers import BYTES, FLOATS

    config = full_config(source)
    text = config | (config.get("text_config") or {})
    window = text.get("max_position_embeddings")
    names = ", ".join(config.get("architectures") or [str(config.get("model_type", "?"))])
    if elsewhere is None:
        entries = source.stored.values()
        kinds, parameters = {entry.dtype for entry in entries}, sum(math.prod(entry.shape) for entry in entries)
    else:
        kinds, parameters = set(elsewhere), sum(elsewhere.values())
    kind = FLOATS.get(next(iter(kinds)), "") if len(kinds) == 1 else ""
    has_template = (source.folder / "chat_template.jinja").is_file() or "chat_template" in _tokenizer_config(source)
    return Looked(
        name=source.name,
        facts={"architecture": names} | {key: str(text.get(key, "?")) for key in ("num_hidden_layers", "hidden_size")},
        tokens=tokenizer_digest(tokens_of(source.folder)),
        has_template=has_template,
        window=window if isinstance(window, int) else None,
        parameters=parameters,
        size=source.size if elsewhere is None else sum(BYTES.get(kind, 1) * count for kind, count in elsewhere.items()),
        dtype=kind or str(text.get("dtype") or text.get("torch_dtype") or ""),
        is_here=elsewhere is None,
    )


def _tokenizer_config(source: Source) -> dict[str, Any]:
    from merge_hooks.sources.headers import read_json

    file = source.folder / "tokenizer_config.json"
    return read_json(file, source.name) if file.is_file() else {}


def _warnings(start: Start) -> list[str]:
    said = []
    if not start.instruct.has_template:
        said.append(f"{start.instruct.name} has no chat template: is it the instruct model?")
    if len({model.tokens for model in start.models}) > 1:
        said.append(
            "their tokenizers differ; that of the instruct model is used. `iberian recipe check` says the rest."
        )
    return said


def write(start: Start, folder: Path) -> list[Path]:
    """Write merge.yml and sweep.yml into the folder. Raises SweepError where one is there already."""
    paths = refuse_existing(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in zip(paths, (recipe_text(start), sweep_text(start)), strict=True):
        path.write_text(text, encoding="utf-8")
    return paths


def refuse_existing(folder: Path) -> list[Path]:
    """The files to be written. Raises SweepError where one is there already."""
    paths = [folder / name for name in FILES]
    for path in paths:
        if path.exists():
            raise SweepError(f"{path} is there already, and is not written over. Name another folder with --out.")
    return paths


def recipe_text(start: Start) -> str:
    """merge.yml, with comments."""
    return "\n".join(
        [
            "# Check it: iberian recipe check merge.yml     Look at it: iberian recipe show merge.yml",
            *_merge(start, "1.0", ""),
            "",
        ]
    )


def sweep_text(start: Start) -> str:
    """sweep.yml: the same merge with several weights of the language's model."""
    window = min([MAX_WINDOW, *(model.window for model in start.models if model.window)])
    return "\n".join(
        [
            "# The plan, with memory and time: iberian sweep sweep.yml --dry-run     Run it: iberian sweep sweep.yml",
            "# The models that are merged are measured beside the merges. The chat template is used where there is one.",
            f"tasks: {_word(list(start.tasks))}    # names of lm_eval; iberian_suite is everything",
            "model_args:",
            f"  dtype: {start.dtype}",
            f"  max_model_len: {window}    # tokens of prompt and answer; fewer need less memory",
            "recipe:",
            *_merge(start, "$weight", "  "),
            "axes:",
            "  weight: [0.5, 1.0, 1.5]    # of the language's model; each is one merge",
            "",
        ]
    )


def _merge(start: Start, weight: str, indent: str) -> list[str]:
    """The recipe's lines."""
    base = start.base
    method = ["merge_method: linear    # the weighted mean of both"]
    end = ["parameters: {normalize: true}    # weights are divided by their sum"]
    if base is not None:
        method = [
            "merge_method: task_arithmetic    # what each model adds to the base, times its weight, added to the base",
            f"base_model: {_word(_place(base))}",
        ]
        end = []
    lines = [
        *method,
        "models:",
        f"  - model: {_word(_place(start.instruct))}    # follows instructions",
        "    parameters: {weight: 1.0}",
        f"  - model: {_word(_place(start.language))}    # knows the language",
        f"    parameters: {{weight: {weight}}}",
        *end,
        f"tokenizer_source: {_word(_place(start.instruct))}    # its chat template and end tokens, too",
        f"dtype: {start.dtype}",
    ]
    return [indent + line for line in lines]


def _place(model: Looked) -> str:
    """A folder as it is found from everywhere, or the Hub's name."""
    path = Path(model.name).expanduser()
    return str(path.resolve()) if path.is_dir() else model.name


def _word(value: Any) -> str:
    """As YAML writes it on one line."""
    return (
        yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000).removesuffix("\n...\n").strip()
    )


def costs(start: Start, paths: list[Path]) -> list[str]:
    """What it would cost, in words: disk and memory; time, where models and documents are here."""
    size = max(model.parameters for model in start.models) * BYTES_OF[start.dtype]
    missing = [model for model in start.models if not model.is_here]
    lines = [
        f"Memory: {gigabytes(size)} for the merge in the engine ({start.dtype}), and room for what it answers with; "
        f"on a GPU a card of {_card(size)} GB."
    ]
    if missing:
        total = gigabytes(sum(model.size for model in missing))
        lines.append(
            f"Disk: {total} to be fetched ({', '.join(model.name for model in missing)}). No merge is written."
        )
        return [*lines, "Time: known once the models are here: iberian sweep sweep.yml --dry-run"]
    lines.append("Disk: nothing beyond the models. No merge is written.")
    return [*lines, *_measured(paths)]


def _card(size: int) -> int:
    """The smallest usual card that holds so many bytes and leaves a fifth for caches and activations."""
    return next((card for card in (8, 12, 16, 24, 32, 40, 48, 80, 141) if size + RESERVE < 0.8 * card * 1e9), 192)


def _measured(paths: list[Path]) -> list[str]:
    """The sweep's own estimate."""
    from lm_eval_iberian.sweep.outlook import needs_of
    from lm_eval_iberian.sweep.plan import make_plan
    from lm_eval_iberian.sweep.spec import read_sweep

    try:
        return ["The sweep:", *(f"  {line}" for line in needs_of(make_plan(read_sweep(str(paths[1]), {}))))]
    except Exception as error:
        if not getattr(error, "for_people", False):
            raise
        return [f"Time: not known yet: {str(error).splitlines()[0]}"]
