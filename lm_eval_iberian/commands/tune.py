"""`iberian tune SPACE`: search for the best recipe, one engine for all trials."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml

from lm_eval_iberian.commands.habits import json_option
from lm_eval_iberian.commands.terminal import echo, make_console, note
from merge_hooks.machine.stopping import EXIT_CODE, Terminated

if TYPE_CHECKING:
    from lm_eval_iberian.tune.space import Space

# Of fewer complete trials Optuna's importances say little.
IMPORTANCE_TRIALS = 10


@click.command()
@click.argument("space", required=False)
@click.option("--from", "evolve", metavar="FILE", help="Instead of SPACE: a configuration of mergekit-evolve.")
@click.option("--set", "given", multiple=True, metavar="NAME=VALUE", help="Set a parameter, or a key such as sampler.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="The run folder [default: runs/NAME].")
@click.option("--trials", type=click.IntRange(1), help="How many trials in all, those of earlier runs among them.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Engines on this machine.")
@click.option("--dry-run", is_flag=True, help="Print what would be searched, as a SPACE.yml.")
@json_option("Print the ranking as JSON.")
def tune(
    space: str | None, evolve: str | None, given: tuple[str, ...], out: Path | None, trials: int | None, workers: int,
    dry_run: bool, as_json: bool,
) -> None:  # fmt: skip
    """Search the axes of SPACE, a sweep.yml with `search`, `objective` and `trials`, with Optuna.

    Killed at any moment, the same command goes on; with more --trials it goes further. `iberian report` and
    `iberian best` read its run folder.
    """
    if (space is None) == (evolve is None):
        raise click.UsageError("Give SPACE, or --from with a configuration of mergekit-evolve.")
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise click.ClickException("`iberian tune` needs Optuna: pip install 'lm_eval_iberian[tune]'") from None

    from lm_eval_iberian.commands.sweep import parse_settings, quiet, run_folder
    from lm_eval_iberian.tune.space import read_space

    quiet()
    settings = parse_settings(given) | ({} if trials is None else {"trials": trials})
    read = read_space(space, settings) if space is not None else _converted(str(evolve), settings)
    if dry_run:
        echo(yaml.safe_dump(read.written, sort_keys=False, allow_unicode=True, width=120), nl=False)
        return
    folder = run_folder(read, out)
    console = make_console(stderr=True)
    study = _search(read, folder, workers, console)
    echo(_ranking(read, folder) if as_json else _result(read, folder, study))


def _converted(evolve: str, settings: dict[str, Any]) -> Space:
    """A configuration of mergekit-evolve as a search. What is otherwise is said on stderr."""
    from lm_eval_iberian.tune.evolve import read_evolve
    from lm_eval_iberian.tune.space import make_space

    found = read_evolve(evolve)
    for line in found.notes:
        note(f"{evolve}: {line}")
    return make_space(found.data, found.name, found.folder, settings)


def _search(space: Space, folder: Path, workers: int, console: Any) -> Any:
    from lm_eval_iberian.sweep.pools.choose import choose_pool
    from lm_eval_iberian.sweep.progress import Progress
    from lm_eval_iberian.tune.tune import Tuner

    try:
        return Tuner(space, folder, Progress(console), workers).run(partial(choose_pool, workers=workers))
    except KeyboardInterrupt as stop:
        console.print(f"\nStopped. What was answered is kept in {folder}; the same command goes on.", markup=False)
        sys.exit(EXIT_CODE if isinstance(stop, Terminated) else 130)


def _ranking(space: Space, folder: Path) -> str:
    """The best trials as JSON, as `iberian best --json` prints them."""
    from lm_eval_iberian.commands.best import best_json
    from lm_eval_iberian.compare.best import find_best
    from lm_eval_iberian.runs.run import read_sweep_run

    return best_json(find_best(read_sweep_run(folder), space.objectives))


def _result(space: Space, folder: Path, study: Any) -> str:
    """The best trials, their recipe, and what mattered."""
    from lm_eval_iberian.commands.best import best_text
    from lm_eval_iberian.compare.best import find_best
    from lm_eval_iberian.runs.run import read_sweep_run

    found = find_best(read_sweep_run(folder), space.objectives)
    states = [trial.state.name for trial in study.get_trials(deepcopy=False)]
    said = {"COMPLETE": "complete", "PRUNED": "stopped early", "FAIL": "failed or killed"}
    counts = ", ".join(f"{states.count(state)} {words}" for state, words in said.items() if state in states)
    lines = [f"Trials: {counts}.", "", best_text(found, pareto=len(space.objectives) > 1)]
    return "\n".join(lines + importance(study, states.count("COMPLETE")))


def importance(study: Any, complete: int) -> list[str]:
    """A line with Optuna's importances of the axes; none if they would say little."""
    import optuna

    if len(study.directions) > 1 or complete < IMPORTANCE_TRIALS or len(study.best_params) < 2:
        return []
    try:
        found = optuna.importance.get_param_importances(study)
    except (RuntimeError, ValueError, ImportError) as error:
        return ["", f"What mattered is not known: {error}"]
    shown = ", ".join(f"{axis} {share:.0%}" for axis, share in found.items())
    return ["", f"What mattered (Optuna's importances over {complete} trials): {shown}."]
