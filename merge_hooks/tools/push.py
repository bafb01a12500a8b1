"""An exported merge, put on the Hugging Face Hub: `push(folder, "owner/name", private=True)`.

The Hub is asked first whether it takes the card, so that nothing is made there for an upload that it would refuse.
"""

from __future__ import annotations

import re
from pathlib import Path

from merge_hooks.errors import EngineError
from merge_hooks.sources.hub import explain_hub_error

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}", re.ASCII)


def push(folder: Path, repository: str, private: bool) -> str:
    """Make a model on the Hub where there is none, and upload all files of a folder in one go.

    Args:
        repository: OWNER/NAME.
    Returns:
        The address of the model.
    Raises:
        EngineError: not a name, not logged in, not allowed, or the card was refused.
    """
    from huggingface_hub import HfApi, ModelCard

    check_name(repository)
    api = HfApi()
    try:
        ModelCard.load(folder / "README.md", ignore_metadata_errors=False).validate()
        url = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Merge exported by lm_eval_iberian")
    except Exception as error:
        said = explain_hub_error(error, repository, None)
        raise EngineError(
            f"{said} The checkpoint is whole in {folder}; with the rights to write (`hf auth login`), "
            f"`hf upload {repository} {folder}` sends it."
        ) from error
    return str(url)


def check_name(repository: str) -> None:
    """Raises EngineError where this is no name of a model with its owner."""
    if not _NAME.fullmatch(repository):
        raise EngineError(f"{repository}: not a name of a model on the Hub. Write OWNER/NAME.")
