"""Generation on vLLM: all requests of all tasks in one queue, the longest first, each answer passed on when complete.

Requests, and what is made of the answers, are those of lm_eval's `VLLM.generate_until` (stop strings, token limits,
truncation, thinking removed, texts cut at stop strings). That function waits for the last answer before it passes on
the first one. It also sorts by the prompt alone, so a long answer may start when everything else is done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lm_eval_iberian.models.counts import Cut
from lm_eval_iberian.models.queue import Request, run_queue


@dataclass(frozen=True)
class Job:
    """One request for text.

    Args:
        place: its index in lm_eval's list.
        arguments: lm_eval's own (context, generation settings): the key of its cache.
        request: what vLLM is asked.
        until: where the text is cut.
    """

    place: int
    arguments: tuple[str, dict[str, Any]]
    request: Request
    until: list[str]

    @property
    def length(self) -> int:
        """The most tokens that prompt and answer can have."""
        return len(self.request.tokens) + int(self.request.params.max_tokens)


def generate(model: Any, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
    """The text for each of lm_eval's `generate_until` requests, in their order; `Cut` if the token limit cut it.

    Args:
        model: a `MergedVLLM`.
        requests: lm_eval's instances, with `args` = (context, generation settings).
    """
    from lm_eval.models.utils import postprocess_generated_text
    from tqdm import tqdm

    jobs = sorted(_jobs(model, [request.args for request in requests]), key=lambda job: -job.length)
    texts = [""] * len(jobs)
    quiet = disable_tqdm or model.rank != 0
    with tqdm(total=len(jobs), disable=quiet, desc="Running generate_until requests") as progress:

        def take(index: int, output: Any) -> None:
            job, said = jobs[index], output.outputs[0]
            text = postprocess_generated_text(said.text, job.until, model.think_end_token)
            texts[job.place] = Cut(text) if said.finish_reason == "length" else text
            # Under the key that lm_eval's cache is asked for later; its own VLLM adds another, which nobody asks for.
            model.cache_hook.add_partial("generate_until", job.arguments, texts[job.place])
            progress.update(1)

        run_queue(model.model, (job.request for job in jobs), take, model.lora_request)
    return texts


def _jobs(model: Any, arguments: Sequence[tuple[str, dict[str, Any]]]) -> list[Job]:
    prompts = model.encode_each([context for context, _ in arguments])
    # ChatGLM's end-of-text id decodes to nothing, its name does not.
    end = model.tokenizer.decode(model.eot_token_id) or model.tokenizer.eos_token
    return [
        _job(model, place, args, tokens, end)
        for place, (args, tokens) in enumerate(zip(arguments, prompts, strict=True))
    ]


def _job(model: Any, place: int, arguments: tuple[str, dict[str, Any]], tokens: list[int], end: str) -> Job:
    from lm_eval.models.utils import maybe_truncate
    from vllm import SamplingParams

    settings, until, limit = model.modify_gen_kwargs(arguments[1], eos=end, default_max_gen_toks=model.max_gen_toks)
    tokens, limit = maybe_truncate(
        tokens,
        max_gen_toks=limit,
        max_model_len=model.max_length,
        side=model.truncation_side,
        verbose=False,  # a line for each request; `Counted` has one for all
    )
    # A task's stop strings may well stand in what a model thinks; they are applied to what comes after.
    stop = [text for text in until if text == end] if model.think_end_token else until
    return Job(place, arguments, Request(tokens, SamplingParams(max_tokens=limit, stop=stop, **settings)), until)
