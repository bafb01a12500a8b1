"""Where the YAMLs of the tasks lie."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from lm_eval_iberian.errors import ManifestError


@cache
def tasks_folder() -> Path:
    """The folder of task YAMLs: inside the package in a wheel, beside it in a checkout."""
    here = Path(__file__).resolve().parent
    inside = here / "tasks"
    return inside if inside.is_dir() else here.parent / "tasks"


VARIABLE = "IBERIAN_TASKS"


def task_folders() -> tuple[Path, ...]:
    """The suite's folder of tasks and those that IBERIAN_TASKS names, which are laid out alike.

    Raises:
        ManifestError: it names a folder that is not there.
    """
    named = [Path(part).expanduser() for part in os.environ.get(VARIABLE, "").split(os.pathsep) if part.strip()]
    for folder in named:
        if not folder.is_dir():
            raise ManifestError(f"{VARIABLE}={folder}: no such folder. Name folders laid out as tasks/, or unset it.")
    return (tasks_folder(), *(folder.resolve() for folder in named))
