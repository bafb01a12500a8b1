"""What went wrong between us and the Hub: its kind, and words that a person can act on."""

from __future__ import annotations

from enum import Enum

from merge_hooks.sources.again import CONNECTION_KINDS, chain, in_one_line, kinds, may_pass, no_way, offline, statuses

UNREACHABLE_KINDS = CONNECTION_KINDS | {"gaierror", "NetworkError", "LocalEntryNotFoundError", "OfflineModeIsEnabled"}
GONE_KINDS = {"RepositoryNotFoundError", "DatasetNotFoundError", "RemoteEntryNotFoundError"}


class Trouble(Enum):
    """Kinds of trouble, by what mends them."""

    OTHER_REVISION = "another revision in the cache"
    OFFLINE = "the network is forbidden"
    UNREACHABLE = "no way to the Hub"
    BUSY = "slow, or busy"
    GATED = "terms to accept"
    NO_REVISION = "no such revision"
    GONE = "not there"
    SCRIPT = "a loading script"
    OTHER = "something else"


def trouble(error: BaseException) -> Trouble:
    """The kind of an error of `datasets` or huggingface_hub. They wrap each other, so the whole chain is looked at."""
    names = kinds(error)
    text = " ".join(str(one) for one in chain(error)).lower()
    answered = statuses(error)
    # In this order: an offline cache that lacks a file says "not found" as well, and a gated one "cannot be accessed".
    for found, kind in (
        ("OtherRevision" in names, Trouble.OTHER_REVISION),
        ("scripts are no longer supported" in text, Trouble.SCRIPT),
        (bool(offline()), Trouble.OFFLINE),
        ("gated" in text or "GatedRepoError" in names or 403 in answered, Trouble.GATED),
        ("RevisionNotFoundError" in names or ("revision" in text and "doesn't exist" in text), Trouble.NO_REVISION),
        (may_pass(error), Trouble.BUSY),
        (bool(names & UNREACHABLE_KINDS), Trouble.UNREACHABLE),
        (bool(names & GONE_KINDS) or 404 in answered or text.startswith("404"), Trouble.GONE),
    ):
        if found:
            return kind
    return Trouble.GATED if 401 in answered else Trouble.OTHER


def explain(error: Exception, path: str, config: str, task: str) -> str:
    """What came back from the Hub for a data set, and the ways out.

    Args:
        path: its Hub id.
        config: its configuration, or "default".
        task: a task that reads it, for the command that fetches it.
    Returns:
        The reason, and below it one line for each way out: where to go, and what to type.
    """
    away = {
        "With a network": f"iberian prefetch --tasks {task} --out DIR",
        "then here": "IBERIAN_DATA=DIR HF_HUB_OFFLINE=1 lm_eval ...",
    }
    others = {
        "Your own files": f"IBERIAN_DATA=DIR, as DIR/{path}/{config}/SPLIT.jsonl",
        "Just to try": "IBERIAN_DATA=samples lm_eval ...",
    }
    return _explained(error, path, config, away, others)


def explain_of_lm_eval(error: Exception, path: str, config: str, task: str) -> str:
    """The same for one of lm_eval's own tasks, which reads the Hub or its cache, and neither a mirror nor samples."""
    away = {
        "With a network": f"lm_eval --model dummy --tasks {task} --limit 1   (fills the Hub's cache)",
        "then here": "HF_HUB_OFFLINE=1 lm_eval ...",
    }
    return _explained(error, path, config, away, {})


def _explained(error: Exception, path: str, config: str, away: dict[str, str], others: dict[str, str]) -> str:
    """The reason and the ways out: `away` where the Hub is out of reach, `others` whatever it was."""
    kind = trouble(error)
    ways = {**_ways(kind, path, away), **others}
    if kind not in (Trouble.OTHER_REVISION, Trouble.OFFLINE):
        ways = {"What came back": in_one_line(error), **ways}
    width = max(map(len, ways)) + 2
    lines = [f"  {where + ':':<{width}}{what}" for where, what in ways.items()]
    return "\n".join([f"{_reason(kind, error, path, config)}.", *lines])


def _reason(kind: Trouble, error: Exception, path: str, config: str) -> str:
    return {
        Trouble.OTHER_REVISION: str(error),
        Trouble.OFFLINE: f"{no_way()}, and it is not in the Hub's cache here",
        Trouble.UNREACHABLE: "no network here, or no way to the Hub, and it is not in the Hub's cache",
        Trouble.BUSY: "the Hub was asked again and again, and did not answer in time",
        Trouble.GATED: "it is gated: its terms are not accepted, or you are not logged in",
        Trouble.NO_REVISION: "the Hub has no such revision of it",
        Trouble.GONE: f"it is not at https://huggingface.co/datasets/{path} any more, or not as {config}",
        Trouble.SCRIPT: "it is a loading script, which `datasets` no longer runs",
        Trouble.OTHER: "the Hub's answer is of no kind that is known here",
    }[kind]


def _ways(kind: Trouble, path: str, away: dict[str, str]) -> dict[str, str]:
    """What mends this kind: where -> what to type."""
    another = f"IBERIAN_REVISIONS={path}=COMMIT"
    return {
        Trouble.OTHER_REVISION: {"To read that one": another, **away},
        Trouble.OFFLINE: away,
        Trouble.UNREACHABLE: away,
        Trouble.BUSY: away,
        Trouble.GATED: {"Accept its terms": f"https://huggingface.co/datasets/{path}", "and log in": "hf auth login"},
        Trouble.NO_REVISION: {"To read another": another},
        Trouble.GONE: {"If it is private": "hf auth login"},
    }.get(kind, {})
