"""`iberian toy`: train the toy family, for the demo, for tests, and to see what a merge does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from lm_eval_iberian.commands.bars import bars
from lm_eval_iberian.commands.habits import old_place, out_option, required_out
from lm_eval_iberian.commands.terminal import echo
from merge_hooks.files import try_writing


@click.command()
@old_place("folder")
@out_option(type=click.Path(file_okay=False, path_type=Path), help="The folder to write.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the weights and of what is read when.")
@click.option("--adapters", is_flag=True, help="LoRA adapters of the instruct model too, one a language.")
def toy(folder: str | None, out: Path | None, seed: int, adapters: bool) -> None:
    """Train five tiny Llamas into a folder (--out): base, instruct, basque, galician, catalan.

    About three minutes on two cores; with --adapters a minute more. The same command again does nothing, and finishes
    what was interrupted. Recipes that merge them lie beside them: merge-basque.yml and so on.
    """
    from lm_eval_iberian.toy.adapters import build_adapters
    from lm_eval_iberian.toy.recipes import write_recipes
    from lm_eval_iberian.toy.train import build_family

    place = Path(required_out(out, folder))
    try_writing(place)  # training takes minutes
    paths = _with_bars(lambda progress: build_family(place, seed, progress=progress))
    trained = _with_bars(lambda progress: build_adapters(place, seed, progress=progress)) if adapters else {}
    for path in [*paths.values(), *trained.values(), *write_recipes(place)]:
        echo(str(path))


def _with_bars(build: Callable[[Callable[..., None]], dict[str, Path]]) -> dict[str, Path]:
    with bars(width=9) as show:
        return build(lambda name, done, total, loss: show(name, done, total, f"loss {loss:.2f}"))
