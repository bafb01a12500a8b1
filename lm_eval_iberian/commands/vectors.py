"""`iberian vectors`: cosine similarity between language vectors, as a table, JSON and pictures."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import numpy as np

    from merge_hooks.tools.vectors.compare import Similarity
    from merge_hooks.tools.vectors.vector import Vector


@click.command()
@click.argument("written", metavar="RECIPE_OR_MODEL...", nargs=-1, required=True)
@click.option("--base", help="Folder or Hub id of the model that the models were made from.")
@click.option(
    "--to", type=click.Path(dir_okay=False, path_type=Path),
    help="Write everything to this JSON file: cosines and lengths in all, by layer and by kind of module.",
)  # fmt: skip
@click.option(
    "--plot", type=click.Path(dir_okay=False, path_type=Path), metavar="NAME",
    help="Draw NAME.svg and .png (the matrix), NAME_layers and NAME_kinds. Needs the extra `plots`.",
)  # fmt: skip
@click.option("--trust-remote-code", is_flag=True, help="Let the models bring Python code of their own.")
def vectors(written: tuple[str, ...], base: str | None, to: Path | None, plot: Path | None, trust_remote_code: bool) -> None:  # fmt: skip
    """Compare language vectors: the cosines between what fine-tunes add to their base.

    RECIPE_OR_MODEL is a merge recipe (every model in it that is not its base gives a vector), a model made from
    --base, BASE+ADAPTER, or the folder of a LoRA adapter, whose base is not needed. Weights are read one tensor at a
    time; adapters are compared by their factors.
    """
    from merge_hooks.tools.vectors.compare import compare
    from merge_hooks.tools.vectors.inputs import open_vectors, stamp

    if plot is not None:
        from lm_eval_iberian.pictures.vectors import require_matplotlib

        require_matplotlib()  # before minutes of reading, not after
    found = open_vectors(written, base, trust_remote_code)
    with _progress() as bar:
        task = bar.add_task("comparing", total=None)
        similarity = compare(found, lambda done, total: bar.update(task, completed=done, total=total))
    _print(similarity)
    if to is not None:
        content = json.dumps(as_json(found, similarity, [stamp(vector) for vector in found]), indent=1)
        to.write_text(content + "\n", encoding="utf-8")
        click.echo(f"Written: {to}")
    if plot is not None:
        from lm_eval_iberian.pictures.vectors import draw

        click.echo(f"Drawn: {', '.join(str(path) for path in draw(similarity, plot))}")


def as_json(found: list[Vector], similarity: Similarity, stamps: list[str]) -> dict[str, Any]:
    """All numbers, with null where a cosine does not exist because a vector did not move.

    Args:
        stamps: what each vector was made from (`merge_hooks.tools.vectors.inputs.stamp`).
    """
    parts = {
        "all": {"": similarity.whole},
        "layers": {str(layer): product for layer, product in similarity.layers.items()},
        "kinds": similarity.kinds,
    }
    numbers = {
        part: {key: {"cosine": _cosine_rows(product), "length": _lengths(product)} for key, product in groups.items()}
        for part, groups in parts.items()
    }
    sources = [
        {"name": vector.name, "source": vector.source.name, "base": vector.base.name if vector.base else None, "stamp": print_}
        for vector, print_ in zip(found, stamps, strict=True)
    ]  # fmt: skip
    return {
        "vectors": sources,
        "tensors": len(similarity.products),
        "unmoved": similarity.unmoved,
        "notes": list(similarity.notes),
        **numbers["all"][""],
        "layers": numbers["layers"],
        "kinds": numbers["kinds"],
    }


def _cosine_rows(product: np.ndarray) -> list[list[float | None]]:
    from merge_hooks.tools.vectors.compare import cosines

    return [[None if math.isnan(value) else value for value in row] for row in cosines(product).tolist()]


def _lengths(product: np.ndarray) -> list[float]:
    return [math.sqrt(square) for square in product.diagonal().tolist()]


def _progress() -> Any:
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (*Progress.get_default_columns()[:-1], MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))


def _print(similarity: Similarity) -> None:
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table

    from merge_hooks.tools.vectors.compare import cosines

    numbers = [str(number) for number in range(1, len(similarity.names) + 1)]
    table = Table("", *numbers, "length", title=f"Cosines over {len(similarity.products)} tensors")
    rows = cosines(similarity.whole).tolist()
    for number, name, row, length in zip(numbers, similarity.names, rows, _lengths(similarity.whole), strict=True):
        shown = ("–" if math.isnan(value) else f"{value:.4f}" for value in row)
        table.add_row(f"{number} {name}", *shown, f"{length:.4g}")
    # Never so narrow that a figure is cut.
    console = Console()
    wanted = Measurement.get(console, console.options.update(max_width=100_000), table)
    console.width = max(console.width, wanted.maximum)
    console.print(table)
    for name in similarity.unmoved:
        click.echo(f"- {name} did not move from its base: it has no direction, so no cosines.")
    for note in similarity.notes:
        click.echo(f"- {note}")
