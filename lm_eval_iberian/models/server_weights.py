"""What a running vLLM server holds: the merge is put in, proved, and watched before and after each batch of answers.

Others may swap the same server, and it may die. Where it cannot be swapped, what it serves is all that is scored.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from typing import Any

from lm_eval_iberian.models.merge import Prepared, Swapping, prepare_swap, sign_model
from lm_eval_iberian.models.served import NOT_PROVED, Served, how_to_start, look, prepare_running, states_of
from lm_eval_iberian.models.server_batches import complete
from lm_eval_iberian.models.server_scoring import PLAIN
from merge_hooks.engines import vllm as vllm_loader
from merge_hooks.engines.vllm_server import RefusedError, Server, ServerAwayError, understood
from merge_hooks.engines.weights_digest import digest_of
from merge_hooks.errors import ChangedError, EngineError, UnprovedError
from merge_hooks.planning.config import dump_config
from merge_hooks.recipe.resolved import Resolved
from merge_hooks.recipe.signature import Signature, is_plain

# Below lm_eval's own logger, whose handler and level its command line sets.
LOG = logging.getLogger("lm_eval.iberian")
# How long the turn to swap is ours without a word of us (seconds).
LEASE_SECONDS = 120.0
# By how much the log-probabilities of one text may differ between two requests, in any dtype (nats).
ALIKE = 0.05


class HoldsWeights(Swapping):
    """Stands before `Counted` among the base classes; a `Holder`. The class below sets the attributes.

    Attributes:
        server, served: the server, and what it said of itself.
        proof: what the server was found to compute with.
        signature: the stamp of what is measured.
    """

    server: Server
    served: Served
    proof: vllm_loader.Proof
    signature: Signature
    max_length: int
    _name: str | None
    _owner: str
    _swaps: str
    _resident: str
    _proves: bool
    _dtype_name: str

    def _adopt(self) -> None:
        """Come to terms with the server: put the merge in, prove what is in it, or say that nobody can tell."""
        # Of each worker, where our weights are known to lie in it; empty where that is not known.
        self._states: list[dict[str, Any]] = []
        self._is_proved = True
        if self._can_swap:
            prepare_swap(prepare_running(self.served, self.prepared.resolved.trust_remote_code), self.prepared.resolved)
            self.swap_digest = self._put_in(self.prepared)
        elif self.served.holds_a_merge:
            self.swap_digest = self._recognise()
        else:
            self._take_as_it_is()

    @property
    def _can_swap(self) -> bool:
        return not self.served.why_no_swap and self._swaps != "never"

    def swap(self, resolved: Resolved) -> str:
        """See `Swapping.swap`. Where the server cannot be swapped, what it holds is all that can be asked for.

        Returns:
            The digest of its weights; "" for a server that cannot be asked.
        """
        if self._can_swap:
            return super().swap(resolved)
        prepared = prepare_swap(self.prepared, resolved)
        wanted = sign_model(prepared, self._dtype_name, self.served.engine(self._is_proved))
        if wanted.weights != self.signature.weights:
            raise EngineError(self._no_swap(prepared))
        return self.swap_digest or ""

    def _put_in(self, prepared: Prepared) -> str:
        """Swap the server. See `Swapping.swap`."""
        for is_last in (False, True):
            self.recover()
            self._states = []
            try:
                self._refuse_other_sources(prepared)
                self._take_turn()
                return self._swap_now(prepared)
            except (ServerAwayError, ChangedError):
                if is_last:
                    raise
            finally:
                self.release()
        raise AssertionError("the last time returns or raises")

    def _swap_now(self, prepared: Prepared) -> str:
        """Swap, in our turn."""
        try:
            with understood(self.served.url), self.server.paused():
                if others := self._others(LEASE_SECONDS):  # requests under way may have been waited for longer
                    raise ChangedError(f"{self.served.url}: it is {others[0]}'s turn to swap it meanwhile.")
                proof = vllm_loader.swap(self.server, prepared.resolved, self._resident, self._proves)
        except UnprovedError as error:
            raise UnprovedError(
                f"{self.served.url}: this server cannot be shown to compute with {prepared.resolved.recipe.origin} after a "
                f"swap, and nothing is scored: {error} Start the server anew, and score this merge with backend=vllm."
            ) from error
        states = states_of(self.server)
        if {state["digest"] for state in states} != {proof.digest}:
            raise ChangedError(f"{self.served.url}: somebody else swapped this server at the same time.")
        self.proof, self._states = proof, states
        return proof.digest

    def _recognise(self) -> str:
        """The digest of what is in the server, if it is this recipe. Merges it here, to know."""
        with understood(self.served.url):
            proof = vllm_loader.prove(self.server, self._proves)
        wanted = digest_of(iter(self.prepared.stream))
        if proof.digest != wanted:
            raise EngineError(
                f"{self.served.url}: the server holds other weights (digest {proof.digest or 'unknown'}) than "
                f"{self.prepared.resolved.recipe.origin} ({wanted}). Without swap=never they are put in, if "
                f"the server can be swapped. {how_to_start(self.served)}"
            )
        if proof.unproved:
            raise UnprovedError(f"{self.served.url}: {proof.in_words}")
        self.proof, self._states = proof, states_of(self.server)
        return wanted

    def _take_as_it_is(self) -> None:
        """Score what the server serves, under its own name and marked; refuse any other."""
        resolved = self.prepared.resolved
        if not is_plain(resolved, dump_config(resolved.config)) or not self._serves(str(resolved.donor.folder)):
            raise EngineError(self._no_swap(self.prepared))
        self._is_proved, self.proof = False, vllm_loader.Proof("", (NOT_PROVED,))
        self._canary = self._sing()
        LOG.warning("merged: %s serves %s; not proved: %s", self.served.url, self.served.root, NOT_PROVED)

    def _serves(self, folder: str) -> bool:
        """Whether the server says that it was started with the model in this folder."""
        donor, root = self.prepared.resolved.donor, self.served.root
        return donor.name == root or os.path.realpath(root) == os.path.realpath(folder)

    def _no_swap(self, prepared: Prepared) -> str:
        why = self.served.why_no_swap or "swap=never was said"
        return (
            f"{self.served.url}: the server serves {self.served.root}, and {prepared.resolved.recipe.origin} cannot be put "
            f"in, because {why}. {how_to_start(self.served)} Or score what it serves: pretrained={self.served.root}."
        )

    def _refuse_other_sources(self, prepared: Prepared) -> None:
        """The server reads the sources from its own disk: they must be the same files."""
        theirs: dict[str, str] = {}
        with understood(self.served.url):
            for answer in self.server.collective_rpc("merge_prints", args=(prepared.resolved.payload(),)):
                if answer.get("error"):
                    error = vllm_loader.error_of(*answer["error"])
                    raise type(error)(f"on the machine of {self.served.url}: {error}")
                theirs |= answer["prints"]
        other = [path for path, found in prepared.resolved.prints.items() if theirs.get(path) != found]
        if other:
            raise EngineError(
                f"{self.served.url}: on its machine {other[0]} holds other files than here. Both must see the same sources, "
                "under the same paths."
            )

    def _refuse_other_dtype(self) -> None:
        dtype, wanted = self.served.dtype, self.prepared.dtype
        if dtype is not None and wanted not in ("auto", dtype):
            raise EngineError(
                f"{self.served.url}: the server computes in {dtype}, wanted is {wanted}. Start it with --dtype {wanted}, or "
                f"give dtype={dtype}, which scores the merge as rounded to it."
            )

    # Before and after each batch: `server_batches.Holder`

    def hold(self) -> None:
        """See `Holder`."""
        if not self._is_proved:
            return
        if not self._can_swap:
            self.check()
            return
        try:
            self._take_turn()
        except RefusedError:
            self._refuse_another()
            raise
        if states_of(self.server) != self._states:
            self._refuse_another()  # it may have been started anew
            LOG.warning("merged: somebody changed the weights of %s; they are put in again", self.served.url)
            before = self.swap_digest
            if self._swap_now(self.prepared) != before:
                raise EngineError(
                    f"{self.served.url}: the same recipe gave other weights. Do the sources' files change?"
                )

    def renew(self) -> None:
        """See `Holder`."""
        self._lease(LEASE_SECONDS)

    def release(self) -> None:
        """See `Holder`. A server that is away, or is another one now, has forgotten whose turn it was."""
        with suppress(ServerAwayError, RefusedError):
            self._lease(0.0)

    def _lease(self, seconds: float) -> None:
        if self._is_proved and self._can_swap:
            self._others(seconds)

    def _others(self, seconds: float) -> list[str]:
        """Ask for the turn to swap, for so long. Returns who else has it; empty if it is ours."""
        with understood(self.served.url):
            answers = self.server.collective_rpc("merge_lease", args=(self._owner, seconds))
            return [str(answer["owner"]) for answer in answers if answer["owner"] != self._owner]

    def check(self) -> None:
        """See `Holder`."""
        if not self._is_proved:
            self._refuse_other_load(self._refuse_another())
            self._refuse_other_canary()
            return
        if states_of(self.server) != self._states:
            raise ChangedError(f"{self.served.url}: somebody else changed the server's weights meanwhile.")
        try:
            with understood(self.served.url):
                found = vllm_loader.prove(self.server, self._proves)
        except UnprovedError as error:
            self._states = []  # loaded by other means than ours: `hold` puts them in again
            raise ChangedError(
                f"{self.served.url}: somebody else changed the server's weights meanwhile: {error}"
            ) from error
        if found.digest != self.swap_digest:
            raise ChangedError(f"{self.served.url}: somebody else changed the server's weights meanwhile.")

    def recover(self) -> None:
        """See `Holder`."""
        self.server.wait()
        self._refuse_another()
        if self._is_proved and not self._can_swap:
            self._recognise()

    def _refuse_another(self) -> Served:
        """What the server is. Raises EngineError if it is not what it was at the start of this run, weights aside."""
        found = look(self.server, self._name)
        before, now = self.served.facts, found.facts
        other = [what for what in before if now[what] != before[what]]
        if other:
            raise EngineError(
                f"{self.served.url}: the server came back as another one: {other[0]} is {now[other[0]]!r:.300}, before "
                f"{before[other[0]]!r:.300}. Start it as it was, or this run anew."
            )
        return found

    def _refuse_other_load(self, now: Served) -> None:
        """A server that is not proved, but whose workers say which load is in them: another may have come and gone."""
        if now.holds_a_merge:
            raise EngineError(
                f"{self.served.url}: somebody else put a merge into the server, which was scored as it was started. The last "
                "answers were dropped. Start this again."
            )
        if now.states != self.served.states:
            self.served = now
            raise ChangedError(f"{self.served.url}: the server was started anew meanwhile.")

    def _take_turn(self) -> None:
        """Wait until nobody else swaps the server, and say that it is our turn. Raises EngineError after `patience`."""
        waited = 0.0
        while True:
            others = self._others(LEASE_SECONDS)
            if not others:
                self.server.resume()  # who was killed over a swap has left it paused
                return
            if waited >= self.server.patience:
                raise EngineError(f"{self.served.url}: {others[0]} is using this server. Wait, or use another.")
            LOG.info("merged: %s is using %s; waiting", others[0], self.served.url)
            self.server.pause(5.0)
            waited += 5.0

    def _sing(self) -> list[float]:
        """The log-probabilities of a text, computed anew: other weights give others."""
        tokens = self.tokenizer("Kaixo, zer moduz? Bon dia. Hola, ¿qué tal? Bo día.")["input_ids"][
            : self.max_length - 1
        ]
        body = {**PLAIN, "model": self.served.name, "prompt": tokens, "max_tokens": 1, "prompt_logprobs": 1}
        with understood(self.served.url):
            rows = complete(self.server, body)["choices"][0]["prompt_logprobs"]
            return [float(row[str(token)]["logprob"]) for token, row in zip(tokens[1:], rows[1:], strict=True)]

    def _refuse_other_canary(self) -> None:
        now = self._sing()
        if len(now) != len(self._canary) or max(map(abs, map(float.__sub__, now, self._canary))) > ALIKE:
            raise EngineError(
                f"{self.served.url}: the server answers otherwise than at the start of this run: somebody changed its "
                "weights. The last answers were dropped. Start this again."
            )
