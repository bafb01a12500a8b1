"""Conversations of several turns (ifeval_multi/conversations.py) as a task: the model's own answers are the history.

lm_eval 0.4.13 knows no task of several turns: `evaluate` asks a model once for all requests of a kind. But the method
that it hands to `build_all_requests` for the chat template is the model's own, so the model is at hand while requests
are built. The first turns are asked there, all conversations of a turn in one call, and the last turn is an ordinary
request. So one command does it, with every model of lm_eval that has a chat template, `merged` among them. Each turn
is one more pass over as many prompts, which hold the earlier answers: three turns take a little over three times what
as many single prompts take, and no second start of the engine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ifeval_multi
from ifeval_multi import conversations, lm_eval_support
from ifeval_multi.conversations import Conversation
from ifeval_multi.evaluate import strip_reasoning
from lm_eval_iberian.documents.loader import Documents, DocumentsError
from lm_eval_iberian.task import DocumentTask


class ConversationTask(DocumentTask):
    """Conversations in one language, named in the YAML under `dataset_kwargs: {language: eu}`."""

    # Requests are made of a model's answers, so they are never those of another model: see sweep/kept_tasks.py.
    asks_while_building = True

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **_: Any) -> None:
        """Read the conversations. Raises DocumentsError where there are none in the language."""
        from datasets import Dataset

        self.language = str((dataset_kwargs or {})["language"])
        file = conversations.shipped(self.language)
        if not file.is_file():
            raise DocumentsError(f"{self.config.task}: there are no conversations in {self.language}.")
        pack = ifeval_multi.load_pack(self.language)
        self.conversations = {str(one.key): one for one in conversations.read(file, pack)}
        self.answers: dict[str, list[str]] = {}
        lines = file.read_text(encoding="utf-8").splitlines()
        rows = [{"key": key, "prompt": one.turns[0].prompt, "row": line}
                for (key, one), line in zip(self.conversations.items(), lines, strict=True)]  # fmt: skip
        read = Documents(test=Dataset.from_list(rows))
        self.dataset = read
        self.say_read(read, f"own conversations, {len(rows)} of {self.turns} turns")
        self.say(settings={"packages": lm_eval_support.packages()})

    @property
    def turns(self) -> int:
        """How many turns the longest conversation has."""
        return max(len(one.turns) for one in self.conversations.values())

    def build_all_requests(
        self, *, chat_template: Callable[..., str] | None = None, system_instruction: str | None = None, **options: Any
    ) -> None:
        """Ask the model all turns but the last, and make the requests of the last.

        Raises:
            DocumentsError: there is no chat template, and so nothing that makes a conversation of turns.
        """
        model = getattr(chat_template, "__self__", None)
        if chat_template is None or not hasattr(model, "generate_until"):
            raise DocumentsError(
                f"{self.config.task}: a conversation is held in the model's chat template. Give --apply_chat_template."
            )
        fresh = {**options, "cache_requests": False}  # kept requests would hold another model's answers
        super().build_all_requests(chat_template=chat_template, system_instruction=system_instruction, **fresh)
        self.answers = {str(instance.doc["key"]): [] for instance in self.instances}
        for turn in range(1, self.turns):
            go_on = {number for number, one in enumerate(self.instances) if len(self._of(one.doc).turns) > turn}
            asked = [self.instances[number] for number in sorted(go_on)]
            for instance, answer in zip(asked, model.generate_until(asked), strict=True):
                self.answers[str(instance.doc["key"])].append(str(answer))
            self._instances = [
                self._next(one, turn, system_instruction, chat_template) if number in go_on else one
                for number, one in enumerate(self.instances)
            ]

    def _of(self, doc: dict[str, Any]) -> Conversation:
        return self.conversations[str(doc["key"])]

    def _next(self, before: Any, turn: int, system: str | None, chat_template: Callable[..., str]) -> Any:
        """The request of a turn (counted from 0), after the model's answers to those before; reasoning is left out."""
        messages = [{"role": "system", "content": system}] if system else []
        said = self.answers[str(before.doc["key"])]
        for number, one in enumerate(self._of(before.doc).turns[: turn + 1]):
            messages.append({"role": "user", "content": one.prompt})
            if number < turn:
                messages.append({"role": "assistant", "content": strip_reasoning(said[number])})
        return self.construct_requests(
            doc=before.doc,
            ctx=chat_template(messages),
            metadata=(before.task_name, before.doc_id, before.repeats),
            apply_chat_template=True,
            chat_template=chat_template,
        )

    def process_results(self, doc: dict[str, Any], results: list[str]) -> dict[str, Any]:
        """The metrics of one conversation: the answers of its first turns, and lm_eval's to the last."""
        answers = [*self.answers[str(doc["key"])], results[0]]
        return conversations.evaluate(self._of(doc), answers, self.language)

    def aggregation(self) -> dict[str, Callable[..., Any]]:
        """How each metric is averaged: lists over everything in them."""
        from lm_eval.api.registry import get_aggregation

        single = (conversations.CONVERSATION, conversations.UNFINISHED)
        mean = get_aggregation("mean")
        return {name: mean if name in single else lm_eval_support.mean_of_lists for name in self._names()}

    def higher_is_better(self) -> dict[str, bool]:
        """More is better, but for answers that were cut while still reasoning."""
        return {name: name != conversations.UNFINISHED for name in self._names()}

    def _names(self) -> list[str]:
        return conversations.metric_names(self.turns)
