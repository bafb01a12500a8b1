"""One thing is changed: either no answer can change, or identity, store, cache and report all see it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lm_eval_iberian import plugin
from lm_eval_iberian.folders import tasks_folder
from lm_eval_iberian.identity.identity import Identity, of_results
from lm_eval_iberian.models.hf import MergedHF
from tests.conftest import linear
from tests.lm_eval_iberian.identities import Measurement
from tests.lm_eval_iberian.results_maker import results
from tests.lm_eval_iberian.sweep.runner import run


@pytest.fixture
def one(tmp_path: Path, llama: dict[str, Path]) -> Measurement:
    return Measurement(tmp_path / "one", llama)


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """A helper beside a task is imported by its bare name: each test has its own."""
    before = list(sys.path)
    yield
    sys.path[:] = before
    sys.modules.pop("beside_local", None)


@pytest.fixture(autouse=True)
def found(one: Measurement, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(one.tasks))


def argument(**arguments: Any) -> Callable[[Measurement], None]:
    return lambda one: one.data["model_args"].update(arguments)


def json_file(name: str, change: Callable[[Any], Any]) -> Callable[[Measurement], None]:
    return lambda one: one.change(name, change)


def text_file(name: str, old: str, new: str) -> Callable[[Measurement], None]:
    def change(one: Measurement) -> None:
        path = one.tasks / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))

    return change


def a_weight(one: Measurement) -> None:
    """One byte of one tensor."""
    file = next(one.models["instruct"].glob("*.safetensors"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def lowercased(tokenizer: Any) -> Any:
    return tokenizer | {"normalizer": {"type": "Lowercase"}}


def penalty(config: Any) -> Any:
    return config | {"repetition_penalty": 3.0}


# Files and arguments as a plan reads them; every part of an identity by itself: test_identity_parts.py, every part of a
# tokenizer: tests/merge_hooks/recipes/test_tokenizer.py. What changes, and whether answers to the same requests can change with it, or only requests and verdicts.
MATTERS: dict[str, tuple[Callable[[Measurement], None], bool]] = {
    "an argument": (argument(max_length=64), True),
    "another dtype": (argument(dtype="bfloat16"), True),
    "a weight": (a_weight, True),
    "the normaliser": (json_file("tokenizer.json", lowercased), True),
    "the end of text": (json_file("tokenizer_config.json", lambda c: c | {"eos_token": "<|end|>"}), True),
    "generation_config.json": (json_file("generation_config.json", penalty), True),
    "a document": (text_file("documents.jsonl", "0: ", "0:: "), False),
    "the YAML": (text_file("choice.yaml", "{{question}}", "{{question}}?"), False),
    "the judge": (text_file("utils.py", '"acc"', "'acc'"), False),
    "a helper of the judge": (text_file("beside_local.py", "float(", "1 - float("), False),
}  # fmt: skip
HARMLESS = {
    "a default said": argument(scoring="prefix", add_bos_token=None),
    "residents": argument(resident="off"),
    "padding": json_file("tokenizer.json", lambda c: c | {"padding": None, "truncation": None}),
    "who wrote it": json_file("generation_config.json", lambda c: c | {"transformers_version": "4.0.0"}),
}  # fmt: skip


@pytest.mark.parametrize("what", MATTERS)
def test_what_matters_is_seen_everywhere(what: str, one: Measurement) -> None:
    change, of_answers = MATTERS[what]
    before = one.identity()
    change(one)
    after = one.identity()
    assert before.digest != after.digest, "the store's key of the evaluation"
    assert not before.agrees(after), "the report's row"
    assert before.differences(after) and after.differences(before), "the label"
    assert (before.answers != after.answers) == of_answers, "the key of an answer, the name of a cache"


def test_each_run_of_a_point_has_a_key_of_its_own(one: Measurement) -> None:
    """Which is its whole identity: of the same model and tasks, asked in another way."""
    ways: list[dict[str, Any]] = [
        {}, {"apply_chat_template": False}, {"fewshot_as_multiturn": False}, {"num_fewshot": 2}, {"limit": 5},
        {"gen_kwargs": {"max_gen_toks": 3}}, {"system_instruction": "Labur."}, {"seeds": [1]},
    ]  # fmt: skip
    tasks = one.data.pop("tasks")
    one.data["runs"] = [{"tasks": tasks, **way} for way in ways]
    plan = one.plan()
    (point,) = plan.points
    identities = [plan.identity(point, evaluation) for evaluation in point.point.evaluations]
    assert [plan.key(point, evaluation) for evaluation in point.point.evaluations] == [it.digest for it in identities]
    assert len({it.digest for it in identities}) == len({job.key for job in plan.jobs}) == len(ways)
    assert len({it.answers for it in identities}) == 2, "the seed alone is of the answers"


def test_what_is_not_in_use_is_not_named(one: Measurement) -> None:
    """No template where none is applied; and what a plan says of seeds is all that results will say."""
    one.data |= {"apply_chat_template": False, "gen_kwargs": {"seed": 3}}
    found = one.identity().parts
    assert found["chat"] == {"template": None, "multiturn": False, "system": None}
    assert found["seed"] == {"random_seed": 0, "numpy_seed": 1234, "torch_seed": 1234, "generation": ["3"]}


@pytest.mark.parametrize("what", HARMLESS)
def test_what_cannot_matter_is_not(what: str, one: Measurement) -> None:
    before = one.identity()
    HARMLESS[what](one)
    assert one.identity() == before


def test_a_copy_elsewhere_is_the_same(one: Measurement, llama: dict[str, Path], tmp_path: Path) -> None:
    """Folders name nothing: but for the one that a task's own configuration spells out."""
    before, other = one.identity(), Measurement(tmp_path / "elsewhere", llama)
    shutil.copy(one.tasks / "choice.yaml", other.tasks)
    shutil.copy(one.tasks / "words.yaml", other.tasks)
    assert other.identity() == before


def test_plan_results_and_lm_eval_say_the_same(one: Measurement, tmp_path: Path) -> None:
    """A point of a sweep, planned and measured, and lm_eval's own command on the same merge."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    plugin.activate()
    planned = one.identity()
    assert run(one.data, tmp_path / "run") == {}
    file = next((tmp_path / "run" / "points").glob("*/results_*.json"))
    arguments = {**one.data["model_args"], "recipe": one.data["recipes"]["point"], "batch_size": 3}
    found = simple_evaluate(
        model="merged", model_args=arguments, tasks=one.data["tasks"], limit=4, num_fewshot=1, bootstrap_iters=0,
        apply_chat_template=True, fewshot_as_multiturn=True,
        task_manager=TaskManager(include_path=str(one.tasks), include_defaults=False, metadata=arguments),
    )  # fmt: skip
    written = json.loads(file.read_text())
    assert of_results(written).parts == planned.parts
    assert found["results"]["local_words"]["exact_match,none"] == written["results"]["local_words"]["exact_match,none"]
    assert of_results(found).parts == planned.parts
    assert file.stem == f"results_{planned.digest[:12]}"


def test_a_parent_of_a_merge_is_the_plain_model(one: Measurement) -> None:
    """A sweep casts its parents by a recipe, `pretrained=` by the engine: to one dtype that is one model."""
    plain = {"merge_method": "passthrough", "models": [{"model": str(one.models["basque"])}]}
    recipes = {
        "pretrained": {"pretrained": str(one.models["basque"])}, "same": {**plain, "dtype": "float32"},
        "rounded": {**plain, "dtype": "bfloat16"},
    }  # fmt: skip
    one.data = {**one.data, "recipes": recipes}
    signatures = {point.name: point.signature for point in one.plan().points}
    assert signatures["pretrained"] == signatures["same"] != signatures["rounded"]


def test_only_the_seed_of_sampling(one: Measurement) -> None:
    """Runs of one row, each with a key of its own."""
    one.data["runs"] = [{"tasks": one.data.pop("tasks"), "seeds": [1, 2]}]
    plan = one.plan()
    first, second = (plan.identity(plan.points[0], run) for run in plan.points[0].point.evaluations)
    assert first.digest != second.digest and first.answers != second.answers
    assert first.agrees(second) and first.differences(second)


@pytest.mark.slow
def test_a_cache_is_of_one_setting(llama: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--use_cache` with other model arguments computes anew; with another batch size it does not."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    plugin.activate()
    asked: list[int] = []
    score = MergedHF._loglikelihood_tokens

    def counting(self: MergedHF, *arguments: Any, **options: Any) -> Any:
        asked.extend([] if self._only_looks else [1])  # what the cache knows is looked at, not computed
        return score(self, *arguments, **options)

    monkeypatch.setattr(MergedHF, "_loglikelihood_tokens", counting)

    def first(cached: bool, **extra: Any) -> float:
        found = simple_evaluate(
            model="merged", model_args={"recipe": linear(llama), "backend": "hf", **extra}, device="cpu", limit=1,
            tasks=["iberian_openbookqa_es"], bootstrap_iters=0, use_cache=str(tmp_path / "cache") if cached else None,
            task_manager=TaskManager(include_path=str(tasks_folder()), include_defaults=False),
        )  # fmt: skip
        return float(found["samples"]["iberian_openbookqa_es"][0]["resps"][0][0][0])

    plain = first(True)
    assert first(True, add_bos_token=False) == first(False, add_bos_token=False) != plain
    count = len(asked)
    assert first(True, batch_size=2) == plain and len(asked) == count


def test_generation_settings_come_with_their_point(one: Measurement, tmp_path: Path) -> None:
    """One engine, two parents: what `basque` says of repetitions holds for it and for nothing else."""
    from lm_eval.api.instance import Instance

    from merge_hooks.recipe.recipe import passthrough
    from merge_hooks.resolve.resolver import resolve

    one.change("generation_config.json", lambda config: config | {"repetition_penalty": 3.0, "eos_token_id": 2})

    def answer(model: MergedHF) -> str:
        asked = Instance("generate_until", {}, ("Kaixo, zer moduz?", {"max_gen_toks": 12, "until": []}), 0, ("t", 0, 1))
        return model.generate_until([asked], disable_tqdm=True)[0]

    def fresh(name: str) -> MergedHF:
        return MergedHF(pretrained=str(one.models[name]), dtype="float32", device="cpu")

    model, alone = fresh("basque"), {name: fresh(name) for name in one.models}
    said = {name: answer(alone[name]) for name in one.models}
    for name in ("instruct", "basque", "instruct"):
        model.swap(resolve(passthrough(str(one.models[name]), None)))
        assert answer(model) == said[name], name
        assert model.signature.digest == alone[name].signature.digest
    alone["basque"].model.generation_config.repetition_penalty = 1.0
    assert answer(alone["basque"]) != said["basque"]  # else this test sees nothing


def test_settings_in_config_json_count_where_there_is_no_other_file(one: Measurement) -> None:
    """As `from_pretrained` has it: old checkpoints keep them there."""
    (one.models["basque"] / "generation_config.json").unlink()
    before = one.identity()
    one.change("config.json", lambda config: config | {"repetition_penalty": 3.0})
    assert "generation_config repetition_penalty 3.0" in one.identity().differences(before)
    model = MergedHF(pretrained=str(one.models["basque"]), dtype="float32", device="cpu")
    assert model.model.generation_config.repetition_penalty == 3.0


@pytest.mark.parametrize("backend", ["hf", "vllm"])
def test_who_shares_an_engine(backend: str, one: Measurement) -> None:
    """vLLM reads the ids that end a text once; no engine takes another tokenizer with its weights."""
    if backend == "vllm":
        pytest.importorskip("vllm")
    models = {name: {"pretrained": str(path)} for name, path in one.models.items()}
    one.data = {**one.data, "recipes": models}

    def engines() -> int:
        return len({point.engine for point in one.plan(backend).points})

    assert engines() == 1
    one.change("generation_config.json", lambda config: config | {"temperature": 0.6, "do_sample": True})
    assert engines() == 1
    one.change("generation_config.json", lambda config: config | {"eos_token_id": [1, 2]})
    assert engines() == (1 if backend == "hf" else 2)
    one.change("generation_config.json", lambda config: config | {"eos_token_id": [1, 3]})
    one.change("tokenizer.json", lowercased)
    assert engines() == 2


@pytest.mark.parametrize(
    ("file", "before", "after", "changed"),
    [("beside_local.py", "float(", "1 - float(", "local_choice, local_words"),
     ("words.yaml", "{{question}}", "Galdera: {{question}}", "local_words")],
)  # fmt: skip
def test_a_worker_measures_what_was_planned_or_nothing(
    file: str, before: str, after: str, changed: str, one: Measurement
) -> None:
    """It may have started hours after the plan was made, or on another machine."""
    from lm_eval_iberian.sweep import kept_tasks
    from lm_eval_iberian.sweep.worker import Worker
    from tests.lm_eval_iberian.sweep.runner import ONLY_OURS

    job, said = one.plan().jobs[0], list[Any]()
    text_file(file, before, after)(one)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept_tasks, "TaskManager", ONLY_OURS)
        Worker(said.append).run(job)
    assert f"the code or the documents of {changed} changed since the sweep" in said[-1].reason


def test_files_of_other_models(tmp_path: Path) -> None:
    """Rows of lm_eval's own models, and of files older than this."""
    plain = results({"arc_easy": {"acc": 0.5}})

    def other(**arguments: Any) -> Identity:
        return of_results(
            {**plain, "config": {**plain["config"], "model_args": {"pretrained": "org/model", **arguments}}}
        )

    assert other() == of_results(plain) == other(batch_size=8, device="cuda", gpu_memory_utilization=0.5)
    assert other(max_length=64).differences(other()) == ["max_length 64"]
    assert other(add_bos_token=True).agrees(other()) is False
    text = {**plain["config"], "model_args": "pretrained=org/model,max_length=64,batch_size=2"}
    assert of_results({**plain, "config": text}) == other(max_length=64)
    chat = of_results({**plain, "chat_template_sha": "abc", "fewshot_as_multiturn": True})
    assert chat.differences(of_results(plain)) == ["chat template"]
    assert of_results(plain).differences(chat) == ["no chat template"]


def test_a_label_beside_lm_evals_own_model() -> None:
    """Its file has no hash of weights and tokenizer: that says nothing of either."""
    plain = results({"arc_easy": {"acc": 0.5}})
    stamp = {
        "weights": "1234",
        "tokenizer_hash": "56",
        "generation_config": {"eos_token_id": 1},
        "versions": {"x": "1"},
    }
    config = {"model": "merged", "model_args": {"pretrained": "org/model"}, "model_dtype": "float32", "iberian": stamp}
    theirs = of_results({**plain, "config": {**plain["config"], "model_dtype": "torch.float32"}})
    ours = of_results({**plain, "model_source": "merged", "config": config})
    assert not ours.agrees(theirs)
    assert (ours.differences(theirs), theirs.differences(ours)) == (["model merged"], ["model hf"])
    half = of_results({**plain, "config": {**plain["config"], "model_dtype": "torch.bfloat16"}})
    assert half.differences(ours) == ["model hf", "dtype bfloat16"]


def test_other_tasks_in_another_file_of_one_row() -> None:
    first, second = of_results(results({"arc_easy": {"acc": 0.5}})), of_results(results({"other": {"acc": 0.5}}))
    assert first.agrees(second) and first.digest != second.digest
    shots = of_results({**results({"arc_easy": {"acc": 0.5}}), "n-shot": {"arc_easy": 0}})
    assert first.row == shots.row and not first.agrees(shots) and first.differences(shots) == ["5 shots"]
