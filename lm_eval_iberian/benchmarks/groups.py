"""lm_eval's groups of what was added to the suite: no YAML lists them, they follow from the manifests.

The groups of what the paper averages are YAMLs (tasks/_groups), frozen as its averages are. What a manifest adds in a
language of the paper is in `iberian_<language>_added`, in another language in `iberian_<language>`; `iberian_suite`
holds these beside its own. What lm_eval's own tasks measure (manifest entries without `task`) is in `iberian_more`, and
so is what says `more: true`.
"""

from __future__ import annotations

from lm_eval_iberian.benchmarks.benchmark import PAPER_LANGUAGES
from lm_eval_iberian.benchmarks.files import read
from lm_eval_iberian.benchmarks.table import benchmarks
from lm_eval_iberian.folders import task_folders

SUITE, MORE = "iberian_suite", "iberian_more"


def added_groups() -> dict[str, list[str]]:
    """Group -> its tasks and groups; `iberian_suite` with what was added, if anything was. Raises ManifestError."""
    made: dict[str, list[str]] = {}
    for one in benchmarks():
        if one.in_suite and one.averaged and not one.in_paper:
            name = f"iberian_{one.language}" + ("_added" if one.language in PAPER_LANGUAGES else "")
            made.setdefault(name, []).append(one.listed)
    more = [one.listed for one in benchmarks() if one.in_more]
    beside = {MORE: more} if more else {}
    if not made:
        return beside
    own = read(task_folders()[0] / "_groups" / f"{SUITE}.yaml")["task"]
    return {**made, SUITE: [*own, *made], **beside}
