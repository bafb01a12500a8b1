"""Documents from the Hub, or from its cache: with retries, and in words that a person can act on.

Data sets are read by `datasets`, which knows their layouts; where a manifest names the Hub's branch of parquet files
(loading scripts, which `datasets` no longer runs), those files are fetched by name. huggingface_hub downloads to a
temporary name and renames, so that a half file is never read; what breaks is tried again.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from lm_eval_iberian.manifests import Manifest

if TYPE_CHECKING:
    from datasets import Dataset

# Below lm_eval's own logger, whose handler and level its command line sets.
LOG = logging.getLogger("lm_eval.iberian")
PARQUET_BRANCH = "refs/convert/parquet"
TRIES = 6
FIRST_PAUSE_SECONDS = 1.0
COMMIT = re.compile("[0-9a-f]{40}")
Found = TypeVar("Found")


def read(path: str, config: str, manifest: Manifest | None) -> tuple[dict[str, Dataset], str | None]:
    """A configuration's splits, and the commit they are of where it is known.

    Raises:
        Exception: whatever datasets and huggingface_hub raise; see `explain`.
    """
    revision = manifest.revision if manifest else None
    if revision == PARQUET_BRANCH:
        return patiently(lambda: _parquet_or_newest(path, config), f"{path} ({config})")
    return patiently(lambda: _by_datasets(path, config, revision), f"{path} ({config})")


def patiently(fetch: Callable[[], Found], what: str) -> Found:
    """Call `fetch`, again after 1, 2, 4, 8 and 16 seconds when the trouble may pass."""
    pause = FIRST_PAUSE_SECONDS
    for tries_left in range(TRIES - 1, -1, -1):
        try:
            return fetch()
        except Exception as error:
            if not tries_left or not may_pass(error):
                raise
            LOG.warning("%s: %s; trying again in %g s (%d more).", what, one_line(error), pause, tries_left)
        time.sleep(pause)
        pause *= 2
    raise AssertionError("unreachable")


def may_pass(error: BaseException) -> bool:
    """Whether to try again: a busy or broken server, a time-out, a connection cut; not a refusal, not offline."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "ON", "YES"):
        return False
    for one in _chain(error):
        status = getattr(getattr(one, "response", None), "status_code", None)
        if isinstance(status, int):
            return status >= 500 or status in (408, 429)
    names = {kind.__name__ for one in _chain(error) for kind in type(one).__mro__}
    return bool(
        names & {"TimeoutException", "TimeoutError", "ReadError", "RemoteProtocolError", "ConnectionResetError"}
    )


def one_line(error: BaseException) -> str:
    """An error's kind and first line."""
    return f"{type(error).__name__}: {error}".splitlines()[0].strip()


def explain(error: Exception, path: str) -> str:
    """What came back, and what is to be done: what to accept, what to log in to, what to fetch."""
    text = one_line(error)
    whole = " ".join(f"{type(one).__name__}: {one}" for one in _chain(error)).lower()
    if "gated" in whole or "401" in whole or "403" in whole:
        mend = f"Accept its terms at https://huggingface.co/datasets/{path} and log in with `hf auth login`"
    elif "script" in whole:
        mend = "It is a loading script, which `datasets` no longer runs"
    elif "404" in whole or "notfound" in whole:
        mend = f"It is not at https://huggingface.co/datasets/{path} any more, or not under this configuration"
    elif may_pass(error):
        mend = f"It was asked for {TRIES} times: try again later"
    else:
        mend = "With no network, fetch it on a machine that has one: `iberian prefetch --to DIR`"
    return f"from the Hub came {text}. {mend}"


def _by_datasets(path: str, config: str, revision: str | None) -> tuple[dict[str, Dataset], str | None]:
    from datasets import load_dataset

    found = dict(load_dataset(path, None if config == "default" else config, revision=revision))
    # datasets keeps what it read in a folder named after the commit.
    folders = {Path(file["filename"]).parent.name for data in found.values() for file in data.cache_files}
    return found, next((name for name in folders if COMMIT.fullmatch(name)), None)


def _parquet_or_newest(path: str, config: str) -> tuple[dict[str, Dataset], str | None]:
    """The branch of parquet files; the data set as it is today where that has none (its owner may have converted it).

    Raises what the branch gave, where neither will do.
    """
    try:
        return _parquet_files(path, config)
    except Exception as error:
        if may_pass(error):
            raise
        try:
            return _by_datasets(path, config, None)
        except Exception:
            raise error from None


def _parquet_files(path: str, config: str) -> tuple[dict[str, Dataset], str | None]:
    """The files `<config>/<split>/*.parquet` or, in the older layout, `<config>/*-<split>.parquet`."""
    from datasets import concatenate_datasets
    from huggingface_hub import snapshot_download

    folder = Path(snapshot_download(path, repo_type="dataset", revision=PARQUET_BRANCH, allow_patterns=[f"{config}/*"]))
    by_split: dict[str, list[Path]] = {}
    for file in sorted((folder / config).rglob("*.parquet")):
        inside = file.relative_to(folder / config).parts
        split = inside[0] if len(inside) > 1 else file.stem.rpartition("-")[2]
        by_split.setdefault(split, []).append(file)
    if not by_split:
        raise FileNotFoundError(f"404: no parquet files of {config} in the branch {PARQUET_BRANCH}")
    found = {s: concatenate_datasets([read_parquet(file) for file in files]) for s, files in by_split.items()}
    return found, folder.name if COMMIT.fullmatch(folder.name) else None


def read_parquet(file: Path) -> Dataset:
    """A parquet file in memory. Raises OSError or ValueError where it is not whole."""
    import pyarrow.parquet
    from datasets import Dataset

    return Dataset(pyarrow.parquet.read_table(file))


def _chain(error: BaseException) -> list[BaseException]:
    """An error and what caused it."""
    found: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in found:
        found.append(one)
        one = one.__cause__ or one.__context__
    return found
