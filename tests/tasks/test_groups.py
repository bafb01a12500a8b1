"""The YAMLs against the one table in code, and against the scripts that write them."""

from __future__ import annotations

import importlib.util
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import yaml

from lm_eval_iberian.benchmarks.benchmark import (
    CHOICE,
    ELEMENTARY,
    INSTRUCTIONS,
    KINDS,
    LABELS,
    PAIRS,
    SUMMARIES,
    TOY_CHOICE,
    TOY_INSTRUCTIONS,
    TOY_TRANSLATION,
    TRANSLATION,
    TRUTH,
)
from lm_eval_iberian.benchmarks.groups import added_groups
from lm_eval_iberian.benchmarks.table import benchmarks
from lm_eval_iberian.documents.needs import yaml_of
from lm_eval_iberian.folders import tasks_folder
from tests.tasks.common import build, manager, ours


def leaves(group: str) -> list[str]:
    """The leaf tasks of a group, as its YAMLs name them."""
    found: list[str] = []
    for name in yaml.safe_load(next(tasks_folder().glob(f"*/{group}.yaml")).read_text(encoding="utf-8"))["task"]:
        found += [name] if name in ours().all_subtasks else leaves(name)
    return found


def of_table(**wanted: Any) -> list[str]:
    """The leaf tasks of the table's benchmarks."""
    return [
        task
        for benchmark in benchmarks()
        if all(getattr(benchmark, key) == value for key, value in wanted.items())
        for task in benchmark.tasks
    ]


GROUPS = {
    **{
        f"iberian_{lang}": of_table(kind=CHOICE, language=lang, averaged=True, in_suite=True)
        for lang in ("eu", "gl", "ca", "es", "en")
    },
    "iberian_en_more": of_table(kind=CHOICE, language="en", averaged=False),
    "iberian_eus_exams_es": of_table(kind=CHOICE, language="es", averaged=False),
    "iberian_eus_exams_eu": of_table(name="EusExams", language="eu"),
    "iberian_bertaqa_eu": of_table(name="BertaQA", language="eu"),
    "iberian_bertaqa_en": of_table(name="BertaQA", language="en"),
    "iberian_mc": of_table(kind=CHOICE, in_paper=True),
    "iberian_flores": of_table(kind=TRANSLATION, in_paper=True),
    "iberian_blimp": of_table(name="MultiBLiMP"),
    "iberian_blimp_english": of_table(name="BLiMP"),
    "companion_reasoning": of_table(name="mCSQA"),
    "companion_summarization": of_table(name="WikiLingua"),
    "companion_sentiment": of_table(kind=LABELS),
    "companion_suite": [*of_table(name="mCSQA"), *of_table(name="WikiLingua"), *of_table(kind=LABELS)],
    "toy_mc": of_table(kind=TOY_CHOICE),
    "toy_mt": of_table(kind=TOY_TRANSLATION),
    "toy_ifeval": of_table(kind=TOY_INSTRUCTIONS),
    "toy_eu": of_table(kind=TOY_CHOICE, language="eu"),
    "toy_suite": [*of_table(kind=TOY_CHOICE), *of_table(kind=TOY_TRANSLATION), *of_table(kind=TOY_INSTRUCTIONS)],
}


@pytest.mark.parametrize("group", GROUPS)
def test_groups_are_the_table(group: str) -> None:
    found = leaves(group)
    assert sorted(found) == sorted(GROUPS[group])
    assert len(found) == len(set(found))


def test_the_suite_is_everything_that_the_paper_averages() -> None:
    """Its YAML: what was added is in groups that no YAML lists (test_adding)."""
    expected = of_table(in_paper=True)
    assert sorted(leaves("iberian_suite")) == sorted(expected)


@pytest.mark.slow
def test_every_task_of_the_table_is_there() -> None:
    known = manager().all_subtasks
    assert [task for b in benchmarks() for task in (*b.tasks, *b.upstream) if task not in known] == []


def test_every_ordered_pair_of_flores() -> None:
    known = set(ours().all_subtasks)
    pairs = [f"{source}-{target}" for source, target in permutations(("eu", "gl", "ca", "es", "en", "pt"), 2)]
    assert {f"iberian_flores_{pair}" for pair in pairs} <= known
    assert {f"iberian_flores_{pair}_native" for pair in pairs if not pair.endswith("en")} <= known


@pytest.mark.parametrize("benchmark", ["flores", "eus_exams", "blimp", "toy"])
def test_yamls_are_what_their_script_writes(benchmark: str) -> None:
    path = tasks_folder() / benchmark / "make_yamls.py"
    spec = importlib.util.spec_from_file_location(f"make_{benchmark}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    files: dict[Path, str] = module.files()
    assert {path: path.read_text(encoding="utf-8") for path in files} == files
    on_disk = set((tasks_folder() / benchmark).glob("[!_]*.yaml"))
    assert on_disk == {path for path in files if path.parent.name == benchmark}


def test_chance_levels_are_those_of_the_documents() -> None:
    """1 over the number of options, for the benchmarks whose questions all have as many."""
    for benchmark in filter(lambda one: one.tasks, benchmarks()):
        if benchmark.kind not in (CHOICE, PAIRS, TOY_CHOICE) or benchmark.name in ("EusReading", "EusTrivia"):
            continue
        task = build(benchmark.tasks[0])
        assert benchmark.chance == pytest.approx(100 / len(task.doc_to_choice(task.eval_docs[0]))), benchmark.title


# In the order of tables and notes: reports keep their bytes.
ORDER = """
Belebele (eu); XStoryCloze (eu); Belebele (gl); XStoryCloze (gl); Belebele (ca); XStoryCloze (ca); Belebele (es);
XStoryCloze (es); Belebele (en); XStoryCloze (en); EusReading (eu); EusProficiency (eu); BertaQA (eu); EusTrivia (eu);
EusExams (eu); GalCoLA (gl); OpenBookQA (gl); Parafrases (gl); CatCoLA (ca); OpenBookQA (ca); EsCoLA (es); OpenBookQA
(es); EusExams (es) not averaged; BertaQA (en) not averaged; OpenBookQA (en) not averaged; CoLA (en) not averaged;
Belebele (pt); mCSQA (en); mCSQA (de); mCSQA (fr); mCSQA (ja); mCSQA (zh); FLORES es-eu; FLORES en-eu; FLORES es-gl;
FLORES en-gl; FLORES es-ca; FLORES en-ca; FLORES eu-es; FLORES gl-es; FLORES ca-es; FLORES en-es; FLORES eu-en; FLORES
gl-en; FLORES ca-en; FLORES es-en; FLORES es-pt; FLORES en-pt; Phrases es-va (ca); Phrases ca-va (ca); Phrases va-ca
(ca); Phrases va-es (es); IFEval (eu); IFEval (gl); IFEval (ca); IFEval (es); BLiMP (en); MultiBLiMP (eu); MultiBLiMP
(gl); MultiBLiMP (ca); MultiBLiMP (es); MultiBLiMP (en); MultiBLiMP (pt); caBreu (ca); Cocoteros (ca); Cocoteros (es);
WikiLingua (en); WikiLingua (de); WikiLingua (fr); WikiLingua (ja); WikiLingua (zh); Summarization (gl); XL-Sum (es);
Sentiment (en); Sentiment in words (en) not averaged; Sentiment (de); Sentiment in words (de) not averaged; Sentiment
(fr); Sentiment in words (fr) not averaged; Sentiment (ja); Sentiment in words (ja) not averaged; Sentiment (zh);
Sentiment in words (zh) not averaged; VeritasQA (gl); VeritasQA in words (gl) not averaged; VeritasQA (ca); VeritasQA
in words (ca) not averaged; VeritasQA (es); VeritasQA in words (es) not averaged; VeritasQA (en); VeritasQA in words
(en) not averaged; Multi-LMentry (eu); Multi-LMentry (gl); Multi-LMentry (ca); Multi-LMentry (es); Multi-LMentry (en);
Multi-LMentry (pt); TOY pairs (eu); TOY stories (eu); TOY questions (eu); TOY instructions (eu); TOY pairs (gl); TOY
stories (gl); TOY questions (gl); TOY instructions (gl); TOY pairs (ca); TOY stories (ca); TOY questions (ca); TOY
instructions (ca); TOY pairs (es); TOY stories (es); TOY questions (es); TOY instructions (es); TOY pairs (en); TOY
stories (en); TOY questions (en); TOY instructions (en); TOY es-eu (eu); TOY en-eu (eu); TOY es-gl (gl); TOY en-gl
(gl); TOY es-ca (ca); TOY en-ca (ca); TOY eu-es (es); TOY gl-es (es); TOY ca-es (es); TOY en-es (es); TOY eu-en (en);
TOY gl-en (en); TOY ca-en (en); TOY es-en (en)
"""


def test_the_order_of_the_table() -> None:
    said = [one.title + ("" if one.averaged else " not averaged") for one in benchmarks() if one.tasks]
    assert said == " ".join(ORDER.split()).split("; ")


# Chance level and shots, by hand: options of each question; EusReading's and EusTrivia's, which differ from question to
# question, are from the Latxa paper (arXiv 2403.20266, table 3).
GUESSED = {
    "Belebele": (25, 5), "XStoryCloze": (50, 0), "EusReading": (25.83, 5), "EusProficiency": (25, 5),
    "BertaQA": (100 / 3, 5), "EusTrivia": (26.55, 5), "EusExams": (25, 5), "GalCoLA": (50, 5), "CatCoLA": (50, 5),
    "EsCoLA": (50, 5), "CoLA": (50, 5), "OpenBookQA": (25, 5), "Parafrases": (50, 5), "IFEval": (0, None),
    "MultiBLiMP": (50, None), "BLiMP": (50, None), "mCSQA": (20, 0), "WikiLingua": (0, 0), "Sentiment": (100 / 3, 0),
    "Sentiment in words": (0, 0), "VeritasQA": (22.92, 0), "VeritasQA in words": (0, 0), "Multi-LMentry": (0, None),
    "caBreu": (0, 0), "Summarization": (0, 0), "XL-Sum": (0, 0), "Cocoteros": (0, 0),
    "TOY pairs": (50, None), "TOY stories": (50, None), "TOY questions": (25, None),
    "TOY instructions": (0, None),
}  # fmt: skip


def test_chance_levels_and_shots() -> None:
    for one in filter(lambda one: one.tasks, benchmarks()):
        of_directions = (0, None if one.kind == TOY_TRANSLATION else 5)
        expected = GUESSED.get(one.name, of_directions)
        assert one.name in GUESSED or "-" in one.name
        assert (one.chance, one.shots) == (pytest.approx(expected[0]), expected[1]), one.title
        assert (one.metric, one.percent) == OTHER_METRICS.get(one.name, METRICS[one.kind]), one.title


METRICS = {
    CHOICE: ("acc", 1), TRANSLATION: ("bleu", 100), INSTRUCTIONS: ("inst_level_strict_acc", 1), PAIRS: ("acc", 1),
    SUMMARIES: ("rougeL", 1), LABELS: ("macro_f1", 1), TRUTH: ("mc1", 1), ELEMENTARY: ("acc", 1),
    TOY_CHOICE: ("acc", 1), TOY_TRANSLATION: ("bleu", 100), TOY_INSTRUCTIONS: ("inst_level_strict_acc", 1),
}  # fmt: skip

OTHER_METRICS = {"VeritasQA in words": ("bleu_acc", 1)}


def test_tasks_have_the_shots_of_their_manifests() -> None:
    """Both say it: the YAML to lm_eval, the manifest to reports."""
    for one in benchmarks():
        for task in one.tasks if one.shots is not None else ():
            assert (yaml_of(task).get("num_fewshot") or 0) == one.shots, task


def test_flores_says_its_signatures() -> None:
    import sacrebleu

    said = build("iberian_flores_es-eu").dump_config()["metadata"]["signatures"]
    version = sacrebleu.__version__
    assert said["bleu"] == f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:{version}"
    assert said["chrf++"] == f"nrefs:1|case:mixed|eff:yes|nc:6|nw:2|space:no|version:{version}"


def test_flores_metrics_are_sacrebleus() -> None:
    import sacrebleu

    task = build("iberian_flores_es-eu")
    answers, references = ["Kaixo mundua, zer moduz?"], ["Kaixo mundua! Zer moduz zaude?"]
    items = list(zip(references, answers, strict=True))
    aggregates = task.aggregation()
    assert aggregates["bleu"](items) == sacrebleu.corpus_bleu(answers, [references]).score
    assert aggregates["chrf++"](items) == sacrebleu.corpus_chrf(answers, [references], word_order=2).score
    assert aggregates["chrf"](items) == sacrebleu.corpus_chrf(answers, [references]).score


def test_names_are_prefixed() -> None:
    """No task of ours may stand in for one of lm_eval's: the name is the file's, and has our prefix."""
    index = manager().task_index
    builtin = {name for name, entry in index.items() if name not in added_groups() and not _is_ours(entry)}
    for path in tasks_folder().glob("*/*.yaml"):
        lines = path.read_text(encoding="utf-8").splitlines()
        ifeval = {"ifeval_eu", "ifeval_gl", "ifeval_ca_multi", "ifeval_es_multi", "ifeval_en_multi", "ifeval_pt"}
        assert path.stem.startswith(("iberian_", "toy_", "companion_")) or path.stem in ifeval
        assert path.stem not in builtin
        assert f"task: {path.stem}" in lines or f"group: {path.stem}" in lines


def test_no_average_of_a_benchmark_holds_a_toy() -> None:
    """Whatever counts a toy task says TOY in its name, and is of a kind of its own."""
    toys = [benchmark for benchmark in benchmarks() if any(task.startswith("toy_") for task in benchmark.tasks)]
    assert len(toys) == 5 * 4 + 14
    for benchmark in benchmarks():
        is_toy = benchmark in toys
        assert benchmark.name.startswith("TOY ") == is_toy
        assert (benchmark.kind in (TOY_CHOICE, TOY_TRANSLATION, TOY_INSTRUCTIONS)) == is_toy


def test_the_name_of_an_average_is_that_of_no_part_of_it() -> None:
    """A page showed "TOY questions 55.00" above a table in which they were 10.00."""
    for kind, said in KINDS.items():
        names = {benchmark.name for benchmark in benchmarks() if benchmark.kind == kind}
        assert said.short not in names or names == {said.short}


def _is_ours(entry: Any) -> bool:
    """Whether a name of lm_eval's index comes from our folder."""
    return entry.yaml_path is not None and Path(entry.yaml_path).is_relative_to(tasks_folder())
