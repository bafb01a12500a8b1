"""What a benchmark is; the kinds of benchmarks; which of them the paper averages, frozen by name.

Source: "Merge and Conquer" (LREC 2026), section 4, and its authors' evaluation scripts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

CHOICE, TRANSLATION, INSTRUCTIONS, PAIRS = "bench", "mt", "ifeval", "blimp"
SUMMARIES, LABELS = "summaries", "labels"
TRUTH, ELEMENTARY = "truth", "elementary"
# The toy tasks (tasks/toy) have kinds of their own, so that no average of a benchmark can hold one.
TOY_CHOICE, TOY_TRANSLATION, TOY_INSTRUCTIONS = "toybench", "toymt", "toyifeval"
TOYS = (TOY_CHOICE, TOY_TRANSLATION, TOY_INSTRUCTIONS)
# The average of a language over what the paper counts and what says `average: all`.
ALL = "all"


@dataclass(frozen=True)
class Kind:
    """What benchmarks of one sort share; also how an average is called.

    Args:
        title: of a table.
        short: of a column, a panel.
        unit: of its figures.
        word: as manifests name it.
        metric: that is read where a manifest names none.
        chance: what guessing scores, in percent; None where each manifest must say it.
    """

    title: str
    short: str
    unit: str
    word: str = ""
    metric: str = "acc"
    chance: float | None = None


KINDS = {
    CHOICE: Kind("Benchmark average (accuracy)", "Benchmarks", "accuracy, %", "choice"),
    TRANSLATION: Kind(
        "Machine translation (FLORES devtest, BLEU)", "Translation", "BLEU", "translation", "bleu", 0.0
    ),
    INSTRUCTIONS: Kind(
        "Instruction following (IFEval, strict, instruction level)", "Instructions", "strict, %", "instructions",
        "inst_level_strict_acc", 0.0,
    ),
    PAIRS: Kind("Minimal pairs (MultiBLiMP, accuracy)", "Minimal pairs", "accuracy, %", "pairs"),
    SUMMARIES: Kind("Summaries (ROUGE-L)", "Summaries", "ROUGE-L, %", "summaries", "rougeL", 0.0),
    LABELS: Kind("Labels (macro F1)", "Labels", "macro F1, %", "labels", "macro_f1"),
    TRUTH: Kind("Truthfulness (MC1)", "Truthfulness", "MC1, %", "truthfulness", "mc1"),
    ELEMENTARY: Kind("Elementary tasks (accuracy)", "Elementary tasks", "accuracy, %", "elementary", "acc", 0.0),
    TOY_CHOICE: Kind(
        "TOYS, not the benchmarks: pairs, stories and questions of the toy world (accuracy)",
        "TOY multiple choice", "accuracy, %", "toy choice",
    ),
    TOY_TRANSLATION: Kind(
        "TOYS, not FLORES: translation in the toy world (BLEU)", "TOY translation", "BLEU", "toy translation", "bleu",
        0.0,
    ),
    TOY_INSTRUCTIONS: Kind(
        "TOYS, not IFEval's prompts: instruction following in the toy world (strict, instruction level)",
        "TOY instructions", "strict, %", "toy instructions", "inst_level_strict_acc", 0.0,
    ),
}  # fmt: skip
# Metrics whose full score is 100; all others are shares of 1.
OF_HUNDRED = ("bleu", "chrf", "ter")
# ... and those of lm_eval 0.4.13's tasks beside them: TruthfulQA's and NorSumm's.
IN_PERCENT = frozenset((
    "chrf++", *(f"{metric}_{of}" for metric in ("bleu", "rouge1", "rouge2", "rougeL") for of in ("max", "avg", "diff")),
))  # fmt: skip
# Metrics that are shares of 1 for sure, whatever their values.
SHARES = frozenset((
    "acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match", "em", "f1", "macro_f1", "mcc", "pass@1", "pass_at_1",
    "prompt_level_strict_acc", "prompt_level_loose_acc", "inst_level_strict_acc", "inst_level_loose_acc",
    "mc1", "mc2", "mc3", "bleu_acc", "rouge1_acc", "rouge2_acc", "rougeL_acc",
))  # fmt: skip
# Tasks of lm_eval 0.4.13 that write metrics on another scale than their names say: task -> metrics (None: all but
# accuracies) and their full score. SQuAD 2 and SCROLLS write f1, em and ROUGE in percent, the medical ones BLEU as a share.
OWN_SCALES: tuple[tuple[re.Pattern[str], frozenset[str] | None, float], ...] = (
    (re.compile(r"squadv2|scrolls_\w+"), None, 100.0),
    (re.compile(r"meqsum|mediqa_qa2019|mimic_repsum|mts_dialog|olaph"), frozenset(("bleu",)), 1.0),
)

# What the paper averages: frozen, whatever manifests say. Also the order of columns and notes.
PAPER = (
    *((f"{CHOICE}_{language}", ("Belebele", "XStoryCloze")) for language in ("eu", "gl", "ca", "es", "en")),
    (f"{CHOICE}_eu", ("EusReading", "EusProficiency", "BertaQA", "EusTrivia", "EusExams")),
    (f"{CHOICE}_gl", ("GalCoLA", "OpenBookQA", "Parafrases")),
    (f"{CHOICE}_ca", ("CatCoLA", "OpenBookQA")),
    (f"{CHOICE}_es", ("EsCoLA", "OpenBookQA")),
    (f"{TRANSLATION}_eu", ("es-eu", "en-eu")),
    (f"{TRANSLATION}_gl", ("es-gl", "en-gl")),
    (f"{TRANSLATION}_ca", ("es-ca", "en-ca")),
    (f"{TRANSLATION}_es", ("eu-es", "gl-es", "ca-es", "en-es")),
    (f"{TRANSLATION}_en", ("eu-en", "gl-en", "ca-en", "es-en")),
    *((f"{INSTRUCTIONS}_{language}", ("IFEval",)) for language in ("eu", "gl", "ca", "es")),
)
# Beside the averages: the paper's text counts two English benchmarks, and no Spanish exams; its scripts list more.
BESIDE = ((f"{CHOICE}_es", ("EusExams",)), (f"{CHOICE}_en", ("BertaQA", "OpenBookQA", "CoLA")))
COUNTED = frozenset((column, name) for column, names in PAPER for name in names)
PLACES = {
    place: number
    for number, place in enumerate((column, name) for column, names in (*PAPER, *BESIDE) for name in names)
}
PAPER_COLUMNS = tuple(dict.fromkeys(column for column, _ in PAPER))
_DIRECTION = re.compile("[a-z]{2,3}-[a-z]{2,3}")
PAPER_LANGUAGES = tuple(dict.fromkeys(column.rpartition("_")[2] for column in PAPER_COLUMNS))


def own_scale(task: str, metric: str) -> float | None:
    """The full score of a metric that a task of lm_eval writes on a scale of its own (OWN_SCALES), or None."""
    name = metric.partition(",")[0]
    return next((full for tasks, metrics, full in OWN_SCALES if tasks.fullmatch(task)
                 and (not name.startswith("acc") if metrics is None else name in metrics)), None)  # fmt: skip


def known_scale(task: str, metric: str) -> float | None:
    """The full score of a metric, by its task (`own_scale`) or its name, or None. Not by values: the scale must not change
    from one point to the next."""
    name = metric.partition(",")[0]
    if own := own_scale(task, metric):
        return own
    return 100.0 if name in OF_HUNDRED or name in IN_PERCENT else 1.0 if name in SHARES else None


def shown_of(task: str, metric: str, highest: float) -> float:
    """The full score of a metric that no manifest names, as tables show it: what lm_eval writes of shares, in percent.

    Args:
        highest: of the values that were measured, without sign. A share is never more than 1, so other metrics than the
            known ones are told by that; the known ones are not, for a bad model has little BLEU.
    """
    return own_scale(task, metric) or (100.0 if highest > 1 or known_scale(task, metric) == 100.0 else 1.0)


def is_possible(metric: str, value: float, full: float | None = None) -> bool:
    """Whether a metric can have a value, as lm_eval writes it: a share lies between 0 and 1, BLEU between 0 and 100.

    Some of lm_eval's tasks write f1 and exact match in percent (OWN_SCALES).

    Args:
        full: its full score, where that is known.
    """
    name, rounding = metric.partition(",")[0], 1e-6
    if full == 1.0 or name in SHARES - {"f1", "em", "exact_match"}:
        least = 0.0 if name in SHARES - {"mcc"} else -1.0
        return least - rounding <= value <= 1.0 + rounding
    return name not in OF_HUNDRED or (value >= 0.0 and (name == "ter" or value <= 100.0 + rounding))


def most_error(metric: str, full: float | None = None) -> float:
    """What a standard error of a metric cannot be more than; see `is_possible`."""
    name = metric.partition(",")[0]
    if full == 1.0 or name in SHARES - {"f1", "em", "exact_match"}:
        return 1.0
    return 100.0 if name in OF_HUNDRED and name != "ter" else float("inf")


@dataclass(frozen=True)
class Benchmark:
    """One benchmark in one language: one number, whatever the number of its tasks.

    Args:
        name: as the paper prints it; a direction ("es-eu") for translation.
        language: of the average it belongs to; the target language for translation.
        kind: a key of KINDS; a metric's name for tasks that no manifest knows.
        tasks: our leaf tasks; the benchmark's score is the plain mean over them. None: lm_eval's own measure it.
        upstream: lm_eval's own leaf tasks of the same benchmark, read where ours are not in a results file.
        metric: its name in lm_eval's results ("acc"), with a filter where that matters ("exact_match,strict-match").
        chance: what guessing scores, in percent.
        shots: as the authors ran it; None where shots make no sense.
        percent: what a full score of lm_eval's metric is: 1 for accuracies, 100 for BLEU.
        averaged: whether an average counts it.
        average: the average that does, where it is not its kind's.
        listed: the task or group that stands for it in groups.
        in_suite: whether `iberian_suite` measures it.
        in_more: whether `iberian_more` does.
    """

    name: str
    language: str
    kind: str
    tasks: tuple[str, ...]
    upstream: tuple[str, ...] = ()
    metric: str = "acc"
    chance: float = 25.0
    shots: int | None = 5
    percent: float = 1.0
    averaged: bool = True
    average: str = ""
    listed: str = ""
    in_suite: bool = True
    in_more: bool = False

    @property
    def counted_in(self) -> str:
        """The average that counts it, over all languages: "bench", "mt"; of one that no average counts, its kind's."""
        return self.average or self.kind

    @property
    def column(self) -> str:
        """The average it counts in, as a column of the paper's tables: "bench_eu", "mt_es"."""
        return f"{self.counted_in}_{self.language}"

    @property
    def in_paper(self) -> bool:
        """Whether the paper averages it: entries.py lets no other into its columns."""
        return self.averaged and self.column in PAPER_COLUMNS

    @property
    def title(self) -> str:
        """The benchmark with its language, for messages: "Belebele (eu)"; a direction speaks for itself."""
        is_direction = self.kind == TRANSLATION and _DIRECTION.fullmatch(self.name)
        return f"FLORES {self.name}" if is_direction else f"{self.name} ({self.language})"
