"""`iberian fisher`: a Fisher map of a model on texts, for `merge_method: fisher`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from lm_eval_iberian.commands.bars import bars
from lm_eval_iberian.commands.habits import out_option
from lm_eval_iberian.commands.terminal import echo


@click.command()
@click.argument("model")
@click.option(
    "--data", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True,
    help="Texts: .jsonl with a `text` in each line, or plain text, one a line.",
)  # fmt: skip
@out_option("--to", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The map to write.")
@click.option("--max-length", type=click.IntRange(min=2), default=1024, show_default=True, help="Tokens of a text.")
@click.option("--sampled", is_flag=True, help="Targets drawn from the model (true Fisher), not the texts' own tokens.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of --sampled.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, ...; auto: a GPU where there is one.")
@click.option(
    "--save-every", type=click.IntRange(min=1), default=200, show_default=True,
    help="Texts between two saved states. A state is as large as the map, 4 bytes for each parameter.",
)  # fmt: skip
@click.option("--trust-remote-code", is_flag=True, help="Let the model bring Python code of its own.")
def fisher(
    model: str, data: Path, out: Path, max_length: int, sampled: bool, seed: int, device: str, save_every: int,
    trust_remote_code: bool,
) -> None:  # fmt: skip
    """Make the diagonal Fisher map of MODEL (a folder, Hub id, model@revision or model+adapter) on texts.

    The mean over texts of the squared gradient of the text's log-likelihood, in float32. The same command goes on
    where it was stopped.
    """
    from merge_hooks.files import try_writing
    from merge_hooks.tools.fisher import Settings, make_map

    try_writing(out.parent)  # a map takes hours

    settings = Settings(max_length, "sampled" if sampled else "data", seed, device, trust_remote_code)
    with bars() as show:
        made = make_map(model, data, out, settings, partial(show, f"texts through {model}"), save_every)
    facts = made.facts
    echo(f"{out}: {len(made.entries)} tensors from {facts.count} texts (targets: {facts.settings['targets']}).")
    if facts.truncated:
        echo(f"- {facts.truncated} texts were longer than {max_length} tokens; their first {max_length} counted.")
    if facts.position > facts.count:
        echo(f"- {facts.position - facts.count} texts had no token to predict and did not count.")
