"""`iberian slurm SWEEP`: write the job script of a sweep."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from lm_eval_iberian.benchmarks.languages import languages
from lm_eval_iberian.commands.habits import FirstName
from lm_eval_iberian.commands.terminal import echo
from merge_hooks.texts import one_line

# Of the current environment, what the job shall have too, if it is set: all that changes a number is among it, with
# each language's IBERIAN_IFEVAL_.
KEPT = (
    "HF_HOME", "HF_HUB_CACHE", "IBERIAN_TASKS", "IBERIAN_DATA", "IBERIAN_ROWS", "IBERIAN_REVISIONS",
    "IBERIAN_IFEVAL_RESPONSE_LANGUAGE", "IBERIAN_VERBOSE",
)  # fmt: skip
# Variables that hold paths. Relative ones would mean the same in the job's folder, but read better in full.
PATHS = ("HF_HOME", "HF_HUB_CACHE")
OPTIONS = ("time", "partition", "account", "qos", "gres", "cpus-per-task", "mem")


@click.command()
@click.argument("sweep")
@click.option(
    "--array", type=click.IntRange(1), metavar="N", help="An array of N tasks, each with a part of the points."
)
@click.option("--ray", is_flag=True, help="One job on several nodes: Ray puts an engine wherever there is room.")
@click.option("--nodes", type=click.IntRange(1), metavar="N", help="With --ray: how many nodes.")
@click.option("--workers", type=click.IntRange(1), metavar="N", help="As in `iberian sweep`: engines side by side.")
@click.option("--time", metavar="HH:MM:SS", help="sbatch's, as the next ones.")
@click.option("--partition", metavar="NAME")
@click.option("--account", metavar="NAME")
@click.option("--qos", metavar="NAME")
@click.option("--gres", metavar="gpu:N", help="GPUs of a task, or of a node with --ray.")
@click.option("--cpus-per-task", metavar="N")
@click.option("--mem", metavar="SIZE")
@click.option("--sbatch", "others", multiple=True, metavar="NAME=VALUE", help="Any other option of sbatch.")
@click.option(
    "--env", "variables", multiple=True, metavar="NAME=VALUE", help="Set in the job: IBERIAN_DATA, HF_HOME, ..."
)
@click.option(
    "--online", is_flag=True, help="Let the job reach the Hub; else HF_HUB_OFFLINE=1, see `iberian prefetch`."
)
@click.option(
    "--venv", type=click.Path(file_okay=False, path_type=Path), help="The virtual environment [default: this one]."
)
@click.option("--set", "given", multiple=True, metavar="NAME=VALUE", help="As in `iberian sweep`.")
@click.option("--limit", type=float, help="As in `iberian sweep`.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="The run folder [default: runs/NAME].")
@click.option(
    "--out-script", "--script", "--write", "file", cls=FirstName, type=click.Path(dir_okay=False, path_type=Path),
    help="The script [default: stdout].",
)  # fmt: skip
def slurm(
    sweep: str, array: int | None, ray: bool, nodes: int | None, workers: int | None, others: tuple[str, ...],
    variables: tuple[str, ...], online: bool, venv: Path | None, given: tuple[str, ...], limit: float | None,
    out: Path | None, file: Path | None, **named: str | None,
) -> None:  # fmt: skip
    """Write a Slurm job script for SWEEP: one job, an array (--array), or Ray on several nodes (--ray --nodes)."""
    from lm_eval_iberian.commands.sweep import parse_settings, run_folder, whole_limit
    from lm_eval_iberian.sweep.slurm import Script, word
    from lm_eval_iberian.sweep.spec import read_sweep
    from merge_hooks.files import slug

    if array and ray:
        raise click.UsageError("--array and --ray: one or the other.")
    if ray is not (nodes is not None):
        raise click.UsageError("--ray needs --nodes N, and --nodes needs --ray.")
    more = {} if limit is None else {"limit": whole_limit(limit)}
    read = read_sweep(sweep, parse_settings(given) | more)  # a mistake in it is found here, not in the queue
    run = run_folder(read, out)
    script = Script(
        name=slug(read.name),
        command=_command(sweep, run, given, limit, workers),
        folder=Path.cwd(),
        run=run,
        options=_options(named, others),
        environment=_environment(variables, online),
        activate=_activate(venv),
        array=array or 0,
        ray_nodes=nodes or 0,
        written_by=_written_by(sweep),
    )
    if file is None:
        echo(script.text(), nl=False)
        return
    said = f"Send it off: sbatch {word(file)}\nWhen it has ended: iberian report {word(run)}"
    file.write_text(script.text(), encoding="utf-8")
    echo(said)


def _written_by(sweep: str) -> str:
    """The command line, on one line."""
    given = sys.argv[1:] if sys.argv[1:2] == ["slurm"] else ["slurm", sweep]
    return shlex.join(["iberian", *map(one_line, given)])


def _command(
    sweep: str, run: Path, given: tuple[str, ...], limit: float | None, workers: int | None
) -> list[str]:  # fmt: skip
    from lm_eval_iberian.commands.sweep import whole_limit

    words = ["iberian", "sweep", sweep, "--out", str(run)]
    words += [word for pair in given for word in ("--set", pair)]
    words += ["--limit", str(whole_limit(limit))] if limit is not None else []
    return words + (["--workers", str(workers)] if workers else [])


def _options(named: Mapping[str, str | None], others: tuple[str, ...]) -> dict[str, str]:
    """sbatch's options. One with a line break is refused: it would be a line of the script."""
    said = {name.replace("_", "-"): value for name, value in named.items() if value is not None}
    for pair in others:
        name, _, value = pair.partition("=")
        said[name.removeprefix("--")] = value
    for name, value in said.items():
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*", name) or not value.isprintable() or '"' in value:
            raise click.UsageError(f"--{name} {value!r}: not an option that can be written on a line of #SBATCH.")
    return said


def _environment(variables: tuple[str, ...], online: bool) -> dict[str, str]:
    said = {} if online else {"HF_HUB_OFFLINE": "1"}
    for name in (*KEPT, *(f"IBERIAN_IFEVAL_{language.upper()}" for language in languages())):
        if value := os.environ.get(name):
            said[name] = str(Path(value).expanduser().absolute()) if name in PATHS else value
    for pair in variables:
        name, equals, value = pair.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise click.UsageError(f"--env {pair}: write NAME=VALUE.")
        said[name] = value
    return said


def _activate(venv: Path | None) -> Path | None:
    """The activation script of a virtual environment. Raises UsageError if there is none."""
    if venv is None and sys.prefix == sys.base_prefix:
        return None
    script: Any = (venv or Path(sys.prefix)).expanduser().absolute() / "bin" / "activate"
    if not script.is_file() and venv is not None:
        raise click.UsageError(f"--venv {venv}: no bin/activate in it.")
    return script if script.is_file() else None
