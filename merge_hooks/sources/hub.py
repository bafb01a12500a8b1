"""Models from the Hugging Face Hub: only the files that are read; errors in words."""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path

from merge_hooks.errors import SourceError
from merge_hooks.sources.again import look_for_the_hub, may_pass, patiently, statuses
from merge_hooks.sources.headers import INDEX, read_json
from merge_hooks.sources.near import did_you_mean
from merge_hooks.texts import one_line, seen

LOG = logging.getLogger(__name__)

# What is fetched of a Hub model beside its weights. Code is only run where `trust_remote_code` says so.
# README.md says language and licence, for the cards of merges.
SMALL_PATTERNS = ["*.json", "*.model", "*.txt", "*.jinja", "*.tiktoken", "*.py", "README.md"]
# What a branch or tag stood for when this process first asked: all of a run reads one commit of it, also if it moves.
_COMMITS: dict[tuple[str, ...], str] = {}
# The Hub's cache holds a model where it holds one of these.
KNOWN_BY = ("config.json", "adapter_config.json", "mergekit_config.yml")


def snapshot_revision(folder: Path) -> str | None:
    """The commit, if `folder` is a snapshot in the Hub's cache: .../models--o--n/snapshots/<commit>."""
    folder = folder.absolute()
    is_snapshot = folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--")
    return folder.name if is_snapshot else None


def download(repository: str, revision: str | None, beside: Path | None = None) -> Path:
    """The files of a Hub model that are read, and no others: a repository may hold its weights in several formats.

    Args:
        beside: the recipe's folder, in which a folder of nearly that name may have been meant.
    """
    say_what_is_near(repository, revision, beside)
    folder = snapshot(repository, revision, SMALL_PATTERNS, beside)
    return snapshot(repository, revision, _weights_in(folder, repository), beside)


def snapshot(repository: str, revision: str | None, patterns: list[str], beside: Path | None = None) -> Path:
    """Files of a Hub model at one commit: the one that the revision stood for when this process first asked.

    Raises:
        SourceError: what the Hub's refusal means, and how to mend it.
    """
    from huggingface_hub import constants, snapshot_download

    look_for_the_hub(LOG)
    asked = (constants.ENDPOINT, constants.HF_HUB_CACHE, repository, revision or "main")

    def fetch() -> Path:
        return Path(snapshot_download(repository, revision=_COMMITS.get(asked, revision), allow_patterns=patterns))

    try:
        folder = patiently(fetch, repository, LOG)
    except Exception as error:
        raise SourceError(explain_hub_error(error, repository, revision, beside=beside)) from error
    if commit := snapshot_revision(folder) or revision:
        _COMMITS[asked] = commit
    return folder


def say_what_is_near(
    repository: str, revision: str | None = None, beside: Path | None = None, files: bool = False
) -> None:
    """Before minutes are spent on a Hub that is out of reach: a folder here has nearly that name.

    Only said of what the Hub's cache does not hold, and where the Hub may be asked at all.
    """
    from huggingface_hub import constants, errors, try_to_load_from_cache

    if constants.HF_HUB_OFFLINE or not (hint := did_you_mean(repository, beside, files)):
        return
    with suppress(errors.HFValidationError):
        if any(isinstance(try_to_load_from_cache(repository, file, revision=revision), str) for file in KNOWN_BY):
            return
    LOG.warning("%s: no such folder here.%s The Hub is asked for it.", seen(repository), seen(hint))


def _weights_in(folder: Path, repository: str) -> list[str]:
    """The weight files of a Hub model, or of an adapter, whose small files lie here."""
    if (folder / INDEX).is_file():
        files = read_json(folder / INDEX, repository).get("weight_map", {})
        is_index = isinstance(files, dict) and all(isinstance(file, str) for file in files.values())
        return sorted(set(files.values())) if is_index else [INDEX]  # what is wrong is said where the files are opened
    return ["model.safetensors", "adapter_model.safetensors"]


@cache
def _connection_errors() -> tuple[type[Exception], ...]:
    """What a connection to the Hub fails with: huggingface_hub speaks through httpx, from version 2 through httpx2."""
    found: list[type[Exception]] = [ConnectionError, TimeoutError]  # the former is OfflineModeIsEnabled, too
    for library in ("httpx", "httpx2"):
        with suppress(ImportError):
            found.append(import_module(library).TransportError)
    return tuple(found)


def explain_hub_error(
    error: Exception, repository: str, revision: str | None, kind: str = "model", beside: Path | None = None,
    files: bool = False,
) -> str:  # fmt: skip
    """Say in one line what the Hub's refusal means and how to mend it.

    Args:
        beside, files: where a model's name may have been meant for a path, and for which; see `near`.
    """
    from huggingface_hub import errors

    near = did_you_mean(repository, beside, files) if kind == "model" else ""
    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, errors.HfHubHTTPError):
        error = error.__cause__  # the cache holds a part, and the Hub refuses the rest

    at = f"{repository}@{revision}" if revision else repository
    fetch = f"hf download {repository}" + (f" --revision {revision}" if revision else "")
    match error:
        case errors.GatedRepoError():
            mend = "it is gated: accept its terms on its Hub page, then `hf auth login`"
        case errors.RevisionNotFoundError():
            mend = (
                "the Hub has no such revision. Its page lists branches and tags under `Files`, and commits under `History`; "
                "a commit is written with all its 40 digits"
            )
        case errors.RepositoryNotFoundError():
            on_the_hub = f"no such {kind} on the Hub (or it is private: `hf auth login`)"
            here = f"no such folder here ({Path.cwd()})"
            mend = f"{here}.{near} There is {on_the_hub}" if near else f"{here} and {on_the_hub}"
        case errors.HFValidationError():
            mend = f"neither a folder nor a valid Hub id.{near}".removesuffix(".")
        case error if isinstance(error, (errors.LocalEntryNotFoundError, *_connection_errors())):
            here = f"no such folder here.{near} As a model of the Hub," if near else "no such folder here,"
            mend = (
                f"{here} it is not whole in the Hub's cache, and the Hub is out of reach: there is no network "
                "here, or it is forbidden (HF_HUB_OFFLINE). "
                f"On a node with network: `{fetch}` (or `iberian prefetch --models RECIPE`), then run with HF_HUB_OFFLINE=1"
            )
        case error if may_pass(error):
            said = next(iter(statuses(error)), type(error).__name__)
            mend = f"the Hub is busy or has a fault ({said}). Start this again later: what was fetched is kept"
        case _:
            mend = f"the Hub answered {type(error).__name__}: {one_line(str(error)):.300}"
    return f"{at}: {mend}" + "." * (not mend.endswith("?"))
