"""Tokens of log-likelihood requests: each text is encoded once, many at a time, and kept for the next merge.

lm_eval encodes request by request: for each answer choice the prompt by itself, and the prompt with the choice. In a
sweep it does all of that again for each point. lm_eval still decides which tokens a request has
(`TemplateLM.loglikelihood`). This module only foresees which texts it will ask for, and a text that was not foreseen is
encoded in lm_eval's way.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from typing import Any

# The most bytes of tokens that are kept between calls. A text beyond them is encoded again.
KEPT_BYTES = 256 << 20
AT_ONCE = 256


class Encoded:
    """Texts with their tokens.

    Args:
        encode: gives the tokens of each text.
        most: bytes to keep.
    """

    def __init__(self, encode: Callable[[list[str]], list[list[int]]], most: int = KEPT_BYTES) -> None:
        self._encode, self._room = encode, most
        self._kept: dict[bytes, array[int]] = {}
        self._near: dict[str, list[int]] = {}
        self._coming: Iterator[str] = iter(())

    def expect(self, texts: Iterable[str]) -> None:
        """These texts will be asked for, in this order."""
        self._near, self._coming = {}, iter(texts)

    def get(self, text: str) -> list[int] | None:
        """The tokens of a text; None if it was not expected."""
        if text not in self._near:
            self._near = self._tokens(dict.fromkeys(islice(self._coming, AT_ONCE)))
        return self._near.get(text)

    def _tokens(self, texts: Iterable[str]) -> dict[str, list[int]]:
        keys = {text: hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest() for text in texts}
        missing = [text for text, key in keys.items() if key not in self._kept]
        fresh = dict(zip(missing, self._encode(missing), strict=True)) if missing else {}
        found = {text: fresh[text] if text in fresh else self._kept[key].tolist() for text, key in keys.items()}
        for text, tokens in fresh.items():
            kept = array("I", tokens)
            size = kept.itemsize * len(kept) + 128
            if size > self._room:
                break
            self._room -= size
            self._kept[keys[text]] = kept
        return found


class EncodesAhead:
    """Mixin before lm_eval's class of a back end."""

    @cached_property
    def _encoded_by_bos(self) -> dict[bool | None, Encoded]:
        return {}

    @property
    def _encoded(self) -> Encoded:
        """As texts are encoded now: whoever holds a model may set its `add_bos_token` at any time."""
        begins = getattr(self, "add_bos_token", None)
        if begins not in self._encoded_by_bos:
            self._encoded_by_bos[begins] = Encoded(self._encode_all)
        return self._encoded_by_bos[begins]

    def _encode_all(self, texts: list[str]) -> list[list[int]]:
        """What `tok_encode` returns for each text by itself."""
        raise NotImplementedError

    def tok_encode(self, string: Any, *args: Any, **options: Any) -> Any:
        """lm_eval's hook for encoding. The tokens that log-likelihoods need, without options, are here already."""
        if isinstance(string, str) and string and not args and not options:
            found = self._encoded.get(string)
            if found is not None:
                return found
        return super().tok_encode(string, *args, **options)  # type: ignore[misc]

    def encode_each(self, texts: Sequence[str]) -> Iterator[list[int]]:
        """The tokens of each text, in order."""
        self._encoded.expect(texts)
        for text in texts:
            found = self._encoded.get(text)
            assert found is not None  # expected
            yield found
        self._encoded.expect(())

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> Any:
        """lm_eval's log-likelihoods; see the module."""
        self._encoded.expect(_texts(requests))
        try:
            return super().loglikelihood(requests, disable_tqdm=disable_tqdm)  # type: ignore[misc]
        finally:
            self._encoded.expect(())


def _texts(requests: list[Any]) -> Iterator[str]:
    """What `TemplateLM._encode_pair` encodes for each request with a prompt: the whole text, and the prompt.

    Empty texts are left out, because lm_eval's back ends treat them differently.
    """
    for context, continuation in (request.args for request in requests):
        if context:
            yield from filter(None, (context + continuation, context.rstrip()))
