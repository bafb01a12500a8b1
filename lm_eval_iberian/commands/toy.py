"""`iberian toy`: train the toy family, for the demo, for tests, and to see what a merge does."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--seed", type=int, default=0, show_default=True, help="Of the weights and of what is read when.")
def toy(folder: Path, seed: int) -> None:
    """Train five tiny Llamas in FOLDER: base, instruct, basque, galician, catalan.

    About three minutes on two cores. The same command again does nothing, and finishes what was interrupted. Recipes
    that merge them lie beside them: FOLDER/merge-basque.yml and so on.
    """
    from lm_eval_iberian.toy.recipes import write_recipes
    from lm_eval_iberian.toy.train import build_family

    paths = _with_bars(lambda progress: build_family(folder, seed, progress=progress))
    for path in [*paths.values(), *write_recipes(folder)]:
        click.echo(str(path))


def _with_bars(build: object) -> dict[str, Path]:
    """Progress bars on a terminal, silence elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description:9}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
               TextColumn("loss {task.fields[loss]:.2f}"))  # fmt: skip
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        tasks: dict[str, object] = {}

        def progress(name: str, done: int, total: int, loss: float) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total, loss=loss)
            bars.update(tasks[name], completed=done, loss=loss)  # type: ignore[arg-type]

        return build(progress)  # type: ignore[operator]
