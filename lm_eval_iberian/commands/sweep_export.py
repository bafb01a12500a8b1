"""`iberian sweep-export RUN`: the store of a sweep as JSONL or parquet, for other tools."""

from __future__ import annotations

import json
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from lm_eval_iberian.commands.habits import out_option
from lm_eval_iberian.commands.terminal import echo
from merge_hooks.texts import json_text

# Name -> the function that writes rows to a path, and says how many. A format is such a function, and one line here.
FORMATS = {
    "jsonl": "lm_eval_iberian.commands.sweep_export:write_jsonl",
    "parquet": "lm_eval_iberian.commands.sweep_export:write_parquet",
}


@click.command("sweep-export")
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--format", "form", type=click.Choice(FORMATS), default="jsonl", show_default=True)
@out_option("--to", type=click.Path(file_okay=False, path_type=Path), help="A folder [default: RUN/export].")
def export(run: Path, form: str, out: Path | None) -> None:
    """Write scores (a row a point, task, metric and run) and documents (a row a document of these) of RUN."""
    from lm_eval_iberian.runs.run import read_sweep_run

    found = read_sweep_run(run)
    folder = out or run / "export"
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("scores", scores(found)), ("documents", documents(found))):
        path = folder / f"{name}.{form}"
        count = pkgutil.resolve_name(FORMATS[form])(rows, path)
        echo(f"{path}: {count} rows")


def scores(run: Any) -> Iterator[dict[str, Any]]:
    """Every number that lm_eval gave."""
    for point in run.points:
        for one, results in zip(point.finished, point.results, strict=True):
            for task, found in results["results"].items():
                for key, value in found.items():
                    if isinstance(value, (int, float)) and "," in key:
                        metric, _, filter_name = key.partition(",")
                        yield {
                            **_of(point, one),
                            "task": task,
                            "metric": metric,
                            "filter": filter_name,
                            "value": float(value),
                        }


def documents(run: Any) -> Iterator[dict[str, Any]]:
    """Every document's verdict and answer. Metrics differ from task to task."""
    for point in run.points:
        for one in point.finished:
            for task, document, metrics, answer in one.store.documents(one.key):
                yield {**_of(point, one), "task": task, "document": document, "metrics": metrics, "answer": answer}


def _of(point: Any, one: Any) -> dict[str, Any]:
    labels = dict(point.labels)
    return {"point": point.name, "role": point.role, "labels": labels, "signature": point.signature, "seed": one.seed}


def write_jsonl(rows: Iterator[dict[str, Any]], path: Path) -> int:
    """Write a JSON object a row. Returns how many."""
    count = 0
    with path.open("w", encoding="utf-8") as stream:
        for count, row in enumerate(rows, 1):  # noqa: B007
            stream.write(_strict(row) + "\n")
    return count


def _strict(row: dict[str, Any]) -> str:
    """A row as JSON that every reader takes: what is no finite number is null."""
    try:
        return json_text(row, allow_nan=False)
    except ValueError:
        return json_text(json.loads(json.dumps(row), parse_constant=lambda _: None))


def write_parquet(rows: Iterator[dict[str, Any]], path: Path) -> int:
    """Write one parquet file. Returns how many rows.

    Labels and metrics are JSON in text: a column has one type, and sweeps differ in axes, tasks in metrics.
    """
    import pyarrow
    from pyarrow import parquet

    flat = [
        {
            name: json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value
            for name, value in row.items()
        }
        for row in rows
    ]
    table = pyarrow.Table.from_pylist(flat)
    parquet.write_table(table, path)
    return int(table.num_rows)
