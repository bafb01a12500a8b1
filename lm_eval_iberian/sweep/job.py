"""What travels between driver and workers: a job there, events back. Plain data, pickled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lm_eval_iberian.identity.identity import Identity
from lm_eval_iberian.runs.store import Answer, Document
from lm_eval_iberian.sweep.spec import Evaluation


@dataclass(frozen=True)
class Job:
    """One evaluation of one point.

    Args:
        key: of the evaluation, in the store.
        point: the point's name.
        engine: jobs of one engine key can follow each other in one engine by a swap.
        signature: of the point, as planned; a worker refuses to measure anything else.
        identity: what is measured; what every answer depends on is in it, and what its tasks read.
        recipe: (YAML, origin, folder): the recipe travels, no weights.
        model_args: of the model `merged`.
        chat: apply_chat_template, fewshot_as_multiturn.
        include_path: a folder of further tasks.
        known: answers that are in the store already: key -> JSON.
        weights: the digest of the weights that this signature had before, if it was measured before.
        log_samples: whether the worker tells lm_eval's samples.
    """

    key: str
    point: str
    engine: str
    signature: str
    identity: Identity
    recipe: tuple[str, str, str | None]
    merge_seed: int
    rng: str
    evaluation: Evaluation
    model_args: Mapping[str, Any]
    chat: tuple[bool, bool]
    include_path: str | None
    known: Mapping[str, str] = field(default_factory=dict)
    weights: str | None = None
    log_samples: bool = False


@dataclass(frozen=True)
class Started:
    """A worker begins with a job. `what`: "engine" (started), "swap" or "kept"; `seconds`: that took; `weights`: digest."""

    key: str
    what: str
    seconds: float
    weights: str


@dataclass(frozen=True)
class Asked:
    """So many requests go to the engine now, of about so many tokens in all; `known`: answered from the store."""

    key: str
    requests: int
    tokens: int
    known: int


@dataclass(frozen=True)
class Answered:
    """Answers came."""

    key: str
    answers: list[Answer]


@dataclass(frozen=True)
class Finished:
    """An evaluation is done.

    Args:
        results: lm_eval's, without samples.
        flags: task -> words.
        seconds: without start.
        samples: task -> the lines of lm_eval's samples file, where the job asks for them.
    """

    key: str
    signature: str
    results: dict[str, Any]
    flags: dict[str, list[str]]
    documents: list[Document]
    seconds: float
    samples: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Failed:
    """A job failed: `reason` for people, `details` a traceback. `fatal`: the worker must not go on in this process."""

    key: str
    reason: str
    details: str
    fatal: bool = False


@dataclass(frozen=True)
class Lost:
    """A worker, or its engine, died over a job. `reason`: how, as far as it can be told."""

    key: str
    reason: str


Event = Started | Asked | Answered | Finished | Failed | Lost


class Later:
    """In place of a job: there is none now, but another sweep's may come free. Ask again in a while."""


LATER = Later()
# Gives the next job for a worker whose engine has this key (None: it has none), or None where there is no more.
NextJob = Callable[[str | None], Job | Later | None]
