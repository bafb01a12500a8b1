"""Pictures of `iberian vectors`: the matrix of all weights, one row a pair over the layers, one matrix a kind of module.

Drawn without pyplot, so no window system is touched; the same numbers give the same bytes of SVG.
"""

from __future__ import annotations

import itertools
import math
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merge_hooks.errors import EngineError

if TYPE_CHECKING:
    import numpy as np

    from merge_hooks.tools.vectors.compare import Similarity

COLOURS = "RdBu_r"
NOWHERE = "#dddddd"  # cosines that do not exist, and the diagonal, which says nothing


def require_matplotlib() -> None:
    """Raises EngineError with the line to type where matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise EngineError(
            f"pictures need matplotlib ({error}). Install it: pip install 'lm_eval_iberian[plots]', or leave out --out-plot."
        ) from error


def draw(similarity: Similarity, place: Path) -> list[Path]:
    """Write PLACE.svg and .png, PLACE_layers and PLACE_kinds (where there are layers and kinds). Returns the files."""
    require_matplotlib()
    figures = {"": _whole(similarity)}
    if similarity.layers:
        figures["_layers"] = _layers(similarity)
    if len(similarity.kinds) > 1:
        figures["_kinds"] = _kinds(similarity)
    return [
        _save(figure, place.with_name(f"{place.name}{part}.{kind}"))
        for part, figure in figures.items()
        for kind in ("svg", "png")
    ]


def _save(figure: Any, path: Path) -> Path:
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "iberian", "svg.fonttype": "none"}):
        date = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(path, dpi=200, bbox_inches="tight", metadata=date)
    return path


def _whole(similarity: Similarity) -> Any:
    from matplotlib.figure import Figure

    size = 1.6 + 0.7 * len(similarity.names)
    figure = Figure(figsize=(size + 0.8, size))
    axes = figure.subplots()
    values = _off_diagonal(similarity.whole)
    image = _matrix(axes, values, similarity.names, _limit([values]))
    figure.colorbar(image, ax=axes, label="cosine", shrink=0.8)
    axes.set_title(f"Cosines over {len(similarity.products)} tensors", fontsize=9)
    if similarity.notes:  # a picture travels without the text around it
        figure.supxlabel(
            "\n".join(textwrap.fill(note, 12 * int(size)) for note in similarity.notes), fontsize=6, y=-0.15
        )
    return figure


def _kinds(similarity: Similarity) -> Any:
    from matplotlib.figure import Figure

    matrices = {kind: _off_diagonal(product) for kind, product in similarity.kinds.items()}
    limit, columns = _limit(list(matrices.values())), min(4, len(matrices))
    rows, size = math.ceil(len(matrices) / columns), 1.2 + 0.45 * len(similarity.names)
    figure = Figure(figsize=(columns * size, rows * size), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for place, (kind, values) in zip(axes, matrices.items(), strict=False):
        image = _matrix(place, values, similarity.names, limit)
        place.set_title(kind, fontsize=8)
    for place in list(axes)[len(matrices) :]:
        place.set_axis_off()
    figure.colorbar(image, ax=figure.axes, label="cosine", shrink=0.6)
    return figure


def _layers(similarity: Similarity) -> Any:
    """A row for each pair of vectors, a column for each layer."""
    import numpy as np
    from matplotlib.figure import Figure

    from merge_hooks.tools.vectors.compare import cosines

    pairs = list(itertools.combinations(range(len(similarity.names)), 2))
    matrices = [cosines(product) for product in similarity.layers.values()]
    values = np.array([[matrix[pair] for matrix in matrices] for pair in pairs])
    limit = _limit([values])
    figure = Figure(figsize=(3 + 0.22 * len(matrices), 1.4 + 0.3 * len(pairs)))
    axes = figure.subplots()
    image = axes.imshow(values, cmap=_colours(), vmin=-limit, vmax=limit, aspect="auto")
    axes.set_yticks(range(len(pairs)), [f"{similarity.names[a]} · {similarity.names[b]}" for a, b in pairs])
    step = math.ceil(len(matrices) / 16)
    axes.set_xticks(range(0, len(matrices), step), [str(layer) for layer in similarity.layers][::step])
    axes.set_xlabel("layer")
    figure.colorbar(image, ax=axes, label="cosine")
    return figure


def _matrix(axes: Any, values: np.ndarray, names: tuple[str, ...], limit: float) -> Any:
    image = axes.imshow(values, cmap=_colours(), vmin=-limit, vmax=limit)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    for (row, column), value in zip(itertools.product(range(len(names)), repeat=2), values.flat, strict=True):
        text = "" if row == column else "–" if math.isnan(value) else f"{round(value, 2) + 0.0:.2f}"  # no -0.00
        colour = "white" if abs(value) > 0.7 * limit else "black"
        axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
    return image


def _off_diagonal(products: np.ndarray) -> np.ndarray:
    """Cosines with nothing on the diagonal, whose ones would drown the others."""
    import numpy as np

    from merge_hooks.tools.vectors.compare import cosines

    found = cosines(products)
    np.fill_diagonal(found, np.nan)
    return found


def _limit(matrices: list[np.ndarray]) -> float:
    """The end of a colour scale around 0: the largest cosine, rounded up to a tenth."""
    import numpy as np

    largest = max((float(np.nanmax(np.abs(one))) for one in matrices if not np.isnan(one).all()), default=1.0)
    return max(0.1, math.ceil(round(10 * largest, 6)) / 10)


def _colours() -> Any:
    from matplotlib import colormaps

    return colormaps[COLOURS].with_extremes(bad=NOWHERE)
