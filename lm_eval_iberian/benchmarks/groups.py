"""lm_eval's groups of what was added to the suite: no YAML lists them, they follow from the manifests.

The groups of what the paper averages are YAMLs (tasks/_groups), frozen as its averages are. What a manifest adds in a
language of the paper is in `iberian_<language>_added`, in another language in `iberian_<language>`; `iberian_suite`
holds these beside its own.
"""

from __future__ import annotations

from lm_eval_iberian.benchmarks.benchmark import PAPER_LANGUAGES
from lm_eval_iberian.benchmarks.files import read
from lm_eval_iberian.benchmarks.table import benchmarks
from lm_eval_iberian.folders import task_folders

SUITE = "iberian_suite"


def added_groups() -> dict[str, list[str]]:
    """Group -> its tasks and groups; `iberian_suite` with what was added. Empty where nothing was. Raises ManifestError."""
    made: dict[str, list[str]] = {}
    for one in benchmarks():
        if one.in_suite and one.averaged and not one.in_paper:
            name = f"iberian_{one.language}" + ("_added" if one.language in PAPER_LANGUAGES else "")
            made.setdefault(name, []).append(one.listed)
    if not made:
        return {}
    own = read(task_folders()[0] / "_groups" / f"{SUITE}.yaml")["task"]
    return {**made, SUITE: [*own, *made]}
