"""Where the YAMLs of the tasks lie."""

from __future__ import annotations

from pathlib import Path


def tasks_folder() -> Path:
    """The folder of task YAMLs: inside the package in a wheel, beside it in a checkout."""
    here = Path(__file__).resolve().parent
    inside = here / "tasks"
    return inside if inside.is_dir() else here.parent / "tasks"
