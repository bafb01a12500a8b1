"""The class of tasks whose answers are held against one text: BLEU over all answers, ROUGE of each."""

from __future__ import annotations

from typing import Any

from lm_eval_iberian.metrics import rouge
from lm_eval_iberian.task import DocumentTask


class RougeTask(DocumentTask):
    """A task whose answers are held against one text, by BLEU over all answers and ROUGE of each.

    Its YAML names ROUGE's tokenizer, `dataset_kwargs: {tokenizer: intl}`, and says `process_results: !function
    lm_eval_iberian.rouge_task.no_results`, or lm_eval would look for ROUGE on the Hub.
    """

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **options: Any) -> None:
        """Read. Raises DocumentsError, also for a tokenizer that cannot be had."""
        own = str((dataset_kwargs or {})["tokenizer"])
        self.tokenizer = rouge.chosen(own)
        super().download(dataset_kwargs, **options)
        changed = {rouge.VARIABLE: self.tokenizer} if self.tokenizer != own else {}
        self.say(signatures=rouge.signatures(self.tokenizer) | {"bleu": _bleu_signature()}, settings=changed)

    def process_results(self, doc: dict[str, Any], results: list[str]) -> dict[str, Any]:
        """ROUGE of one answer, 0 to 1; for BLEU the two texts, which lm_eval scores together at the end."""
        reference = str(self.doc_to_target(doc))
        return {**rouge.rouge(reference, results[0], self.tokenizer), "bleu": (reference, results[0])}


def no_results(doc: dict[str, Any], results: list[str]) -> dict[str, Any]:
    """Stands in a YAML whose class has `process_results` of its own."""
    raise NotImplementedError


def _bleu_signature() -> str:
    """sacreBLEU's signature of BLEU as lm_eval calls it (lm_eval/api/metrics.py: all defaults)."""
    from sacrebleu.metrics.bleu import BLEU

    metric = BLEU()
    metric.corpus_score(["a"], [["a"]])  # the number of references is known only after a score
    return str(metric.get_signature())
