"""The held-out instruction types (ifeval_multi/held_out) as tasks, on prompts of our own."""

from __future__ import annotations

from pathlib import Path

import ifeval_multi
from ifeval_multi.instructions import HELD_OUT_TYPES
from lm_eval_iberian.documents.loader import DocumentsError
from lm_eval_iberian.ifeval_task import Found, IfevalTask, from_file, read_rows


class HeldOutTask(IfevalTask):
    """As IFEval in one language; nobody has published checks, so one edition is scored."""

    editions = ("corrected",)

    def prompts(self, language: str) -> Found:
        """The language's prompts, or the file that the YAML names under `prompts`."""
        named = (self.config.dataset_kwargs or {}).get("prompts")
        own = Path(ifeval_multi.__file__).parent / "prompts" / "held_out" / f"{language}.jsonl"
        if not named and not own.is_file():
            raise DocumentsError(f"{self.config.task}: there are no held-out prompts in {language}.")
        file = self.beside(named) if named else own
        return read_rows(file, self.pack), from_file(str(file) if named else "own prompts, held-out types")

    def types(self) -> tuple[str, ...]:
        """Those of the held-out set, and what the language's pack brings."""
        return (*HELD_OUT_TYPES, *self.pack.own_types)
