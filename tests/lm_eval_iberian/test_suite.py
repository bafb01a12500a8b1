"""The paper's averages: by hand, from results files with known scores."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_eval_iberian.benchmarks.table import benchmarks, of_column
from lm_eval_iberian.scores.formats import write
from lm_eval_iberian.scores.results import SuiteError, check_run, read_run
from lm_eval_iberian.scores.suite import BELOW_CHANCE, ModelScores, Score, apart_on, gather, score_of
from lm_eval_iberian.scores.suite import average as average_of
from lm_eval_iberian.scores.tables import report
from lm_eval_iberian.sweep.kept_tasks import our_tasks
from tests.lm_eval_iberian.results_maker import everything, results


def one(data: dict[str, Any], *more: dict[str, Any]) -> ModelScores:
    """The scores of files that are all of one model."""
    (model,) = gather(check_run(each, f"{number}.json") for number, each in enumerate((data, *more)))
    return model


def test_exams_weigh_as_one_benchmark() -> None:
    """Six benchmarks at 50 %, 29 exams at 99 %: (6 * 50 + 99) / 7, not (6 * 50 + 29 * 99) / 35."""
    scores = everything()
    for task in scores:
        if task.startswith("iberian_eus_exams_eu"):
            scores[task]["acc"] = 0.99
    assert one(results(scores)).averages["bench_eu"].value == pytest.approx(57.0)


@pytest.mark.parametrize(("task", "metric", "value"), [
    ("iberian_eus_trivia", "acc", 50.0), ("iberian_eus_trivia", "acc", -0.1), ("iberian_cola_es", "mcc", -1.2),
    ("iberian_flores_es-eu", "bleu", 1234.0), ("iberian_flores_es-eu", "bleu", -1.0),
])  # fmt: skip
def test_what_a_metric_cannot_be_is_no_score(task: str, metric: str, value: float) -> None:
    """A file that was edited, or one in percent."""
    leaf = check_run(results({task: {metric: value, f"{metric}_stderr": 0.01}}), "x.json").leaf(task, metric)
    assert leaf.value is None and leaf.stderr is None
    assert leaf.problems == (
        f"failed: {metric} is {value:g}, which it cannot be: was the file changed, or is it in percent?",
    )


@pytest.mark.parametrize(("metric", "stderr"), [("acc", -0.01), ("acc", 1.2), ("bleu", 120.0), ("mcc", -0.01)])
def test_what_a_standard_error_cannot_be_is_none(metric: str, stderr: float) -> None:
    leaf = check_run(results({"x": {metric: 0.5, f"{metric}_stderr": stderr}}), "x.json").leaf("x", metric)
    said = f"the standard error of {metric} is {stderr:g}, which it cannot be: was the file changed?"
    assert (leaf.value, leaf.stderr, leaf.problems) == (0.5, None, (said,))
    possible = check_run(results({"x": {"perplexity": 12.0, "perplexity_stderr": 340.0}}), "x.json")
    assert possible.leaf("x", "perplexity").stderr == 340.0


@pytest.mark.parametrize("title", ["caBreu (ca)", "VeritasQA (gl)", "XL-Sum (es)", "Sentiment (ja)"])
@pytest.mark.parametrize(
    ("value", "is_score"), [(31.0, False), (1.01, False), (-1.2, False), (1.0, True), (0.31, True)]
)
def test_a_share_of_a_benchmark_is_no_more_than_1(title: str, value: float, is_score: bool) -> None:
    """A ROUGE-L or an MC1 in percent was 3100 in tables, without a word."""
    benchmark = next(b for b in benchmarks() if b.title == title)
    score = scored(title, one(results({task: {benchmark.metric: value} for task in benchmark.tasks})))
    assert score.value == (pytest.approx(100 * value) if is_score else None)
    assert is_score or score.problems[0].startswith(f"failed: {benchmark.metric} is {value:g}, which it cannot be")


@pytest.mark.parametrize(("metric", "value"), [("acc", 1.0), ("acc", 0.0), ("mcc", -0.2), ("bleu", 100.00000000000004),
                                               ("chrf", 40.0), ("ter", 130.0), ("f1", 75.3), ("perplexity", 12.0)])  # fmt: skip
def test_what_a_metric_can_be_is_a_score(metric: str, value: float) -> None:
    """f1 and exact match are in percent in some of lm_eval's tasks; sacreBLEU gives a little over 100."""
    assert check_run(results({"x": {metric: value}}), "x.json").leaf("x", metric).value == value


def scored(title: str, model: ModelScores) -> Score:
    """Of one benchmark."""
    return next(score for benchmark, score in model.benchmarks.items() if benchmark.title == title)


def test_standard_errors_are_propagated() -> None:
    """One point on each leaf. BertaQA has two leaves, EusExams 29: se = sqrt(5 * 1 + 1/2 + 1/29) / 7."""
    average = one(results(everything(stderr=0.01))).averages["bench_eu"]
    assert average.stderr == pytest.approx(math.sqrt(5 + 1 / 2 + 1 / 29) / 7)


def test_translation_by_target_language() -> None:
    scores = everything() | {
        f"iberian_flores_{direction}": {"bleu": bleu, "bleu_stderr": 0.5}
        for direction, bleu in {"eu-es": 10.0, "gl-es": 20.0, "ca-es": 30.0, "en-es": 44.0}.items()
    }
    averages = one(results(scores)).averages
    assert averages["mt_es"].value == pytest.approx(26.0)
    assert averages["mt_es"].stderr == pytest.approx(0.25)
    assert averages["mt_en"].value == pytest.approx(50.0)


def test_instruction_following_over_runs() -> None:
    """Three runs of IFEval: mean and sample SD (n - 1), which the paper prints."""
    figures = (0.39, 0.40, 0.44)
    runs = [
        results({"ifeval_eu": {"inst_level_strict_acc": v, "inst_level_strict_acc_stderr": "N/A"}}) for v in figures
    ]
    score = one(*runs).averages["ifeval_eu"]
    assert score.value == pytest.approx(41.0)
    assert score.deviation == pytest.approx(statistics.stdev([39, 40, 44]))
    assert (score.stderr, score.runs) == (None, 3)
    assert one(runs[0]).averages["ifeval_eu"].deviation is None


def test_a_measurement_made_twice_keeps_its_standard_error() -> None:
    """Nothing was drawn between the two, so an SD of 0 would say that the figure is exact."""
    runs = [results(everything(0.5, 0.05), date=date) for date in (1.0, 2.0)]
    alone = one(runs[0])
    for column in ("bench_eu", "ifeval_eu"):
        score, wanted = one(*runs).averages[column], alone.averages[column]
        assert score.runs == 2 and score.deviation is None
        assert score.value == wanted.value and score.stderr == pytest.approx(wanted.stderr) and score.stderr


def test_an_average_is_over_its_benchmarks_tasks_runs() -> None:
    """Two runs of two halves: 30, 50 and 20, 80. The mean is 45; the sample SD of (25, 65) is 40 / sqrt(2)."""
    halves = [f"iberian_bertaqa_eu_{part}" for part in ("global", "local")]
    runs = [
        results(dict(zip(halves, ({"acc": one}, {"acc": other}), strict=True)))
        for one, other in ((0.3, 0.2), (0.5, 0.8))
    ]
    score = scored("BertaQA (eu)", one(*runs))
    assert score.value == pytest.approx(45.0)
    assert score.deviation == pytest.approx(40 / math.sqrt(2))
    assert (score.runs, score.stderr, score.problems) == (2, None, ())


def test_runs_of_two_tasks_belong_together_by_their_seeds() -> None:
    """A file a task and seed, in the order of their dates: 30 and 20 are of seed 1, 50 and 80 of seed 2. Put together as
    they come, the two runs would be (55, 35)."""
    halves = [f"iberian_bertaqa_eu_{part}" for part in ("global", "local")]
    files = []
    for task, value, seed in ((halves[0], 0.3, 1), (halves[0], 0.5, 2), (halves[1], 0.8, 2), (halves[1], 0.2, 1)):
        files.append(results({task: {"acc": value}}))
        files[-1]["config"]["torch_seed"] = seed
    score = scored("BertaQA (eu)", one(*files))
    assert score.value == pytest.approx(45.0) and score.deviation == pytest.approx(40 / math.sqrt(2))


def test_tasks_that_were_not_run_equally_often_are_marked() -> None:
    halves = [f"iberian_bertaqa_eu_{part}" for part in ("global", "local")]
    runs = [results({task: {"acc": 0.3} for task in halves}), results({halves[0]: {"acc": 0.5}})]
    score = scored("BertaQA (eu)", one(*runs))
    assert score.value == pytest.approx((40 + 30) / 2) and score.deviation is None
    assert score.problems == ("its tasks were not run equally often",) and not score.whole


def test_an_average_of_several_benchmarks_has_no_deviation() -> None:
    """Their runs are not those of one seed each; and without a value it still says how many runs there were."""
    runs = [results(everything(value, 0.01)) for value in (0.4, 0.6)]
    average = one(*runs).averages["bench_eu"]
    assert (average.value, average.runs, average.deviation) == (pytest.approx(50.0), 2, None)
    alone = one(results({"iberian_belebele_eu": {"acc": 0.5}})).averages
    assert list(alone) == [f"bench_{language}" for language in ("eu", "gl", "ca", "es", "en")]
    assert [(average.value, average.runs) for average in alone.values()] == [(None, 1), *[(None, 0)] * 4]


def test_one_file_a_task() -> None:
    """The authors ran a job a task: the files of one model are one row."""
    scores = everything()
    files = [results({task: found}) for task, found in scores.items()]
    assert one(*files).averages["bench_eu"].value == pytest.approx(50.0)


def test_missing_is_named_and_not_averaged_over() -> None:
    scores = everything()
    del scores["iberian_eus_reading"], scores["iberian_eus_exams_eu_osakidetza7e"]
    model = one(results(scores))
    assert model.averages["bench_eu"].value is None
    assert model.averages["bench_gl"].value == pytest.approx(50.0)
    assert "EusReading (eu): missing" in model.notes
    assert any(
        "EusExams (eu): missing (1 of 29 tasks: iberian_eus_exams_eu_osakidetza7e)" in note for note in model.notes
    )


def test_a_language_left_out_is_one_note() -> None:
    model = one(results({"iberian_belebele_eu": {"acc": 0.5}}))
    assert "nothing measured for bench_gl" in model.notes
    assert "EusTrivia (eu): missing" in model.notes
    assert not any("(gl)" in note for note in model.notes)


def test_what_no_table_counts_is_named() -> None:
    model = one(results(everything() | {"iberian_flores_pt-eu": {"bleu": 12.5, "bleu_stderr": 0.1}}))
    assert "in no table: iberian_flores_pt-eu: bleu 12.5" in model.notes
    assert sum("in no table" in note for note in model.notes) == 1


@pytest.mark.parametrize("broken", [float("nan"), "N/A", None, True])
def test_failed_is_named(broken: Any) -> None:
    model = one(results(everything() | {"iberian_belebele_ca": {"acc": broken}}))
    assert model.averages["bench_ca"].value is None
    assert "Belebele (ca): failed: no number for acc" in model.notes


def test_limited_is_marked() -> None:
    data = results(everything())
    data["n-samples"]["iberian_belebele_ca"] = {"original": 900, "effective": 10}
    model = one(data)
    assert model.averages["bench_ca"].value == pytest.approx(50.0)
    assert not model.averages["bench_ca"].whole
    assert model.averages["bench_gl"].whole
    assert "Belebele (ca): limited: 10 of 900 documents" in model.notes


def test_limit_without_counts_is_marked() -> None:
    data = results(everything(), **{"n-samples": {}})
    data["config"]["limit"] = 8.0
    assert not any(score.whole for score in one(data).averages.values())


def test_samples_are_marked() -> None:
    data = results(everything())
    data["configs"]["iberian_belebele_eu"]["metadata"]["documents"] = "samples"
    assert "Belebele (eu): embedded samples, not the benchmark" in one(data).notes


def test_a_data_set_that_is_not_pinned_is_named_and_counts() -> None:
    data = results(everything())
    said = "not pinned: facebook/belebele read at commit abc"
    data["configs"]["iberian_belebele_eu"]["metadata"]["documents_notes"] = [said]
    model = one(data)
    assert f"Belebele (eu): {said}" in model.notes
    assert model.averages["bench_eu"].whole, "beside the score, not against it"


def test_lm_evals_own_tasks_are_read() -> None:
    upstream = {
        task: {b.metric: 0.5 * b.percent, f"{b.metric}_stderr": 0.0} for b in benchmarks() for task in b.upstream
    }
    model = one(results(upstream))
    assert model.averages["bench_eu"].value == pytest.approx(50.0)
    assert "Belebele (eu): from lm_eval's own tasks" in model.notes


def test_other_shots_are_named() -> None:
    data = results(everything())
    data["n-shot"]["iberian_belebele_eu"] = 0
    notes = one(data).notes
    assert "Belebele (eu): 0-shot, the paper ran 5-shot" in notes
    assert "XStoryCloze (eu): 5-shot, the paper ran 0-shot" in notes
    assert not any("shot" in note for note in notes if note.startswith(("Belebele (gl)", "IFEval", "FLORES")))


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ({"acc,strict": 0.1, "acc,none": 0.5}, 50.0),
        ({"acc,strict": 0.1}, 10.0),
        ({"acc_norm,none": 0.7, "acc_stderr,none": 0.1, "acc,none": 0.5}, 50.0),
        ({"acc_norm,none": 0.7, "acc_stderr,none": 0.1}, None),
    ],
)
def test_which_of_a_tasks_numbers_is_read(written: dict[str, float], value: float | None) -> None:
    data = results({TASK: {}})
    data["results"][TASK] |= written
    assert scored("Belebele (eu)", one(data)).value == value


def test_other_tasks_do_not_keep_points_from_being_compared() -> None:
    """Only what was measured on the tasks that both share has to agree."""
    other = "iberian_eus_trivia"
    first, second = merge(0.4), merge(0.6)
    for data, code in ((first, "c"), (second, "x")):
        data["results"][other], data["configs"][other] = {"acc,none": 0.5}, {}
        data["measured"]["tasks"][other] = {"code": code, "documents": "d"}
    runs = [check_run(data, str(number)) for number, data in enumerate((first, second))]
    assert apart_on(runs[:1], runs[1:], [TASK]) == []
    changed(second, f"measured/tasks/{TASK}/documents", "x")
    again = check_run(second, "again")
    assert apart_on(runs[:1], [again], [TASK]) == [f"{TASK}: other documents"]


TASK = "iberian_belebele_eu"


def merge(value: float, **arguments: Any) -> dict[str, Any]:
    """A results file of one merge, as `merged` writes it."""
    data = results({TASK: {"acc": value, "acc_stderr": 0.01}})
    data["config"] |= {"model": "merged", "model_args": {"recipe": "/r/eu.yml", **arguments}, "fewshot_seed": 1234}
    data["config"]["iberian"] = {
        "weights": "0123", "recipe_origin": "/r/eu.yml", "arguments": arguments, "tokenizer_hash": "t",
        "signature_digest": "0123", "generation_config": {"eos_token_id": 1},
    }  # fmt: skip
    data["measured"] = {"chat": {"template": None, "multiturn": False, "system": None},
                        "tasks": {TASK: {"code": "c", "documents": "d"}}}  # fmt: skip
    return data


def changed(data: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """The file with one entry set: "config/limit"."""
    *way, last = path.split("/")
    place = data
    for key in way:
        place = place.setdefault(key, {})
    place[last] = value
    return data


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("config/iberian/arguments/max_length", 64, "max_length 64"),
        ("config/iberian/arguments/add_bos_token", False, "add_bos_token false"),
        (f"configs/{TASK}/generation_kwargs", {"temperature": 0.6}, "temperature 0.6"),
        (f"n-shot/{TASK}", 0, "0 shots"),
        (f"versions/{TASK}", 2.0, "version 2.0"),
        (f"measured/tasks/{TASK}/documents", "another revision, or a limit", "other documents"),
        (f"measured/tasks/{TASK}/code", "x", "other code"),
        ("config/fewshot_seed", 7, "seed of the shots 7"),
        ("measured/chat/template", "ab", "chat template"),
        ("measured/chat/system", "ab", "system prompt"),
        ("config/iberian/tokenizer_hash", "u", "other tokenizer"),
        ("config/iberian/generation_config/repetition_penalty", 3.0, "repetition_penalty 3.0"),
        ("config/iberian/weights", "4567", "other weights"),
        ("lm_eval_version", "0.5.0", "0.5.0"),
    ],
)
def test_two_settings_are_two_rows_whose_names_say_what_differs(path: str, value: Any, words: str) -> None:
    models = gather(check_run(data, str(n)) for n, data in enumerate((merge(0.4), changed(merge(0.6), path, value))))
    assert len(models) == 2 and len({model.label for model in models}) == 2
    assert models[1].label.startswith("eu (") and words in models[1].label
    scores = [next(score for one, score in model.benchmarks.items() if TASK in one.tasks) for model in models]
    assert [(score.value, score.runs, score.deviation) for score in scores] == [(40.0, 1, None), (60.0, 1, None)]
    assert not any("mean of" in note for model in models for note in model.notes)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("config/iberian/arguments/batch_size", 8),
        ("config/iberian/arguments/device", "cuda:1"),
        ("config/iberian/arguments/gpu_memory_utilization", 0.5),
        ("config/iberian/arguments/max_num_seqs", 1),
        ("config/iberian/arguments/tensor_parallel_size", 2),
        ("config/torch_seed", 1),
        (f"configs/{TASK}/generation_kwargs", {"seed": 3}),
        (f"configs/{TASK}/metadata/documents", "/another/mirror"),
        ("date", 1.0),
    ],
)
def test_what_cannot_matter_and_the_seed_of_sampling_make_runs_of_one_row(path: str, value: Any) -> None:
    (model,) = gather(check_run(one, str(n)) for n, one in enumerate((merge(0.4), changed(merge(0.6), path, value))))
    score = next(score for one, score in model.benchmarks.items() if TASK in one.tasks)
    assert (model.label, score.value, score.runs) == ("eu", pytest.approx(50.0), 2)


def test_results_of_a_sweep_are_named_after_their_points() -> None:
    said = (("w=1", 64, "0"), ("w=2", 64, "1"), ("w=1", 32, "0"))
    files = [changed(merge(0.5, max_length=length), "sweep", {"point": name}) for name, length, _ in said]
    for data, (_, _, weights) in zip(files, said, strict=True):
        data["config"]["iberian"]["weights"] = weights
    models = gather(check_run(data, str(number)) for number, data in enumerate(files))
    assert [model.label for model in models] == ["w=1 (max_length 64)", "w=2", "w=1 (max_length 32)"]


def test_the_seed_of_sampling_is_no_setting_that_sets_rows_apart() -> None:
    other = changed(changed(merge(0.6, max_length=64), "config/torch_seed", 1), "config/random_seed", 7)
    models = gather(check_run(data, str(number)) for number, data in enumerate((merge(0.4), other)))
    assert [model.label for model in models] == ["eu (max_length not set)", "eu (max_length 64)"]


def test_three_settings_of_one_merge_are_told_apart() -> None:
    models = gather(check_run(merge(value, **said), str(value)) for value, said in (
        (0.1, {}), (0.2, {"max_length": 64}), (0.3, {"max_length": 32}), (0.4, {}), (0.5, {"max_length": 64, "truncation": True}),
    ))  # fmt: skip
    assert [(model.label, len(model.runs)) for model in models] == [
        ("eu (max_length not set, truncation not set)", 2),
        ("eu (max_length 64, truncation not set)", 1),
        ("eu (max_length 32, truncation not set)", 1),
        ("eu (max_length 64, truncation true)", 1),
    ]


def test_a_run_given_twice_is_refused() -> None:
    with pytest.raises(SuiteError, match="same run"):
        one(results(everything()), results(everything()))


def test_models_are_told_apart() -> None:
    """By their name, by the chat template, by a merge's signature; not by how the engine ran."""
    plain, engine, chat, merge = (results(everything(value)) for value in (0.1, 0.2, 0.3, 0.4))
    engine["config"]["model_args"]["gpu_memory_utilization"] = 0.5
    chat["chat_template_sha"] = "abc"
    merge["config"]["iberian"] = {"signature_digest": "0123", "recipe_origin": "/r/linear-eu.yml"}
    models = gather(check_run(data, str(number)) for number, data in enumerate((plain, engine, chat, merge)))
    assert [model.label for model in models] == [
        "org/model (no chat template)",
        "org/model (chat template)",
        "linear-eu",
    ]
    assert models[0].averages["bench_eu"].value == pytest.approx(15.0)


@given(st.lists(st.floats(0, 1), min_size=7, max_size=7))
@settings(max_examples=30, deadline=None)
def test_the_average_is_the_plain_mean(values: list[float]) -> None:
    scores = everything()
    for benchmark, value in zip(of_column("bench_eu"), values, strict=True):
        for task in benchmark.tasks:
            scores[task]["acc"] = value
    assert one(results(scores)).averages["bench_eu"].value == pytest.approx(100 * statistics.fmean(values))


def test_normalised() -> None:
    """Chance is 0, a full score 100, below chance negative."""
    found = {"eu": 0.25, "gl": 1.0, "es": 0.1}
    model = one(
        results(everything() | {f"iberian_belebele_{language}": {"acc": value} for language, value in found.items()})
    )
    by_title = {benchmark.title: score.normalised for benchmark, score in model.benchmarks.items()}
    assert by_title["Belebele (eu)"] == pytest.approx(0.0)
    assert by_title["Belebele (gl)"] == pytest.approx(100.0)
    assert by_title["Belebele (ca)"] == pytest.approx(100 / 3)
    assert by_title["Belebele (es)"] == pytest.approx(-20.0)
    assert by_title["GalCoLA (gl)"] == pytest.approx(0.0)


def test_the_chance_of_an_average_is_the_mean_of_its_benchmarks() -> None:
    average = one(results(everything())).averages["bench_eu"]
    assert average.chance == pytest.approx(statistics.fmean(CHANCES))


CHANCES = (25, 50, 25.83, 25, 100 / 3, 26.55, 25)  # of the seven Basque benchmarks


def test_an_average_is_normalised_benchmark_by_benchmark() -> None:
    """As leaderboards do it: each benchmark between its own chance and 100, then the mean of those. Two benchmarks with
    chances 25 and 50, at 62.5 and 50: (50 + 0) / 2, not 100 * (56.25 - 37.5) / (100 - 37.5) = 30."""
    shifted = one(results(everything() | {"iberian_xstorycloze_eu": {"acc": 0.7, "acc_stderr": 0.02}}))
    average = shifted.averages["bench_eu"]
    parts = [100 * ((70 if chance == 50 else 50) - chance) / (100 - chance) for chance in CHANCES]
    assert average.normalised == pytest.approx(statistics.fmean(parts))
    of_language = [score.normalised for one_, score in shifted.benchmarks.items() if one_.column == "bench_eu"]
    assert average.normalised == pytest.approx(statistics.fmean(filter(None, of_language)))
    errors = [scored(title, shifted).stderr for title in ("Belebele (eu)", "XStoryCloze (eu)")]
    two = average_of({one_: shifted.benchmarks[one_] for one_ in of_column("bench_eu")[:2]})
    assert (two.normalised, two.chance) == (pytest.approx((100 / 3 + 40) / 2), 37.5)
    assert two.normalised_spread == pytest.approx(math.hypot(errors[0] / 0.75, errors[1] / 0.5) / 2)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        ("[1]", 'no "results"'),
        ('{"doc_id": 1}', 'no "results"'),
        ('{"results": {"a": 1}}', "not a task"),
        ('{"results": {}, "n-shot": 3}', '"n-shot" is not an object'),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_bad_files_get_one_message(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(SuiteError, match=says) as error:
        read_run(path)
    assert str(path) in str(error.value)


def test_results_in_memory_are_read_as_their_file_is(tmp_path: Path) -> None:
    data = results(everything())
    path = tmp_path / "results.json"
    path.write_text(json.dumps(data))
    here, there = read_run(data), read_run(path)
    assert here.identity == there.identity
    assert gather([here])[0].averages == gather([there])[0].averages
    with pytest.raises(SuiteError, match='the results: no "results" in it'):
        read_run({})


STORY = "iberian_xstorycloze_eu"  # two endings: chance is 50


@pytest.mark.parametrize(
    ("acc", "stderr", "documents", "is_below"),
    [
        (0.20, 0.064, 40, True),  # multiple choice under a chat template
        (0.40, 0.078, 40, False),
        (0.31, 0.074, 40, False),  # 2.5 of its own, 2.4 of guessing's
        (0.25, 0.069, 40, True),  # 3.2 of guessing's (7.9), 3.6 of its own
        (0.275, 0.072, 40, False),  # 2.8 of guessing's, 3.1 of its own
        (0.45, 0.010, 2500, True),
        (0.475, 0.010, 2500, False),
        (0.475, 0.005, 2500, False),
        (0.45, 0.030, 2500, False),  # its own is the larger
        (0.0, 0.0, 40, True),
        (0.0, 0.0, 2, False),  # all wrong on two documents is bad luck
        (0.45, 0.010, 0, True),  # a file that does not say how many
        (0.0, 0.0, 0, False),
        (1.0, 0.0, 40, False),
    ],
)
def test_a_score_far_below_chance_is_doubted(acc: float, stderr: float, documents: int, is_below: bool) -> None:
    (model,) = gather([read_run(results({STORY: {"acc": acc, "acc_stderr": stderr}}, documents))])
    score = next(score for benchmark, score in model.benchmarks.items() if STORY in benchmark.tasks)
    assert score.doubts == ((BELOW_CHANCE,) if is_below else ())
    assert (f"XStoryCloze (eu): {BELOW_CHANCE}" in model.notes) is is_below
    assert ("‡" in write(report([model]))) is is_below


def test_many_tasks_are_held_against_chance_together() -> None:
    """20 % of 100 questions is bad luck in one exam, and not in all 29; BLEU has no chance to be below."""
    exams = next(one for one in of_column("bench_eu") if one.name == "EusExams")
    one_low = {task: {"acc": 0.20 if task == exams.tasks[0] else 0.25, "acc_stderr": 0.043} for task in exams.tasks}
    all_low = {task: {"acc": 0.20, "acc_stderr": 0.04} for task in exams.tasks}
    assert score_of(exams, [read_run(results(one_low))]).doubts == ()
    assert score_of(exams, [read_run(results(all_low))]).doubts == (BELOW_CHANCE,)
    translation = of_column("mt_eu")[0]
    nothing = {task: {"bleu": 0.0, "bleu_stderr": 0.0} for task in translation.tasks}
    assert score_of(translation, [read_run(results(nothing))]).doubts == ()


@pytest.mark.slow
def test_a_file_that_lm_eval_wrote(tmp_path: Path) -> None:
    """The names of keys above are ours to get wrong: lm_eval's evaluator is asked for a real one."""
    from lm_eval import simple_evaluate
    from lm_eval.loggers import EvaluationTracker

    found = simple_evaluate(model="dummy", tasks=["iberian_eus_trivia"], limit=3, num_fewshot=2, bootstrap_iters=10,
                            task_manager=our_tasks())  # fmt: skip
    tracker = EvaluationTracker(output_path=str(tmp_path))
    found.pop("samples")
    tracker.save_results_aggregated(results=found, samples=None)
    (path,) = tmp_path.rglob("results_*.json")
    assert read_run(found).identity == read_run(path).identity
    (model,) = gather([read_run(path)])
    score = next(score for benchmark, score in model.benchmarks.items() if benchmark.name == "EusTrivia")
    raw = json.loads(path.read_text())["results"]["iberian_eus_trivia"]
    assert score.value == pytest.approx(100 * raw["acc,none"])
    assert score.stderr == pytest.approx(100 * raw["acc_stderr,none"])
    assert score.problems == ("limited: 3 of 12 documents", "embedded samples, not the benchmark")
    assert score.notes == ("2-shot, the paper ran 5-shot",)
