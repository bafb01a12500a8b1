"""Models from the Hugging Face Hub: only the files that are read; errors in words."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path

from merge_hooks.errors import SourceError
from merge_hooks.sources.headers import INDEX, read_json

# What is fetched of a Hub model beside its weights. Code is only run where `trust_remote_code` says so.
# README.md says language and licence, for the cards of merges.
SMALL_PATTERNS = ["*.json", "*.model", "*.txt", "*.jinja", "*.py", "README.md"]


def snapshot_revision(folder: Path) -> str | None:
    """The commit, if `folder` is a snapshot in the Hub's cache: .../models--o--n/snapshots/<commit>."""
    folder = folder.absolute()
    is_snapshot = folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--")
    return folder.name if is_snapshot else None


def download(repository: str, revision: str | None) -> Path:
    """The files of a Hub model that are read, and no others: a repository may hold its weights in several formats."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(repository, revision=revision, allow_patterns=SMALL_PATTERNS))
        # The same commit again, though a branch may have moved on.
        commit = snapshot_revision(folder) or revision
        return Path(snapshot_download(repository, revision=commit, allow_patterns=_weights_in(folder, repository)))
    except SourceError:
        raise
    except Exception as error:
        raise SourceError(explain_hub_error(error, repository, revision)) from error


def _weights_in(folder: Path, repository: str) -> list[str]:
    """The weight files of a Hub model, or of an adapter, whose small files lie here."""
    if (folder / INDEX).is_file():
        return sorted(set(read_json(folder / INDEX, repository).get("weight_map", {}).values()))
    return ["model.safetensors", "adapter_model.safetensors"]


@cache
def _connection_errors() -> tuple[type[Exception], ...]:
    """What a connection to the Hub fails with: huggingface_hub speaks through httpx, from version 2 through httpx2."""
    found: list[type[Exception]] = [ConnectionError, TimeoutError]  # the former is OfflineModeIsEnabled, too
    for library in ("httpx", "httpx2"):
        with suppress(ImportError):
            found.append(import_module(library).TransportError)
    return tuple(found)


def explain_hub_error(error: Exception, repository: str, revision: str | None, kind: str = "model") -> str:
    """Say in one line what the Hub's refusal means and how to mend it."""
    from huggingface_hub import errors

    at = f"{repository}@{revision}" if revision else repository
    fetch = f"hf download {repository}" + (f" --revision {revision}" if revision else "")
    match error:
        case errors.GatedRepoError():
            mend = "it is gated: accept its terms on its Hub page, then `hf auth login`"
        case errors.RevisionNotFoundError():
            mend = "the Hub has no such revision"
        case errors.RepositoryNotFoundError():
            mend = (
                f"no such folder here ({Path.cwd()}) and no such {kind} on the Hub (or it is private: `hf auth login`)"
            )
        case errors.HFValidationError():
            mend = "neither a folder nor a valid Hub id"
        case error if isinstance(error, (errors.LocalEntryNotFoundError, *_connection_errors())):
            mend = (
                "no such folder here, it is not whole in the Hub's cache, and the Hub is out of reach: there is no network "
                "here, or it is forbidden (HF_HUB_OFFLINE). "
                f"On a node with network: `{fetch}` (or `iberian prefetch --models RECIPE`), then run with HF_HUB_OFFLINE=1"
            )
        case _:
            mend = f"the Hub answered {type(error).__name__}: {error}"
    return f"{at}: {mend}."
