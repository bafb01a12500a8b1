"""Documents from the Hub or from its cache, with retries, and with errors that a person can act on.

`datasets` reads data sets, because it knows their layouts. Where a manifest says so (loading scripts, which `datasets`
no longer runs), the parquet files that the Hub made of them are fetched by name. huggingface_hub downloads to a
temporary name and renames, so a half file is never read. A broken download is tried again.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from lm_eval_iberian.documents.manifests import Manifest
from lm_eval_iberian.documents.revisions import COMMIT, NEWEST, Wanted
from lm_eval_iberian.documents.trouble import Trouble, trouble
from merge_hooks.files import write_whole
from merge_hooks.sources.again import look_for_the_hub, may_pass, offline, patiently

if TYPE_CHECKING:
    from datasets import Dataset

# Below lm_eval's own logger, whose handler and level its command line sets.
LOG = logging.getLogger("lm_eval.iberian")
PARQUET_BRANCH = "refs/convert/parquet"
# What the newest of a data set, or its branch or tag, was when this process first read it: (endpoint, cache, Hub id,
# branch) -> commit. All of a run reads one commit, also if the branch moves meanwhile.
_COMMITS: dict[tuple[str, ...], str] = {}


class OtherRevision(Exception):  # noqa: N818, as our other errors
    """The cache holds a data set, but not the revision that is wanted."""


def read(path: str, config: str, manifest: Manifest | None, wanted: Wanted) -> tuple[dict[str, Dataset], str | None]:
    """A configuration's splits, and their commit if it is known.

    Raises:
        Exception: whatever datasets and huggingface_hub raise (see `trouble.explain`); OtherRevision.
    """
    if manifest and manifest.parquet:
        return patiently(lambda: _parquet_or_other_files(path, config, wanted), f"{path} ({config})", LOG)
    if manifest and (column := manifest.file_column):
        return patiently(lambda: _jsonl_files(path, config, column, wanted), f"{path} ({config})", LOG)
    return patiently(lambda: _by_datasets(path, config, wanted), f"{path} ({config})", LOG)


def _by_datasets(path: str, config: str, wanted: Wanted) -> tuple[dict[str, Dataset], str | None]:
    """What `datasets` reads, at the wanted revision: without the Hub it would take any that its cache holds."""
    from datasets import load_dataset

    commit = wanted.commit or (_commit_of(path, wanted.revision) if wanted.revision else _newest(path))
    if commit and (kept := _kept(path, config, commit)):
        return kept, commit
    look_for_the_hub(LOG)
    found = dict(load_dataset(path, None if config == "default" else config, revision=commit))
    # datasets keeps what it read in a folder named after the commit.
    folders = {Path(file["filename"]).parent.name for data in found.values() for file in data.cache_files}
    read = next((name for name in folders if COMMIT.fullmatch(name)), None)
    if wanted.revision and read != commit:
        raise OtherRevision(f"only commit {read} of it is in the cache here, and {wanted.revision} is wanted")
    if read and not wanted.revision:
        _COMMITS.setdefault(_branch(path, NEWEST), read)
    return found, read


def _branch(path: str, revision: str) -> tuple[str, ...]:
    """A key of `_COMMITS`."""
    from huggingface_hub import constants

    return constants.ENDPOINT, constants.HF_HUB_CACHE, path, revision


def _newest(path: str) -> str | None:
    """The commit of `main`; without the Hub the one of when it was last asked. None where that is not known: then it is
    whatever `datasets` finds, which in its cache may be a commit that was named once.
    """
    key = _branch(path, NEWEST)
    if key not in _COMMITS:
        with suppress(Exception):  # what is wrong with it is found, and said, when it is read
            if commit := _commit_of(path, NEWEST):
                _COMMITS[key] = commit
    return _COMMITS.get(key)


def _snapshot(path: str, revision: str, patterns: list[str]) -> Path:
    """The folder of a data set's files at a revision."""
    from huggingface_hub import snapshot_download

    look_for_the_hub(LOG)
    asked = revision if offline() else _COMMITS.get(_branch(path, revision), revision)
    folder = Path(snapshot_download(path, repo_type="dataset", revision=asked, allow_patterns=patterns))
    if COMMIT.fullmatch(folder.name):
        _COMMITS.setdefault(_branch(path, revision), folder.name)
    return folder


def _kept(path: str, config: str, commit: str) -> dict[str, Dataset] | None:
    """A configuration at a commit, from the cache of `datasets`; None if it is not there."""
    import datasets.config
    from datasets.naming import camelcase_to_snakecase
    from datasets.packaged_modules.cache.cache import Cache

    owner, _, name = path.rpartition("/")
    folder = Path(datasets.config.HF_DATASETS_CACHE) / f"{owner}___{camelcase_to_snakecase(name)}"
    # A data set without configurations has one called default. One with a single configuration is asked for without
    # a name.
    places = [place for place in folder.glob(f"*/*/{commit}") if config in ("default", place.parts[-3])]
    if len(places) != 1:
        return None
    kept, version = places[0].parts[-3], places[0].parts[-2]
    return dict(Cache(repo_id=path, dataset_name=name, config_name=kept, version=version, hash=commit).as_dataset())


def _commit_of(path: str, revision: str) -> str | None:
    """The commit that a branch or tag stands for; without the Hub, the one that it stood for when it was last asked."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.file_download import repo_folder_name

    # Where the Hub's cache keeps it: https://huggingface.co/docs/huggingface_hub/guides/manage-cache
    file = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=path, repo_type="dataset") / "refs" / revision
    commit = None
    look_for_the_hub(LOG)
    try:
        if not offline():
            commit = str(HfApi().dataset_info(path, revision=revision).sha)
    except Exception as error:
        if not file.is_file() or trouble(error) is not Trouble.UNREACHABLE:
            raise
    if commit is None:
        return file.read_text(encoding="utf-8").strip() if file.is_file() else None
    with suppress(OSError):  # a cache that is only read
        write_whole(file, commit)
    return commit


def _parquet_or_other_files(path: str, config: str, wanted: Wanted) -> tuple[dict[str, Dataset], str | None]:
    """The Hub's parquet files; what `datasets` makes of the data set where there are none (its owner may have
    converted it, or the revision is one of its main branch).

    Raises what the parquet files gave, where neither will do.
    """
    revision = wanted.revision or PARQUET_BRANCH
    try:
        return _parquet_files(path, config, revision)
    except Exception as error:
        if may_pass(error):
            raise
        try:
            return _by_datasets(path, config, Wanted() if revision == PARQUET_BRANCH else wanted)
        except Exception:
            raise error from None


def _parquet_files(path: str, config: str, revision: str) -> tuple[dict[str, Dataset], str | None]:
    """The files `<config>/<split>/*.parquet` or, in the older layout, `<config>/*-<split>.parquet`."""
    from datasets import concatenate_datasets

    folder = _snapshot(path, revision, [f"{config}/*"])
    by_split: dict[str, list[Path]] = {}
    for file in sorted((folder / config).rglob("*.parquet")):
        inside = file.relative_to(folder / config).parts
        split = inside[0] if len(inside) > 1 else file.stem.rpartition("-")[2]
        by_split.setdefault(split, []).append(file)
    if not by_split:
        raise FileNotFoundError(f"404: no parquet files of {config} at {revision}")
    found = {s: concatenate_datasets([read_parquet(file) for file in files]) for s, files in by_split.items()}
    return found, folder.name if COMMIT.fullmatch(folder.name) else None


def _jsonl_files(path: str, config: str, column: str, wanted: Wanted) -> tuple[dict[str, Dataset], str | None]:
    """The files `<config>/*.jsonl` as one split, test; `column` gets the name of each row's file. `datasets` would join
    them too, and forget which row is of which file.
    """
    from datasets import Dataset, concatenate_datasets

    revision = wanted.revision or NEWEST
    folder = _snapshot(path, revision, [f"{config}/*.jsonl"])
    files = sorted((folder / config).glob("*.jsonl"))
    if not files:
        raise FileNotFoundError(f"404: no .jsonl files in {config} at {revision}")
    parts = [Dataset.from_json(str(file)) for file in files]
    named = [part.add_column(column, [file.stem] * len(part)) for file, part in zip(files, parts, strict=True)]
    return {"test": concatenate_datasets(named)}, folder.name if COMMIT.fullmatch(folder.name) else None


def read_parquet(file: Path) -> Dataset:
    """A parquet file in memory. Raises OSError or ValueError where it is not whole."""
    import pyarrow.parquet
    from datasets import Dataset

    return Dataset(pyarrow.parquet.read_table(file))
