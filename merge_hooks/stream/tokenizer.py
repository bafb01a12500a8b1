"""Which tokenizer, chat template and generation config a merge is scored with, and where each came from.

What the recipe says comes first (`tokenizer_source`, `tokenizer`, `chat_template`), then the base model, then the first
model. mergekit does the same, but not always in that order. A tokenizer that has to be built for the recipe (a union,
extra tokens) lies in a temporary folder while the program runs, because vLLM takes a tokenizer by its folder. No weight
is ever written.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from merge_hooks.errors import SourceError, explained
from merge_hooks.hashing import content_hash, digest
from merge_hooks.planning.config import chat_template_of, reference_key
from merge_hooks.sources.checkpoint import Source
from merge_hooks.sources.headers import refuse_odd_files
from merge_hooks.sources.near import did_you_mean
from merge_hooks.stream.stream import Stream
from merge_hooks.stream.template import refuse_endless

# Files of a folder that a tokenizer can be made of.
_SMALL = (".json", ".jinja", ".model", ".txt", ".py", ".tiktoken")
# Attributes of a tokenizer that lie beside tokenizer.json and change ids or texts.
_SETTINGS = ("add_bos_token", "add_eos_token", "add_prefix_space", "clean_up_tokenization_spaces", "legacy",
             "model_max_length", "split_special_tokens", "truncation_side")  # fmt: skip
# Of a generation config: who wrote it, the token to pad with, one that begins a text without a prompt, and what is
# computed or returned beside the text.
_NO_GENERATION = ("transformers_version", "_from_model_config", "pad_token_id", "bos_token_id", "use_cache",
                  "output_attentions", "output_hidden_states")  # fmt: skip


@dataclass(frozen=True)
class TokenizerChoice:
    """What the merged model reads and writes with.

    Args:
        folder: where the tokenizer's files lie (or a Hub id, if the caller named one).
        origin: where it came from, in words.
        chat_template: the template that the recipe asks for, or None for the tokenizer's own.
        generation_folder: where generation_config.json is read from.
        is_named: whether the user named it, whatever the recipe says.
        trust_remote_code: whether the tokenizer may bring code of its own. If not, nobody is asked.
    """

    folder: str
    origin: str
    chat_template: str | None
    generation_folder: str
    is_named: bool = False
    trust_remote_code: bool = False

    @cached_property
    def facts(self) -> TokenizerFacts:
        """Its hash, and the chat template that is used for scoring."""
        return facts_of(self.folder, self.chat_template, self.trust_remote_code)

    def load(self, add_bos_token: bool | None = None) -> Any:
        """The transformers tokenizer, with the recipe's chat template set.

        Args:
            add_bos_token: whether texts begin with BOS; None: as its files say.
        """
        from transformers import AutoTokenizer

        begins = {} if add_bos_token is None else {"add_bos_token": add_bos_token}
        if Path(self.folder).is_dir():
            refuse_odd_files(Path(self.folder), f"the tokenizer in {self.folder}")
        try:
            tokenizer = AutoTokenizer.from_pretrained(self.folder, trust_remote_code=self.trust_remote_code, **begins)
        except (OSError, ValueError) as error:
            if "trust_remote_code" in str(error):
                raise SourceError(
                    f"the tokenizer in {self.folder} brings code of its own, which was not run. Read it there, and if you "
                    "trust it say trust_remote_code=True; or name another tokenizer with tokenizer=FOLDER_OR_HUB_ID."
                ) from error
            raise SourceError(
                f"no tokenizer to be had from {self.folder}: {str(error).splitlines()[0]}"
                f"{'' if Path(self.folder).is_dir() else did_you_mean(self.folder)} "
                "Name one with tokenizer=FOLDER_OR_HUB_ID."
            ) from error
        if self.chat_template is not None:
            tokenizer.chat_template = self.chat_template
        return tokenizer


@explained("the tokenizer of this merge cannot be made")
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
    """The source whose tokenizer, template and generation config are used, and why."""
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
    """A folder with a tokenizer that was built for the recipe, and beside it the merged model's config.json.

    vLLM looks for a config.json there. Without one it tries twice, prints an error, and starts 4 seconds later.
    """
    folder = Path(tempfile.mkdtemp(prefix="iberian-tokenizer-"))
    tokenizer.save_pretrained(folder)
    model_config.save_pretrained(folder)
    if code is not None:
        copy_code(code, folder)
    return _shared(folder)


def _lasting_folder(owner: Source) -> str:
    """A folder with the owner's tokenizer and generation config that lasts as long as the program, unlike a stage's."""
    if not owner.is_merge:
        return str(owner.folder)
    folder = Path(tempfile.mkdtemp(prefix="iberian-tokenizer-"))
    shutil.copytree(owner.folder, folder, dirs_exist_ok=True)
    return _shared(folder)


# By the hash of their files: swaps of one tokenizer share one folder.
_FOLDERS: dict[str, Path] = {}


def _shared(folder: Path) -> str:
    """A folder from before that holds the same files, else this temporary one. Either lasts as long as the program."""
    key = content_hash(folder, sorted(path.name for path in folder.iterdir()))
    if key in _FOLDERS and _FOLDERS[key].is_dir():
        shutil.rmtree(folder, ignore_errors=True)
    else:
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        _FOLDERS[key] = folder
    return str(_FOLDERS[key])


def copy_code(folder: Path, to: Path) -> None:
    """Copy the Python files of a model that is trusted to bring its own: its configuration expects them there."""
    for file in folder.glob("*.py"):
        shutil.copyfile(file, to / file.name)


@dataclass(frozen=True)
class TokenizerFacts:
    """What the tokenizer in a folder is, as it lies on disk. An engine may add a padding token, which does not count.

    Args:
        hash: `tokenizer_hash`.
        template: its chat template, or None.
    """

    hash: str
    template: Any


@explained("the tokenizer cannot be read")
def facts_of(folder: str, template: str | None = None, trust_remote_code: bool = False) -> TokenizerFacts:
    """The facts of the tokenizer in a folder. They are read again only if its files change.

    Args:
        template: the chat template that replaces its own.
        trust_remote_code: whether the tokenizer may bring code of its own.
    """
    found = _facts(folder, trust_remote_code, _state_of(folder))
    used = found.template if template is None else template
    refuse_endless(used, folder)
    return TokenizerFacts(found.hash, used)


@lru_cache(maxsize=256)
def _facts(folder: str, trust_remote_code: bool, _state: tuple[Any, ...]) -> TokenizerFacts:
    loaded = TokenizerChoice(folder, "", None, folder, trust_remote_code=trust_remote_code).load()
    return TokenizerFacts(tokenizer_hash(loaded), loaded.chat_template)


def _state_of(folder: str) -> tuple[Any, ...]:
    """Names, sizes and times of all files except weights; nothing for a Hub id."""
    path = Path(folder)
    files = [file for file in path.glob("*") if file.suffix in _SMALL and file.is_file()] if path.is_dir() else []
    return tuple((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(files))


@explained("the generation settings cannot be read")
def generation_config_of(folder: str, model_config: Any) -> Any:
    """The generation settings that hold where a task says nothing: generation_config.json, else what config.json says.

    Args:
        folder: where generation_config.json is looked for.
        model_config: of the merged model.
    Returns:
        A new transformers GenerationConfig.
    """
    from transformers import GenerationConfig

    for name in ("generation_config.json", "config.json"):  # in the order of `from_pretrained`
        if (Path(folder) / name).is_file():
            return GenerationConfig.from_pretrained(folder, config_file_name=name)
    return GenerationConfig.from_model_config(model_config)


@explained("the generation settings cannot be read")
def generation_settings(folder: str, model_config: Any) -> dict[str, Any]:
    """The same as plain data, for keys and results: what differs from transformers' defaults and can matter."""
    from transformers import GenerationConfig

    found = generation_config_of(folder, model_config).to_diff_dict()
    if not (Path(folder) / "generation_config.json").is_file():  # transformers keeps all of config.json then
        found = {key: value for key, value in found.items() if key in vars(GenerationConfig())}
    return {
        key: value for key, value in json.loads(json.dumps(found, default=str)).items() if key not in _NO_GENERATION
    }


def generation_hash(settings: Mapping[str, Any]) -> str:
    """A hash of `generation_settings` (8 hex digits), or "none"."""
    return digest(settings) if settings else "none"


def end_tokens(settings: Mapping[str, Any]) -> list[int]:
    """The ids at which generation ends, from `generation_settings`; empty if they name none. Raises SourceError."""
    found = settings.get("eos_token_id")
    ids = found if isinstance(found, list) else [found] if found is not None else []
    if not all(type(one) is int for one in ids):
        raise SourceError(
            f"generation_config.json: `eos_token_id`: {found!r:.200}: the ids of tokens are whole numbers. Mend the file."
        )
    return sorted(set(ids))


def tokenizer_hash(tokenizer: Any) -> str:
    """A hash (8 hex digits) of all that turns text into ids and ids into text in a loaded tokenizer.

    For one that runs in Rust: its whole tokenizer.json (normaliser, pre-tokeniser, model, post-processor with its rules
    for BOS and EOS, decoder, added tokens with their flags), without padding and truncation, which callers set. For any
    other: the bytes of its vocabulary files, and the source of its class if that is not transformers' own. For both:
    special tokens and the settings of the class. The chat template has a hash of its own.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        whole = json.loads(backend.to_str())
        parts: Any = {key: value for key, value in whole.items() if key not in ("padding", "truncation")}
    else:
        added = {str(place): repr(token) for place, token in getattr(tokenizer, "added_tokens_decoder", {}).items()}
        parts = [sorted(tokenizer.get_vocab().items()), added, _files_of(tokenizer), _source_of(type(tokenizer))]
    special = {name: _words(token) for name, token in tokenizer.special_tokens_map.items() if name != "pad_token"}
    settings = {name: str(getattr(tokenizer, name, None)) for name in _SETTINGS}
    # In the order of Rust's own: sorting some 100,000 merges would say nothing.
    text = json.dumps(parts, ensure_ascii=False, separators=(",", ":"))
    return digest(
        [_kind(tokenizer), hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(), special, settings]
    )


def _kind(tokenizer: Any) -> str:
    """The class's name, the same for its Rust and its Python edition."""
    return type(tokenizer).__name__.removesuffix("Fast")


def _words(token: Any) -> Any:
    return [str(one) for one in token] if isinstance(token, (list, tuple)) else str(token)


def _files_of(tokenizer: Any) -> list[str]:
    """Hashes of the files that a tokenizer without a tokenizer.json reads, such as a sentencepiece model or
    tekken.json.
    """
    named = [getattr(tokenizer, name, None) for name in (getattr(tokenizer, "vocab_files_names", None) or {})]
    folder = Path(str(getattr(tokenizer, "name_or_path", "")))
    beside = [folder / name for name in ("tekken.json", "tokenizer.model", "spiece.model")]
    files = {Path(str(file)) for file in (*named, *beside) if file and Path(str(file)).is_file()}
    return sorted(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)


def _source_of(kind: type) -> str:
    """The hash of the file of a class that came with the model."""
    module = sys.modules.get(kind.__module__)
    file = getattr(module, "__file__", None)
    if file is None or kind.__module__.partition(".")[0] == "transformers":
        return ""
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()
