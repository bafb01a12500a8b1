"""Run folders of sweeps as the driver leaves them, without any model: plan.json and a store, with invented answers.

    figure1_run(tmp_path)     # two languages, two methods, four weights, three parents; suite tasks
    toy_run(tmp_path)         # tasks that no table knows

Results and documents agree: each score is computed from the documents' verdicts that lie in the store.
"""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lm_eval_iberian.benchmarks.benchmark import CHOICE, INSTRUCTIONS, TRANSLATION
from lm_eval_iberian.benchmarks.table import benchmarks, measured_languages
from lm_eval_iberian.runs.store import FILE, Document, Store
from tests.lm_eval_iberian.results_maker import results

# How good a point is at a task, 0 to 1.
Skill = Callable[["MadePoint", str], float]


@dataclass(frozen=True)
class MadePoint:
    """A point to write; see `lm_eval_iberian.runs.point.SweepPoint`. `state`: finished, unfinished or failed."""

    name: str
    role: str = "merge"
    labels: Mapping[str, str] = field(default_factory=dict)
    parents: tuple[str, ...] = ()
    state: str = "finished"


def write_run(
    folder: Path, name: str, axes: Mapping[str, Sequence[str]], points: Iterable[MadePoint], tasks: Sequence[str],
    skill: Skill, documents: int = 40, samples: bool = False, flags: Mapping[str, Any] | None = None,
    plain: Sequence[str] | None = None, answers: Mapping[str, Any] | None = None,
) -> Path:  # fmt: skip
    """A run folder with one evaluation for each point.

    Args:
        flags: point -> flags of its tasks.
        plain: the points that were prompted without a chat template, all others with one; None: all without.
        answers: point -> what was counted over the answers of its tasks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    store = Store(folder / FILE)
    entries = []
    for point in points:
        key = f"key of {point.name}"
        entries.append(_entry(point, key, tasks))
        if point.state == "finished":
            rows = [row for task in tasks for row in _documents(point, task, skill(point, task), documents)]
            data = _results(point, tasks, rows, documents, samples)
            if plain is not None and point.name not in plain:
                data |= {"chat_template_sha": "ab12cd34", "fewshot_as_multiturn": True}
            data["config"]["iberian"]["answers"] = (answers or {}).get(point.name, {})
            store.finish(key, point.name, data, (flags or {}).get(point.name, {}), 12.5, rows)
        elif point.state == "failed":
            store.fail(key, "PreflightError: models/other has 32 layers, models/instruct has 28.", "Traceback ...")
    store.close()
    plan = {"name": name, "axes": {axis: list(labels) for axis, labels in axes.items()}, "points": entries}
    (folder / "plan.json").write_text(json.dumps(plan, indent=1), encoding="utf-8")
    return folder


def _entry(point: MadePoint, key: str, tasks: Sequence[str]) -> dict[str, Any]:
    evaluation = {"key": key, "name": ", ".join(tasks[:3]), "tasks": list(tasks), "seed": None}
    return {
        "name": point.name, "role": point.role, "labels": dict(point.labels), "parents": list(point.parents),
        "signature": _digest(point.name), "recipe": f"merge_method: linear # {point.name}", "problem": "",
        "evaluations": [evaluation],
    }  # fmt: skip


def _digest(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}" * 2


def _results(
    point: MadePoint, tasks: Sequence[str], rows: Sequence[Document], documents: int, samples: bool
) -> dict[str, Any]:
    verdicts: dict[str, list[Any]] = {task: [] for task in tasks}
    for row in rows:
        verdicts[row.task].append(next(iter(json.loads(row.metrics).values())))
    sources = [{"name": parent, "fingerprint": _digest(parent)} for parent in point.parents or (point.name,)]
    stamp = {
        "signature": f"method:linear|sources:{'+'.join(one['name'] for one in sources)}|mergekit:0.1.5|lm_eval:0.4.13",
        "signature_short": f"method:linear|{_digest(point.name)[:8]}", "signature_digest": _digest(point.name),
        "sources": sources, "recipe_origin": f"{point.name}.yml",
    }  # fmt: skip
    data = results({task: _scores(task, found) for task, found in verdicts.items()}, documents, date=1_790_000_000.0)
    data["config"]["iberian"] = stamp
    for entry in data["configs"].values():
        entry["metadata"]["documents"] = "samples" if samples else "org/data@1234567"
    return data


def metric_of(task: str) -> str:
    """The metric under which a task's verdicts are written."""
    found = next((one.metric for one in benchmarks() if task in one.tasks), None)
    return found or ("bleu" if "translation" in task else "acc")


def _scores(task: str, verdicts: Sequence[Any]) -> dict[str, Any]:
    metric = metric_of(task)
    if metric == "bleu":
        import sacrebleu

        answers, references = [pair[1] for pair in verdicts], [pair[0] for pair in verdicts]
        return {metric: sacrebleu.corpus_bleu(answers, [references]).score, f"{metric}_stderr": 0.6}
    flat = [float(one) for verdict in verdicts for one in (verdict if isinstance(verdict, list) else [verdict])]
    mean = sum(flat) / len(flat)
    return {metric: mean, f"{metric}_stderr": (mean * (1 - mean) / max(1, len(flat) - 1)) ** 0.5}


WORDS = [
    "itsasoa",
    "handia",
    "da",
    "eta",
    "mendiak",
    "berdeak",
    "dira",
    "baina",
    "hiriak",
    "zaratatsuak",
    "izaten",
    "dira",
    "egunez",
    "ere",
]


def _documents(point: MadePoint, task: str, skill: float, count: int) -> list[Document]:
    metric = metric_of(task)
    own = random.Random(f"{point.name} {task}")
    made = []
    for number in range(count):
        shared = random.Random(f"{task} {number}")  # what is hard is hard for all
        verdict, answer, target = _verdict(metric, skill, shared, own)
        question = json.dumps({"question": f"Galdera {number} ({task}): " + " ".join(shared.sample(WORDS, 6)) + "?"})
        made.append(Document(task, number, json.dumps({metric: verdict}), answer, f"h{number}", question, target))
    return made


def _verdict(metric: str, skill: float, shared: random.Random, own: random.Random) -> tuple[Any, str, str]:
    def right() -> bool:
        return 0.7 * shared.random() + 0.3 * own.random() < skill

    if metric == "bleu":
        reference = shared.choices(WORDS, k=12)
        words = (word if right() else own.choice([*WORDS, ""]) for word in reference)
        answer = " ".join(filter(None, words))  # shorter than its reference, as answers are
        return [" ".join(reference), answer], answer, " ".join(reference)
    if metric.startswith("inst_level"):
        kept = [right() for _ in range(shared.choice((1, 2, 3)))]
        return kept, "Hona hemen **erantzuna**.\n\n* lehena\n* bigarrena <script>alert(1)</script>", ""
    good = right()
    return float(good), "0" if good else "2", "0"


def _pull(point: MadePoint, language: str) -> float:
    """How far a point has gone from the instruct model (0) towards the language model (1)."""
    if not point.labels:
        return float(language in measured_languages())
    weight = float(point.labels["weight"])
    return weight / (1 + weight)


def figure1_skill(point: MadePoint, task: str) -> float:
    """Benchmarks and translation grow with the weight of the language model, instructions fall."""
    benchmark = next(one for one in benchmarks() if task in one.tasks)
    trained = point.labels.get("language", point.name.rpartition("-")[2])
    pull = _pull(point, trained) * (1.0 if point.labels.get("method", "linear") == "linear" else 1.25)
    same = 1.0 if trained == benchmark.language else -0.25
    if benchmark.kind == INSTRUCTIONS:
        return max(0.05, 0.62 - 0.45 * pull**2)
    if benchmark.kind == TRANSLATION:
        return min(0.95, 0.55 + 0.3 * same * pull)
    return min(0.95, 0.48 + 0.16 * same * pull)


def figure1_tasks(languages: Sequence[str]) -> list[str]:
    """The suite's tasks that count in the averages of these languages."""
    kinds = (CHOICE, TRANSLATION, INSTRUCTIONS)
    return [task for one in benchmarks() if one.language in languages and one.averaged and one.kind in kinds
            for task in one.tasks]  # fmt: skip


def figure1_run(
    folder: Path, languages: Sequence[str] = ("eu", "gl"), methods: Sequence[str] = ("linear", "task_arithmetic"),
    weights: Sequence[str] = ("0.5", "1.0", "1.5", "2.0"), documents: int = 40, states: Mapping[str, str] | None = None,
    **other: Any,
) -> Path:  # fmt: skip
    """A sweep like the paper's Figure 1. `states`: point -> "unfinished" or "failed"."""
    instruct = "Llama-3.1-8B-Instruct"
    points = [MadePoint(f"Latxa-Llama-3.1-8B-{language}", "parent") for language in languages]
    points.append(MadePoint(instruct, "parent"))
    for language in languages:
        for method in methods:
            for weight in weights:
                labels = {"language": language, "method": method, "weight": weight}
                name = " ".join(f"{axis}={label}" for axis, label in labels.items())
                parents = (f"Latxa-Llama-3.1-8B-{language}", instruct)
                points.append(MadePoint(name, "merge", labels, parents, (states or {}).get(name, "finished")))
    axes = {"language": languages, "method": methods, "weight": weights}
    return write_run(folder, "figure1", axes, points, figure1_tasks(languages), figure1_skill, documents, **other)


TOY_TASKS = ("toy_choice_eu", "toy_choice_gl", "toy_translation_en-eu", "toy_translation_en-gl")


def toy_run(folder: Path, weights: Sequence[str] = ("0.0", "0.5", "1.0"), **other: Any) -> Path:
    """A sweep over tasks that no table knows, with one number and nothing else to turn."""

    def skill(point: MadePoint, task: str) -> float:
        pull = float(point.labels.get("weight", point.name == "basque"))
        return 0.35 + 0.5 * pull * (1 if task.endswith("eu") else -0.4)

    parents = ("basque", "instruct")
    points = [MadePoint(name, "parent") for name in parents]
    points += [MadePoint(f"weight={weight}", "merge", {"weight": weight}, parents) for weight in weights]
    return write_run(folder, "toy", {"weight": weights}, points, TOY_TASKS, skill, **other)
