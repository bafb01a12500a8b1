"""One vLLM engine, asked by our code and by lm_eval's own: prints what test_vllm_answers.py compares, as JSON.

python -m tests.lm_eval_iberian.vllm_answers CHECKPOINT
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

CONTEXT = "Galdera: zein da Euskal Herriko hiriburua? " * 4
CHOICES = (" A", " B", " Gasteiz dela uste dut nik", " Gasteiz dela uste dute haiek, baina ez dakit", " ")


class Recorder:
    """Stands where lm_eval's cache hook stands. Sends Ctrl-C to this very process once it has `stop_at` answers."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.answers: list[tuple[str, Any, Any]] = []
        self.stop_at = stop_at

    def add_partial(self, kind: str, arguments: Any, answer: Any) -> None:
        self.answers.append((kind, arguments, answer))
        if len(self.answers) == self.stop_at:
            os.kill(os.getpid(), signal.SIGINT)


def main() -> None:
    from lm_eval.api.instance import Instance

    from lm_eval_iberian.models.vllm import VLLM, MergedVLLM

    model = MergedVLLM(pretrained=sys.argv[1], dtype="float32", max_model_len=512, max_num_seqs=8)
    pairs = [(f"{CONTEXT}{number}", choice) for number in range(6) for choice in CHOICES] + [("", "Kaixo, zer moduz?")]
    scored = [Instance("loglikelihood", {}, pair, index) for index, pair in enumerate(pairs)]
    rolling = [Instance("loglikelihood_rolling", {}, (CONTEXT * 12,), 0)]
    settings = [{"until": ["\n", " a"], "max_gen_toks": 5 + number % 9, "do_sample": False} for number in range(80)]
    written = [Instance("generate_until", {}, (f"{CONTEXT}{n}", setting), n) for n, setting in enumerate(settings)]
    encoded = [(pair, *model._encode_pair(*pair)) for pair in pairs if pair[0]]
    found: dict[str, Any] = {
        "ours": model.loglikelihood(scored, disable_tqdm=True),
        "again": model.loglikelihood(scored, disable_tqdm=True),
        "rolling": model.loglikelihood_rolling(rolling, disable_tqdm=True),
        "texts": model.generate_until(written[:16], disable_tqdm=True),
        "their_texts": VLLM.generate_until(model, written[:16], disable_tqdm=True),
        "theirs": VLLM._loglikelihood_tokens(model, encoded, disable_tqdm=True),
    }
    model._scoring = "prompt_logprobs"
    found["whole"] = model.loglikelihood(scored, disable_tqdm=True)
    found["whole_rolling"] = model.loglikelihood_rolling(rolling, disable_tqdm=True)
    model._scoring = "prefix"
    found["interrupted"] = interrupted(model, written)
    found["reset"] = model.model.reset_prefix_cache()
    found["after"] = model.loglikelihood(scored, disable_tqdm=True)
    found["texts_after"] = model.generate_until(written, disable_tqdm=True)
    print("RESULT" + json.dumps(found))


def interrupted(model: Any, requests: list[Any]) -> list[tuple[int, str]]:
    """(place, text) of the answers that had reached the cache hook when Ctrl-C came."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background inherit that it is ignored
    recorder = Recorder(stop_at=5)
    model.set_cache_hook(recorder)
    try:
        model.generate_until(requests, disable_tqdm=True)
    except KeyboardInterrupt:
        model.set_cache_hook(Recorder())
        places = {json.dumps(request.args): place for place, request in enumerate(requests)}
        return [(places[json.dumps(arguments)], text) for _, arguments, text in recorder.answers]
    raise AssertionError("Ctrl-C was not heard")


if __name__ == "__main__":
    main()
