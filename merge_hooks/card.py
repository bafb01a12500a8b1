"""The model card of an exported merge: what it is made of, its signature, and its scores where they are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from merge_hooks.errors import RecipeError
from merge_hooks.signature import Signature, recipe_digest, sign
from merge_hooks.tokenizer import TokenizerChoice, template_hash, tokenizer_hash

if TYPE_CHECKING:
    from merge_hooks.stream import Stream


def model_card(stream: Stream, choice: TokenizerChoice, results: Path | None = None) -> str:
    """README.md in the Hub's form.

    Raises:
        RecipeError: the results are no results of lm_eval, or of another merge.
    """
    resolved = stream.resolved
    names = [source.name for source in resolved.sources.values()]
    head = yaml.safe_dump({"base_model": names, "library_name": "transformers", "tags": ["mergekit", "merge"]})
    sources = "\n".join(f"| {source.name} | `{source.fingerprint()}` |" for source in resolved.sources.values())
    parts = [
        f"---\n{head}---\n# A merge by {resolved.method}",
        f"Tokenizer, chat template and generation config: {choice.origin}.",
        f"| source | revision or content hash |\n|---|---|\n{sources}",
        f"## Recipe\n{_fenced(resolved.recipe.text, 'yaml')}",
        f"## Signature\n{_fenced(str(_signature(stream, choice)), '')}",
    ]
    if results is not None:
        parts.append(f"## Scores\n{_scores(results, recipe_digest(resolved))}")
    return "\n\n".join(parts) + "\n"


def _signature(stream: Stream, choice: TokenizerChoice) -> Signature:
    tokenizer = choice.load()
    return sign(
        stream.resolved,
        dtype=str(stream.resolved.dtype or stream.model_config.dtype or "as the sources").removeprefix("torch."),
        tokenizer=tokenizer_hash(tokenizer),
        template=template_hash(tokenizer.chat_template),
        engine="safetensors",
    )


def _fenced(text: str, language: str) -> str:
    """A code block whose fence no line of the text can close."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def _scores(results: Path, digest: str) -> str:
    """lm_eval's results as a table, if they are of this merge."""
    try:
        content = json.loads(results.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"{results}: no results of lm_eval to be read there ({error}).") from None
    signature = str((content.get("config") or {}).get("iberian", {}).get("signature", ""))
    if f"recipe:{digest}" not in signature.split("|"):
        what = f"they are of another merge ({signature})" if signature else "they do not say which merge they are of"
        raise RecipeError(f"{results}: {what}, so they do not belong into this model card. Score this recipe first.")
    rows = [
        f"| {task} | {key.split(',')[0]} | {value:.4f} |"
        for task, scores in sorted(content.get("results", {}).items())
        for key, value in scores.items()
        if isinstance(value, float) and "stderr" not in key
    ]
    return "\n".join([f"`{signature}`", "", "| task | metric | value |", "|---|---|---|", *rows])
