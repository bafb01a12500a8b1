"""`iberian sweep SWEEP`: many merges, one engine."""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from lm_eval_iberian.commands.habits import json_option
from lm_eval_iberian.commands.terminal import echo, make_console
from merge_hooks.machine.stopping import EXIT_CODE, Terminated


@click.command()
@click.argument("sweep")
@click.option("--set", "given", multiple=True, metavar="NAME=VALUE",
              help="Set a parameter or an axis (a,b,c for a list; axis.label=value for one value).")  # fmt: skip
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="The run folder [default: runs/NAME].")
@click.option("--dry-run", is_flag=True, help="Print the plan: merges, requests, memory, time.")
@click.option("--workers", type=click.IntRange(1),
              help="Engines at work side by side [default: 1; with --ray: as many as the cluster takes].")  # fmt: skip
@click.option("--ray", "ray_address", metavar="ADDRESS", help="Put engines on a Ray cluster (auto, local, HOST:PORT).")
@click.option("--pool", metavar="NAME", help="Where engines live: here, processes, ray [default: as the above say].")
@click.option("--shard", metavar="I/N", help="Only the I-th of N parts, from 1: for job arrays.")
@click.option("--limit", type=float, help="Only so many documents of each task: to try things out.")
@click.option("--log-samples", is_flag=True, help="Write every prompt and answer too, as lm_eval's --log_samples does.")
@json_option("Print the tables at the end as JSON; with --dry-run, the plan.")
def sweep(
    sweep: str, given: tuple[str, ...], out: Path | None, dry_run: bool, workers: int | None,
    ray_address: str | None, pool: str | None, shard: str | None, limit: float | None, log_samples: bool, as_json: bool,
) -> None:  # fmt: skip
    """Measure every point of SWEEP: a sweep.yml, or preset:merge_and_conquer/figure1, table3, table5, table6.

    Killed at any moment, the same command goes on. At the end there are tables and a report.html in the run folder.
    """

    from lm_eval_iberian.noise import wrapped
    from lm_eval_iberian.sweep.spec import read_sweep

    quiet()
    settings = parse_settings(given)
    if limit is not None:
        settings["limit"] = whole_limit(limit)
    if log_samples:
        settings["log_samples"] = True
    read = read_sweep(sweep, settings)
    folder = run_folder(read, out)

    from lm_eval_iberian.sweep.plan import make_plan
    from lm_eval_iberian.sweep.pools.choose import choose_pool

    console = make_console(stderr=True)
    with console.status("Opening the sources and loading the tasks ..."):
        plan = make_plan(read)
    if dry_run:
        _show(plan, folder, as_json)
        return
    make_pool = partial(choose_pool, workers=workers, ray_address=ray_address, pool=pool)
    failures = _run(plan, folder, make_pool, _shard(shard), console)
    if shard is None:
        _report(folder, console, as_json)
    if failures:
        lines = by_reason(list(failures.values()), [point.name for point in plan.points])
        said = "\nFailed:\n" + "\n".join(f"- {line}" for line in lines)
        echo(said if console.is_terminal else wrapped(said), err=True)
        echo("The same command tries these again and nothing else.", err=True)
        sys.exit(1)


def by_reason(failures: Sequence[str], points: Sequence[str]) -> list[str]:
    """What failed for one reason at several points as one line: "reason (a, b)" for "a: reason" and "b: reason"."""
    found: dict[str, list[str]] = {}
    for line in failures:
        named = [name for name in points if line.startswith(f"{name}: ")]
        point = max(named, key=len, default="")
        found.setdefault(line.removeprefix(f"{point}: ") if point else line, []).append(point)
    return [f"{reason} ({', '.join(names)})" if len(names) > 1 else ": ".join(filter(None, [names[0], reason]))
            for reason, names in found.items()]  # fmt: skip


def run_folder(read: Any, out: Path | None) -> Path:
    """Where a sweep goes: what was said, what its file says, or runs/NAME."""
    return out or Path(read.data.get("output_path") or Path("runs") / read.name.replace("/", "-"))


def whole_limit(limit: float) -> int | float:
    """A number of documents, or a share of them, as a sweep.yml writes it."""
    return int(limit) if math.isfinite(limit) and limit >= 1 else limit


def parse_settings(given: tuple[str, ...]) -> dict[str, Any]:
    """`--set` as a mapping; values are YAML, `a,b,c` is a list. Raises UsageError without an equals sign."""
    from merge_hooks.yaml_files import read_yaml

    def read(text: str, pair: str) -> Any:
        return read_yaml(text, f"--set {pair}", click.UsageError, "value")

    settings: dict[str, Any] = {}
    for pair in given:
        name, equals, text = pair.partition("=")
        if not equals or not name.strip():
            raise click.UsageError(f"--set {pair}: write NAME=VALUE.")
        parts = [read(part, pair) for part in text.split(",")] if text[:1] not in "[{" else read(text, pair)
        settings[name.strip()] = parts[0] if isinstance(parts, list) and len(parts) == 1 and text[:1] != "[" else parts
    return settings


def _show(plan: Any, folder: Path, as_json: bool) -> None:
    from lm_eval_iberian.runs.store import FILE, Store
    from lm_eval_iberian.sweep.outlook import plan_data, show_plan

    store = Store(folder / FILE, writes=False) if (folder / FILE).is_file() else None
    if as_json:
        echo(json.dumps(plan_data(plan, store), indent=1, ensure_ascii=False))
        return
    show_plan(plan, store, make_console())


def _run(plan: Any, folder: Path, make_pool: Any, shard: tuple[int, int], console: Any) -> dict[str, str]:
    from lm_eval_iberian.sweep.driver import run_sweep
    from lm_eval_iberian.sweep.progress import Progress

    try:
        return run_sweep(plan, folder, make_pool, Progress(console), shard)
    except KeyboardInterrupt as stop:
        console.print(f"\nStopped. What was answered is kept in {folder}; the same command goes on.", markup=False)
        sys.exit(EXIT_CODE if isinstance(stop, Terminated) else 130)


def _report(folder: Path, console: Any, as_json: bool) -> None:
    """The tables to stdout and into the folder, and report.html."""
    from lm_eval_iberian.compare.columns import Scores
    from lm_eval_iberian.compare.tables import sweep_report
    from lm_eval_iberian.runs.run import read_sweep_run
    from lm_eval_iberian.scores.formats import write

    run = read_sweep_run(folder)
    if not any(point.results for point in run.points):
        return
    made = sweep_report(Scores(run), None, False)
    text = write(made)
    (folder / "tables.md").write_text(text, encoding="utf-8")
    echo(write(made, "json") if as_json else text, nl=False)
    if find_spec("matplotlib") is None:
        console.print(
            "No report.html: `pip install 'lm_eval_iberian[plots]'`, then `iberian report RUN`.", markup=False
        )
        return
    from lm_eval_iberian.pictures.write import write_files

    console.print(f"\n{write_files(run)}: open it in a browser.", markup=False, soft_wrap=True)


def _shard(text: str | None) -> tuple[int, int]:
    if text is None:
        return 0, 1
    number, slash, of = text.partition("/")
    if not (slash and number.isdigit() and of.isdigit() and 1 <= int(number) <= int(of)):
        raise click.UsageError(f"--shard {text}: write I/N, from 1/N to N/N.")
    return int(number) - 1, int(of)


def quiet() -> None:
    """lm_eval, transformers and vLLM say much that a sweep's log need not hold; errors still come."""
    import os

    from lm_eval_iberian.noise import is_verbose, quieten, wrap_logs

    if is_verbose():
        logging.basicConfig(level=logging.INFO)
        return wrap_logs()
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    quieten()
    logging.basicConfig(level=logging.WARNING)
    wrap_logs()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    # It calls every metric of a task's own an error.
    logging.getLogger("lm_eval.api.registry").setLevel(logging.CRITICAL)
    return None
