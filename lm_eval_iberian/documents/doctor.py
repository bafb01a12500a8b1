"""What stands between a task and its documents: for each data set its state, and the command that mends it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from lm_eval_iberian.documents import hub
from lm_eval_iberian.documents import loader as documents
from lm_eval_iberian.documents.loader import DocumentsError
from lm_eval_iberian.documents.manifests import manifests
from lm_eval_iberian.documents.needs import Need, is_read_by_lm_eval, needs
from lm_eval_iberian.documents.revisions import Wanted, wanted
from merge_hooks.sources.again import in_one_line, look_for_the_hub, offline, patiently

THERE, GATED, MISSING, DAMAGED = "there", "gated", "missing", "damaged"
REACHABLE, UNKNOWN = "on the Hub", "unreachable"
GOOD = (THERE, REACHABLE)


@dataclass(frozen=True)
class Finding:
    """The state of one configuration.

    Args:
        need: who reads what.
        state: "there" (mirror, samples or cache), "on the Hub", "gated", "missing", "damaged" or "unreachable".
        where: the mirror, "samples", "Hub".
        mend: what to do; empty where nothing is.
    """

    need: Need
    state: str
    where: str
    mend: str = ""


def examine(names: Iterable[str]) -> list[Finding]:
    """The state of everything that tasks and groups read. Nothing is downloaded; the Hub is only asked for permission.

    Raises:
        DocumentsError: an unknown name, or IBERIAN_DATA names no folder.
    """
    asked: dict[str, tuple[str, str]] = {}
    return [_examine(need, asked) for need in needs(names)]


def _examine(need: Need, asked: dict[str, tuple[str, str]]) -> Finding:
    mirror = documents.mirror()
    in_mirror = mirror is not None and (mirror / need.path / need.config).is_dir()
    if is_read_by_lm_eval(need) or not (documents.is_samples() or in_mirror):
        look_for_the_hub(hub.LOG)
    if is_read_by_lm_eval(need) and offline():
        return _cached(need)
    if not is_read_by_lm_eval(need) and (documents.is_samples() or in_mirror or offline()):
        return _read(need)
    if need.path not in asked:
        asked[need.path] = ask_hub(need.path)
    state, mend = asked[need.path]
    return Finding(need, state, "Hub", mend)


def _cached(need: Need) -> Finding:
    """A configuration that lm_eval's own task reads: in the Hub's cache, or not."""
    try:
        hub.read(need.path, need.config, None, Wanted())
    except Exception as error:
        mend = "run its task once with a network: lm_eval's own tasks read the Hub's cache, not IBERIAN_DATA"
        return Finding(need, MISSING, "nowhere", f"{mend}   ({in_one_line(error)})")
    return Finding(need, THERE, "cache")


def _read(need: Need) -> Finding:
    """A configuration that should be on this machine: read, and compared with its manifest."""
    try:
        found = documents.load(need.path, need.config, need.splits)
    except documents.NotToBeHad as error:
        mend = fetch_command(need.tasks[0])
        if manifests().get(need.path) and manifests()[need.path].gated:
            return Finding(need, GATED, "nowhere", f"{accept_command(need.path)}, then {mend}")
        reason = str(error).splitlines()[1].strip()
        return Finding(need, MISSING, "nowhere", f"{mend}   ({reason})")
    except DocumentsError as error:
        return Finding(need, DAMAGED, str(documents.mirror() or "cache"), f"{error} {fetch_command(need.tasks[0])}")
    return Finding(need, THERE, found.origin, "; ".join((*found.differences, *found.notes)))


def ask_hub(path: str) -> tuple[str, str]:
    """Whether this user may read a data set at its revision: state, and what mends it. Makes one or two requests."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    revision = wanted(path, manifests().get(path)).revision
    try:
        patiently(lambda: HfApi().auth_check(path, repo_type="dataset"), path, hub.LOG)
        if revision:
            patiently(lambda: HfApi().dataset_info(path, revision=revision), path, hub.LOG)
    except GatedRepoError:
        return GATED, accept_command(path)
    except RevisionNotFoundError:
        return MISSING, f"the Hub has no revision {revision} of it: name another, IBERIAN_REVISIONS={path}=COMMIT"
    except RepositoryNotFoundError:
        return MISSING, f"https://huggingface.co/datasets/{path} is not there (or private: `hf auth login`)"
    except Exception as error:
        return (UNKNOWN, f"{in_one_line(error)}; with no network: iberian prefetch --out DIR on a machine that has one")
    return REACHABLE, ""


def accept_command(path: str) -> str:
    """How to get access to a gated data set."""
    return f"accept the terms at https://huggingface.co/datasets/{path} and run `hf auth login`"


def fetch_command(tasks: str) -> str:
    """How to fetch what tasks read."""
    where = os.environ.get(documents.VARIABLE, "").strip()
    to = where if where and where != documents.SAMPLES else "DIR"
    return f"iberian prefetch --tasks {tasks} --out {to}"
