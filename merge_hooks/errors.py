"""The errors of merge_hooks: one family, and each says what is wrong, where, and how to mend it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from merge_hooks.texts import seen, shortened

# Characters of a message; tables of many sources take thousands.
LONGEST = 20_000


class ForPeople(Exception):  # noqa: N818, the root of all families
    """Says what is wrong, where, and how to mend it. Shown as one message, never as a traceback."""

    # lm_eval_iberian.plugin's excepthook reads this attribute, so that it need not import this module.
    for_people = True

    def __str__(self) -> str:
        # It quotes names, keys and files of others.
        return shortened(seen(super().__str__()), LONGEST)


class MergeHooksError(ForPeople):
    """Something a user can mend."""


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Whatever a model's files break in here is said as a SourceError, with the error itself as its cause.

    transformers, mergekit and tokenizers read files that others wrote, and each breaks in its own way: with any
    exception of Python's, or with a panic of Rust, which is no `Exception`. Also a decorator.

    Args:
        what: was done with the files, e.g. "the sources cannot be compared".
    """
    try:
        yield
    except (ForPeople, MemoryError, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise SourceError(
            f"{what} ({said:.300}). Is a config.json, generation_config.json, adapter_config.json or tokenizer file of "
            "its models damaged? Compare it with the model's page, or download the model again."
        ) from error


class RecipeError(MergeHooksError):
    """The recipe itself is wrong: not there, not YAML, an unknown method, a key mergekit would ignore."""


class PreflightError(MergeHooksError):
    """The recipe reads well, but these sources do not fit together, or one of them is incomplete."""


class SourceError(MergeHooksError):
    """A checkpoint or adapter cannot be read: missing, truncated, changed on disk, or holding NaN."""


class EngineError(MergeHooksError):
    """The engine (vLLM or transformers) cannot be had, or cannot do what was asked."""


class FisherError(MergeHooksError):
    """A Fisher map, or the texts it is made from, cannot be used: damaged, or made for another checkpoint."""


class UnprovedError(EngineError):
    """The engine does not compute with the merge that was put into it, or nobody can tell: no number comes from it."""


class EngineLostError(EngineError):
    """A process of the engine has died, by no fault of the merge's: started anew, it may well go on."""


class ChangedError(EngineError):
    """Somebody else changed the weights of a server, or started it anew: what came of it meanwhile does not count."""
