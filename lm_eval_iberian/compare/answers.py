"""Which answers to show side by side: for each task the documents on which the models differ most.

Answers are untrusted text: nothing here interprets them, and the page escapes them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from lm_eval_iberian.compare.columns import Column, Scores
from lm_eval_iberian.runs.point import SweepPoint

DOCUMENTS = 2  # of each benchmark
MODELS = 6
# The metric of which there are reasons: ifeval_multi's corrected edition, read strictly.
STRICT = "inst_level_strict_acc"
CODE = re.compile("[a-z]{2,3}")
BENCHMARKS = 24
# Keys of documents that say the question, in the order of preference.
QUESTIONS = ("prompt", "question", "query", "input", "text", "sentence", "context", "passage")


# Fields that hold a choice each: mc_answer1, option2, choice_3.
CHOICE = re.compile(r"\D*(answer|option|choice)_?\d")


@dataclass(frozen=True)
class Reason:
    """Why one instruction counts as followed or not: "found 3 bullets, exactly 5 asked"."""

    instruction: str
    followed: bool
    said: str


@dataclass(frozen=True)
class Shown:
    """One answer. `verdict`: the metric in words, e.g. "acc 1"; `reasons`: of each instruction, where there are any."""

    point: str
    role: str
    answer: str
    verdict: str
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True)
class Example:
    """One document with the answers of several models.

    Args:
        document: its fields as texts.
        prompts: what the models were asked, with shots and chat template -> the points that were asked so.
    """

    task: str
    number: int
    document: Mapping[str, str]
    target: str
    answers: tuple[Shown, ...]
    prompts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def examples(scores: Scores) -> list[Example]:
    """The documents to show, in the order of the columns."""
    found = []
    shown = [(column, benchmark) for column in scores.columns for benchmark in column.benchmarks][:BENCHMARKS]
    for column, benchmark in shown:
        task = next((one for one in (*benchmark.tasks, *benchmark.upstream) if one in scores.run.tasks), None)
        if task is not None:
            found += _of_task(scores, column, task, benchmark.metric)
    return found


def models(scores: Scores, column: Column) -> list[SweepPoint]:
    """Whose answers are shown: the parents of the best merge, the best merges of this column, and the worst."""

    def value(point: SweepPoint) -> float:
        found = scores.score(point, column).value
        return float("-inf") if found is None else found

    best = sorted(scores.merges, key=value, reverse=True)
    names = {name for merge in best[:1] for name in merge.parents}
    parents = [point for point in scores.points if point.name in names][: MODELS - 2]
    room = MODELS - len(parents)
    return [*parents, *(best if len(best) <= room else [*best[: room - 1], best[-1]])]


def _of_task(scores: Scores, column: Column, task: str, metric: str) -> list[Example]:
    chosen = [point for point in models(scores, column) if task in point.tasks]
    answers = {point.name: point.answers(task) for point in chosen}
    measured = {point.name: point.documents(task) for point in chosen}
    documents = _read_by_all(chosen, task)
    by_variety = sorted(documents, key=lambda number: (-_variety(measured, number, metric), number))
    made = []
    for number in sorted(by_variety[:DOCUMENTS]):
        document, target = chosen[0].text(task, number) or ({}, "")
        if metric.startswith(("inst_level", "prompt_level")):
            target = ""  # instructions have no right answer; lm_eval asks for something all the same
        said = partial(choice, document) if _is_choice(chosen, task) else str
        shown = tuple(_shown(point, document, answers[point.name][number][0], said,
                             measured[point.name].get(number), metric) for point in chosen)  # fmt: skip
        made.append(Example(task, number, _fields(document), said(target), shown, _prompts(chosen, task, number)))
    return made


def _shown(
    point: SweepPoint, document: Mapping[str, Any], answer: str, said: Callable[[str], str],
    runs: Sequence[Mapping[str, Any]] | None, metric: str,
) -> Shown:  # fmt: skip
    verdict = _verdict(runs, metric)
    return Shown(point.name, point.role, said(answer), verdict, reasons(document, answer, runs, metric))


def _prompts(points: Sequence[SweepPoint], task: str, number: int) -> dict[str, tuple[str, ...]]:
    """What was asked -> who was asked so; points whose store does not know it are left out."""
    asked: dict[str, tuple[str, ...]] = {}
    for point in points:
        if prompt := point.prompt(task, number):
            asked[prompt] = (*asked.get(prompt, ()), point.name)
    return asked


def reasons(
    document: Mapping[str, Any], answer: str, runs: Sequence[Mapping[str, Any]] | None, metric: str
) -> tuple[Reason, ...]:
    """The reason of each verdict on an instruction, from a judgement made anew.

    None where that is not possible (the document is not one of ifeval_multi's, its pack is not here), or where the
    verdicts are not those that were measured: a reason must not stand beside another verdict.
    """
    from ifeval_multi.errors import PackError
    from ifeval_multi.evaluate import evaluate_response

    measured = runs[0].get(metric) if runs else None
    if metric != STRICT or not isinstance(measured, list):
        return ()
    try:
        row, language = json.loads(document["row"]), str(document["language"])
        if not isinstance(row, dict) or not CODE.fullmatch(
            language
        ):  # a pack in a file may bring code: not from a store
            return ()
        found = [
            evaluate_response(row, answer, language, include_response_language=counted) for counted in (False, True)
        ]
    except (KeyError, TypeError, ValueError, PackError):
        return ()
    same = next((one for one in found if one["strict"] == measured), None)
    if same is None:
        return ()
    return tuple(map(Reason, same["instruction_ids"], same["strict"], same["reasons"]))


def _read_by_all(points: Sequence[SweepPoint], task: str) -> list[int]:
    """The documents that said the same to all: answers to different ones do not stand side by side."""
    return sorted(dict(set.intersection(*(set(point.hashes(task).items()) for point in points)))) if points else []


def _is_choice(points: Sequence[SweepPoint], task: str) -> bool:
    """Whether answers are numbers of choices."""
    configs = [result["configs"].get(task) or {} for point in points for result in point.results]
    return any(config.get("output_type") == "multiple_choice" for config in configs)


def choice(document: Mapping[str, Any], answer: str) -> str:
    """A choice by what it says, where the document has its choices as a list, or as fields that end in numbers."""
    if not answer.isascii() or not answer.isdecimal() or len(answer) > 3:
        return answer
    number = int(answer)
    lists = [value for value in document.values() if isinstance(value, list) and len(value) > number]
    found = [value[number] for value in lists if all(isinstance(one, str) for one in value)]
    found += [
        value for key, value in document.items() if CHOICE.fullmatch(str(key)) and str(key).endswith(str(number + 1))
    ]
    return f"{number + 1}. {found[0]}" if found else f"choice {number + 1}"


def _variety(measured: Mapping[str, Mapping[int, Sequence[Mapping[str, Any]]]], number: int, metric: str) -> int:
    """On how many different verdicts the models are divided."""
    return len({json.dumps(found.get(number, [{}])[0].get(metric), sort_keys=True) for found in measured.values()})


def _verdict(runs: Sequence[Mapping[str, Any]] | None, metric: str) -> str:
    value = runs[0].get(metric) if runs else None
    if isinstance(value, (bool, int, float)):
        return {1.0: "right", 0.0: "wrong"}.get(float(value), f"{metric} {value:g}")
    if isinstance(value, list) and value and all(isinstance(one, bool) for one in value):
        return f"{sum(value)} of {len(value)} instructions followed"
    if isinstance(value, list) and len(value) == 2 and all(isinstance(one, str) for one in value):
        from sacrebleu import sentence_chrf

        return f"chrF of this sentence {sentence_chrf(value[1], [value[0]]).score:.1f}"
    return ""


def _fields(document: Mapping[str, Any]) -> dict[str, str]:
    """A document's fields as texts, the question first."""
    keys = [key for key in QUESTIONS if key in document]
    keys += [
        key for key in document if key not in (*keys, "row") and isinstance(document[key], (str, list, int, float))
    ]
    return {str(key): document[key] if isinstance(document[key], str) else json.dumps(document[key], ensure_ascii=False)
            for key in keys}  # fmt: skip
