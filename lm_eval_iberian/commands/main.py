"""The `iberian` command: one group, each command in a module of its own, imported only when it is used.

    iberian recipe check merge.yml
    iberian recipe show merge.yml

A new command is one line in COMMANDS: its name, "module:attribute", and one sentence for `iberian --help`; and its name
in GROUPS.
"""

from __future__ import annotations

import pkgutil
import sys
from typing import Any

import click

from lm_eval_iberian import __version__
from lm_eval_iberian.commands.habits import with_habits
from lm_eval_iberian.commands.terminal import echo, interrupted, no_tracebacks, safe_errors
from merge_hooks.machine.hushed import hidden_bars, hush_imports
from merge_hooks.machine.stopping import unwind_on_sigterm

COMMANDS = {
    "init": ("lm_eval_iberian.commands.init:init", "Write a recipe and a sweep to start from."),
    "recipe": ("lm_eval_iberian.commands.recipe:recipe", "Check, show, verify or export a merge recipe."),
    "fisher": ("lm_eval_iberian.commands.fisher:fisher", "Make a model's Fisher map, for `merge_method: fisher`."),
    "sweep": ("lm_eval_iberian.commands.sweep:sweep", "Measure many merges over one engine; killed, it goes on."),
    "tune": ("lm_eval_iberian.commands.tune:tune", "Search for the best recipe with Optuna; killed, it goes on."),
    "best": (
        "lm_eval_iberian.commands.best:best",
        "Name a sweep's best recipe, by how much it leads, and export it.",
    ),
    "slurm": ("lm_eval_iberian.commands.slurm:slurm", "Write a Slurm job script for a sweep."),
    "report": (
        "lm_eval_iberian.commands.report:report",
        "Tables from lm_eval's results files; a sweep's page and pictures.",
    ),
    "sweep-export": (
        "lm_eval_iberian.commands.sweep_export:export",
        "A sweep's scores and documents as JSONL or parquet.",
    ),
    "rescue": ("lm_eval_iberian.commands.rescue:rescue", "Save what can be read of a run's damaged store."),
    "vectors": (
        "lm_eval_iberian.commands.vectors:vectors",
        "Compare language vectors: cosines of what fine-tunes add to their base.",
    ),
    "toy": ("lm_eval_iberian.commands.toy:toy", "Train tiny models on which merging visibly teaches a language."),
    "prefetch": (
        "lm_eval_iberian.commands.prefetch:prefetch",
        "Fetch documents and models once, for nodes with no network.",
    ),
    "models": (
        "lm_eval_iberian.commands.models:models",
        "Say which models can be merged and scored, and what a given one is.",
    ),
    "doctor": (
        "lm_eval_iberian.commands.doctor:doctor",
        "Say what each task needs, what is missing, and what mends it.",
    ),
    "ifeval": ("ifeval_multi.cli:ifeval", "Score, lint and extend IFEval, without lm_eval."),
}

# How `iberian --help` groups them; what is in no group stands last.
GROUPS = {
    "Before a merge": ("init", "toy", "prefetch", "doctor", "models", "recipe", "vectors", "fisher"),
    "Many merges": ("sweep", "tune", "slurm"),
    "Results": ("report", "best", "sweep-export", "rescue"),
    "Instruction following": ("ifeval",),
}


class LazyGroup(click.Group):
    """A group that knows its commands by name, and imports one when it is called."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        found: click.Command = pkgutil.resolve_name(COMMANDS[name][0])
        return with_habits(found)

    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        with safe_errors():
            return super().make_context(*arguments, **options)

    def invoke(self, context: click.Context) -> Any:
        hush_imports()
        with hidden_bars(), interrupted(), safe_errors(), no_tracebacks():
            return super().invoke(context)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Written from COMMANDS, so that `iberian --help` imports nothing."""
        grouped = {name for names in GROUPS.values() for name in names}
        groups = {**GROUPS, "More": tuple(name for name in COMMANDS if name not in grouped)}
        width = max(map(len, COMMANDS))
        for title, names in groups.items():
            if rows := [(f"{name:<{width}}", COMMANDS[name][1]) for name in names if name in COMMANDS]:
                with formatter.section(title):
                    formatter.write_dl(rows)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="iberian")
def cli() -> None:
    """Score language-model merges on Basque, Galician, Catalan, Spanish and English.

    The scores themselves come from lm_eval: `lm_eval --model merged --model_args recipe=merge.yml --tasks
    iberian_suite`. These commands are for what comes before and after.
    """


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line. Errors meant for people are printed as one message, and the exit code is 1."""
    unwind_on_sigterm()
    try:
        return cli.main(arguments, prog_name="iberian")
    except Exception as error:
        if not getattr(error, "for_people", False):
            raise
        echo(f"Error: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
