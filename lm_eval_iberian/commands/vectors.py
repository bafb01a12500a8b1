"""`iberian vectors`: cosine similarity between language vectors, as a table, JSON and pictures."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lm_eval_iberian.commands.bars import bars
from lm_eval_iberian.commands.habits import json_option, other_out_option, out_option
from lm_eval_iberian.commands.terminal import echo, make_console, note

if TYPE_CHECKING:
    import numpy as np

    from merge_hooks.tools.vectors.compare import Similarity
    from merge_hooks.tools.vectors.vector import Vector


@click.command()
@click.argument("written", metavar="RECIPE_OR_MODEL...", nargs=-1, required=True)
@click.option("--base", help="Folder or Hub id of the model that the models were made from.")
@out_option(
    "--to", type=click.Path(dir_okay=False, path_type=Path),
    help="Write everything to this JSON file: cosines and lengths in all, by layer and by kind of module.",
)  # fmt: skip
@json_option("Print everything as JSON.")
@other_out_option(
    "plot", "--plot", "plot", type=click.Path(dir_okay=False, path_type=Path), metavar="NAME",
    help="Draw NAME.svg and .png (the matrix), NAME_layers and NAME_kinds. Needs the extra `plots`.",
)  # fmt: skip
@click.option("--trust-remote-code", is_flag=True, help="Let the models bring Python code of their own.")
def vectors(written: tuple[str, ...], base: str | None, out: Path | None, as_json: bool, plot: Path | None, trust_remote_code: bool) -> None:  # fmt: skip
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
    with bars() as show:
        similarity = compare(found, partial(show, "comparing"))
    if as_json or out is not None:
        content = json.dumps(described(found, similarity, [stamp(vector) for vector in found]), indent=1)
    if as_json:
        echo(content)
    else:
        _print(similarity)
    if out is not None:
        out.write_text(content + "\n", encoding="utf-8")
        note(f"Written: {out}")
    if plot is not None:
        from lm_eval_iberian.pictures.vectors import draw

        note(f"Drawn: {', '.join(str(path) for path in draw(similarity, plot))}")


def described(found: list[Vector], similarity: Similarity, stamps: list[str]) -> dict[str, Any]:
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


def _print(similarity: Similarity) -> None:
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
    console = make_console()
    wanted = Measurement.get(console, console.options.update(max_width=100_000), table)
    console.width = max(console.width, wanted.maximum)
    console.print(table)
    for name in similarity.unmoved:
        echo(f"- {name} did not move from its base: it has no direction, so no cosines.")
    for said in similarity.notes:
        echo(f"- {said}")
