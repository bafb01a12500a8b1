"""The model card of an exported merge: what it is made of, its signature, and its scores where they are known."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merge_hooks.errors import RecipeError
from merge_hooks.hashing import template_hash
from merge_hooks.recipe.signature import Signature, recipe_digest, sign
from merge_hooks.stream.tokenizer import TokenizerChoice, generation_hash, generation_settings
from merge_hooks.tools.card_head import card_head
from merge_hooks.tools.card_index import eval_results, scores_of

if TYPE_CHECKING:
    from merge_hooks.stream.stream import Stream

# What lm_eval writes into results_*.json.
Results = Mapping[str, Any]


def model_card(stream: Stream, choice: TokenizerChoice, results: Path | Sequence[Results] = ()) -> str:
    """README.md in the Hub's form.

    Args:
        results: lm_eval's results of this merge, as a file or as data; several if it was run several times.
    Raises:
        RecipeError: these are no results of lm_eval, or results of another merge.
    """
    resolved = stream.resolved
    found = [(str(results), _read(results))] if isinstance(results, Path) else [("the results", one) for one in results]
    for origin, content in found:
        _refuse_others(origin, content, stream)
    scores = eval_results([content for _, content in found], _prompted, _shortened)
    head = card_head(resolved, resolved.donor.config, scores, f"{resolved.method} merge")
    sources = "\n".join(f"| {source.name} | `{source.fingerprint()}` |" for source in resolved.sources.values())
    parts = [
        f"---\n{head}\n---\n# A merge by {resolved.method}",
        f"Tokenizer, chat template and generation config: {choice.origin}.",
        f"| source | revision or content hash |\n|---|---|\n{sources}",
        f"## Recipe\n{_fenced(resolved.recipe.text, 'yaml')}",
        f"## Signature\n{_fenced(str(_signature(stream, choice)), '')}",
    ]
    if found:
        parts.append(f"## Scores\n{_scores([content for _, content in found])}")
    return "\n\n".join(parts) + "\n"


def _signature(stream: Stream, choice: TokenizerChoice) -> Signature:
    settings = generation_settings(choice.generation_folder, stream.model_config)
    return sign(
        stream.resolved,
        dtype=str(stream.resolved.dtype or stream.model_config.dtype or "as the sources").removeprefix("torch."),
        tokenizer=choice.facts.hash,
        template=template_hash(choice.facts.template),
        generation=generation_hash(settings),
        engine="safetensors",
    )


def _fenced(text: str, language: str) -> str:
    """A code block whose fence no line of the text can close."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def _read(file: Path) -> Results:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"{file}: no results of lm_eval to be read there ({error}).") from None
    if not isinstance(content, dict):
        raise RecipeError(f"{file}: no results of lm_eval to be read there.")
    return content


def _signed(content: Results) -> str:
    return str((content.get("config") or {}).get("iberian", {}).get("signature", ""))


def are_of(content: Results, stream: Stream) -> bool:
    """Whether results are of this merge: these weights, and this draw of a random method."""
    said = set(_signed(content).split("|"))
    dtype = next((pair.removeprefix("dtype:") for pair in said if pair.startswith("dtype:")), None)
    return {f"recipe:{recipe_digest(stream.resolved, dtype)}", f"seed:{stream.resolved.draws}"} <= said


def _refuse_others(origin: str, content: Results, stream: Stream) -> None:
    """Raises RecipeError if the results are of another merge."""
    signature = _signed(content)
    if not are_of(content, stream):
        what = f"they are of another merge ({signature})" if signature else "they do not say which merge they are of"
        raise RecipeError(f"{origin}: {what}, so they do not belong into this model card. Score this recipe first.")


def _scores(results: Sequence[Results]) -> str:
    """lm_eval's results as a table, under the signatures with which they were measured; several runs as mean and SD.

    The caller knows which results are runs of one measurement (`lm_eval_iberian.identity`). Different prompts get
    different rows.
    """
    rows: dict[tuple[str, str, str], list[float]] = {}
    notes: dict[str, str] = {}
    for content in results:
        for task, scores in content.get("results", {}).items():
            if note := _shortened(content, task):
                notes[task] = note
            for metric, value in scores_of(scores):
                rows.setdefault((task, metric, _prompted(content)), []).append(value)
    lines = [f"`{signature}`" for signature in dict.fromkeys(map(_signed, results))]
    lines += ["", "| task | metric | value | prompt |", "|---|---|---|---|"]
    for (task, metric, prompt), values in sorted(rows.items()):
        lines.append(f"| {task}{' †' if task in notes else ''} | {metric} | {_mean(values)} | {prompt} |")
    return "\n".join(lines + [f"\n† {task}: {note}" for task, note in sorted(notes.items())])


def _prompted(content: Results) -> str:
    """How prompts were made, as lm_eval's command line or a sweep wrote it."""
    chat = (content.get("measured") or {}).get("chat")
    if chat is None:
        keys = {
            "template": "chat_template_sha",
            "multiturn": "fewshot_as_multiturn",
            "system": "system_instruction_sha",
        }
        chat = {name: content.get(key) for name, key in keys.items()}
    shots = "shots as turns" if chat.get("multiturn") else "shots in one message"
    said = [f"chat template, {shots}" if chat.get("template") else "no chat template"]
    return ", ".join([*said, *(["system prompt"] if chat.get("system") else [])])


def _mean(values: Sequence[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.4f}"
    return f"{statistics.fmean(values):.4f} ± {statistics.stdev(values):.4f} ({len(values)} runs)"


def _shortened(content: Results, task: str) -> str:
    """Why a score does not cover the whole benchmark: a limit, or the embedded samples."""
    counts = (content.get("n-samples") or {}).get(task) or {}
    effective, original = counts.get("effective"), counts.get("original")
    metadata = ((content.get("configs") or {}).get(task) or {}).get("metadata") or {}
    said = [f"{effective} of {original} documents"] if effective != original else []
    return "; ".join(said + (["embedded samples, not the benchmark"] if metadata.get("documents") == "samples" else []))
