"""Which tokenizer, chat template and generation config a merge is scored with, and where each came from.

The recipe's own word comes first (`tokenizer_source`, `tokenizer`, `chat_template`), then the base model, then
the first model: as mergekit does, but always in that order. A tokenizer that the recipe has us build (a union,
extra tokens) lies in a temporary folder while the program runs, because vLLM takes a tokenizer by its folder; no
weight is ever written.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from merge_hooks._mergekit import chat_template_of, reference_key
from merge_hooks.errors import SourceError
from merge_hooks.sources import Source, content_hash
from merge_hooks.stages import MergedSource
from merge_hooks.stream import Stream


@dataclass(frozen=True)
class TokenizerChoice:
    """What the merged model reads and writes with.

    Args:
        folder: where the tokenizer's files lie (or a Hub id, if the caller named one).
        origin: where it came from, in words.
        chat_template: the template that the recipe asks for, or None for the tokenizer's own.
        generation_folder: where generation_config.json is read from.
        is_named: whether the user named it, whatever the recipe says.
        adopts_template: whether `chat_template` replaces the running tokenizer's own after a swap, None included.
        trust_remote_code: whether the tokenizer may bring code of its own. If not, nobody is asked.
    """

    folder: str
    origin: str
    chat_template: str | None
    generation_folder: str
    is_named: bool = False
    adopts_template: bool = False
    trust_remote_code: bool = False

    def load(self) -> Any:
        """The transformers tokenizer, with the recipe's chat template on it."""
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(self.folder, trust_remote_code=self.trust_remote_code)
        except (OSError, ValueError) as error:
            if "trust_remote_code" in str(error):
                raise SourceError(
                    f"the tokenizer in {self.folder} brings code of its own, which was not run. Read it there, and if you "
                    "trust it say trust_remote_code=True; or name another tokenizer with tokenizer=FOLDER_OR_HUB_ID."
                ) from error
            raise SourceError(
                f"no tokenizer to be had from {self.folder}: {str(error).splitlines()[0]} "
                "Name one with tokenizer=FOLDER_OR_HUB_ID."
            ) from error
        if self.chat_template is not None:
            tokenizer.chat_template = self.chat_template
        return tokenizer


def choose_tokenizer(stream: Stream, named: str | None = None) -> TokenizerChoice:
    """The tokenizer for a merge.

    Args:
        stream: the merge.
        named: the user's `tokenizer=`, which overrides the recipe.
    """
    config = stream.resolved.config
    template = chat_template_of(config)
    owner, origin = tokenizer_owner(stream)
    own, trusted = _lasting_folder(owner), stream.trust_remote_code
    if named:
        origin = f"tokenizer={named}"
        return TokenizerChoice(named, origin, template, own, is_named=True, trust_remote_code=trusted)
    folder = own
    if stream.tokenizer is not None:
        folder = _keep_for_this_process(stream.tokenizer, stream.model_config, owner.folder if trusted else None)
    return TokenizerChoice(folder, origin, template, own, trust_remote_code=trusted)


def tokenizer_owner(stream: Stream) -> tuple[Source, str]:
    """The source whose tokenizer, template and generation config are followed, and why."""
    config, sources = stream.resolved.config, stream.resolved.sources
    wanted = config.tokenizer.source if config.tokenizer else config.tokenizer_source
    donor = stream.resolved.donor
    role = "base model" if config.base_model is not None else "first model"
    if wanted is None:
        return donor, f"{role} {donor.name}"
    if isinstance(wanted, str):  # "base" or "union"
        return donor, f"tokenizer_source: {wanted} ({role} {donor.name} first)"
    source = sources[reference_key(wanted)]
    return source, f"tokenizer_source: {source.name}"


def _keep_for_this_process(tokenizer: Any, model_config: Any, code: Path | None) -> str:
    """A folder with a tokenizer that the recipe builds, and the merged model's config.json beside it as in a checkpoint.

    vLLM looks for one there: without it, it tries twice, says so in red, and is 4 seconds later.
    """
    folder = Path(tempfile.mkdtemp(prefix="iberian-tokenizer-"))
    tokenizer.save_pretrained(folder)
    model_config.save_pretrained(folder)
    if code is not None:
        copy_code(code, folder)
    return _shared(folder)


def _lasting_folder(owner: Source) -> str:
    """A folder with its tokenizer and generation config that stays while the program runs: a stage's own goes with it."""
    if not isinstance(getattr(owner, "base", owner), MergedSource):
        return str(owner.folder)
    folder = Path(tempfile.mkdtemp(prefix="iberian-tokenizer-"))
    shutil.copytree(owner.folder, folder, dirs_exist_ok=True)
    return _shared(folder)


# By the hash of their files: swaps of one tokenizer share one folder.
_FOLDERS: dict[str, Path] = {}


def _shared(folder: Path) -> str:
    """This temporary folder, else one with the same files from before; stays while the program runs."""
    key = content_hash(folder, sorted(path.name for path in folder.iterdir()))
    if key in _FOLDERS and _FOLDERS[key].is_dir():
        shutil.rmtree(folder, ignore_errors=True)
    else:
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        _FOLDERS[key] = folder
    return str(_FOLDERS[key])


def copy_code(folder: Path, to: Path) -> None:
    """The Python files of a model that is trusted to bring its own: its configuration names them beside itself."""
    for file in folder.glob("*.py"):
        shutil.copyfile(file, to / file.name)


def end_tokens(folder: str) -> list[int]:
    """The ids at which generation ends, from a folder's generation_config.json; empty where it says none."""
    path = Path(folder) / "generation_config.json"
    found = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id") if path.is_file() else None
    return sorted({found} if isinstance(found, int) else set(found or ()))


def tokenizer_hash(tokenizer: Any) -> str:
    """A hash of a loaded tokenizer: tokens, ids and special tokens (8 hex digits)."""
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    return digest([sorted(tokenizer.get_vocab().items()), special])


def template_hash(template: Any) -> str:
    """A hash of a chat template (8 hex digits), or "none"."""
    return digest(template) if template else "none"


def digest(value: Any, length: int = 8) -> str:
    """SHA-256 of a value's canonical JSON, cut to `length` hex digits."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:length]
