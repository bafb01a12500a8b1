"""What is refused, and what is counted: prompts and answers cut, ties, empty answers."""

from __future__ import annotations

import json
import math
import random
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_eval_iberian.models.counted import Counted
from lm_eval_iberian.models.counts import Cut, Tally
from lm_eval_iberian.models.questions import Pair
from lm_eval_iberian.toy.tiny import build_family
from merge_hooks.errors import EngineError
from tests.lm_eval_iberian.sweep.local_tasks import write_tasks

WORDS = ["Gasteiz", "dela", "uste", "dut", "nik", "baina", "ez", "dakit", "ziur", "zergatik", "galdetzen", "orain"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_family(tmp_path_factory.mktemp("counted"))["base"]


@pytest.fixture(scope="module")
def models(checkpoint: Path) -> dict[str, Any]:
    """Ours in both ways, and lm_eval's."""
    from lm_eval.models.huggingface import HFLM

    from lm_eval_iberian.models.hf import MergedHF

    given = {"pretrained": str(checkpoint), "dtype": "float32", "device": "cpu", "batch_size": 4}
    return {"prefix": MergedHF(**given), "full": MergedHF(**given, scoring="full"), "hf": HFLM(**given)}


@pytest.fixture(autouse=True)
def windows(models: dict[str, Any]) -> None:
    for model in models.values():
        model._max_length = 100


def instance(kind: str, arguments: tuple[Any, ...], task: str = "task", document: int | None = 0) -> Any:
    from lm_eval.api.instance import Instance

    return Instance(kind, {}, arguments, 0, (task, document, 1))


def choices(context: str, *texts: str, task: str = "task", document: int = 0) -> list[Any]:
    return [instance("loglikelihood", (context, text), task, document) for text in texts]


def swallowed(model: Any) -> tuple[str, str]:
    """(prompt, choice) that one token of the vocabulary is made of together."""
    words = sorted(model.tokenizer.decode([number]) for number in range(len(model.tokenizer)))
    known = set(words)
    for word in words:
        for length in (2, 3):
            prompt, choice = "Ane gaur" + word[:-length], word[-length:]
            whole = word.startswith(" ") and len(word) > 5 and word[:-length] in known
            if whole and not model._encode_pair(prompt, choice)[1]:
                return prompt, choice
    raise AssertionError("no such pair")


@pytest.fixture
def never_computes(models: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("prefix", "full"):
        monkeypatch.setattr(models[name].model, "forward", lambda *_, **__: pytest.fail("something was computed"))


@pytest.fixture
def no_question(monkeypatch: pytest.MonkeyPatch) -> None:
    """`prefix` asks the model whether it has a cache; that is no scoring."""
    monkeypatch.setattr("lm_eval_iberian.models.hf_answers.why_not", lambda _model: None)


@pytest.mark.parametrize("way", ["prefix", "full"])
@pytest.mark.usefixtures("never_computes", "no_question")
def test_a_choice_without_tokens_is_refused(models: dict[str, Any], way: str) -> None:
    """Also where lm_eval's own answers 0.0, because another choice has one token; also among others that are right."""
    prompt, choice = swallowed(models["hf"])
    fine = choices("Kaixo", " A", " B")
    for others in ((), (" zzz",)):
        asked = [*fine, *choices(prompt, choice, *others, task="basque_suffixes", document=7)]
        with pytest.raises(
            EngineError, match=rf"basque_suffixes, document 7: of its choice '{choice}' no token is left.*target"
        ):
            models[way].loglikelihood(asked, disable_tqdm=True)
    for context in ("Kaixo", ""):
        with pytest.raises(EngineError, match=r"task, document 0: an answer choice is empty.*doc_to_choice"):
            models[way].loglikelihood([*fine, *choices(context, "")], disable_tqdm=True)


@pytest.mark.parametrize("way", ["prefix", "full"])
@pytest.mark.usefixtures("no_question")
def test_the_longest_choice_that_lm_eval_takes_is_the_longest_of_ours(models: dict[str, Any], way: str) -> None:
    tokens = len(models["hf"]._encode_pair("Kaixo, hau da", " bai" * 5)[1])
    asked = choices("Kaixo, hau da", " bai" * 5, " ez")
    for name in (way, "hf"):
        models[name]._max_length = tokens
    assert models[way].loglikelihood(asked, disable_tqdm=True)[0][0] == pytest.approx(
        models["hf"].loglikelihood(asked, disable_tqdm=True)[0][0], abs=1e-4
    )
    for name in (way, "hf"):
        models[name]._max_length = tokens - 1
    with pytest.raises(AssertionError):
        models["hf"].loglikelihood(asked, disable_tqdm=True)
    with pytest.raises(
        EngineError, match=rf"task, document 0: its choice .* has {tokens} tokens.*max_length={tokens - 1}.*Raise"
    ):
        models[way].loglikelihood(asked, disable_tqdm=True)


@pytest.mark.slow
@pytest.mark.parametrize("scoring", ["prefix", "prompt_logprobs"])
def test_vllm_refuses_as_well(scoring: str) -> None:
    """Before its engine, which is not there, is asked. It wants room for one token more than lm_eval's hf."""
    pytest.importorskip("vllm")
    from lm_eval_iberian.models.vllm import MergedVLLM

    model = object.__new__(MergedVLLM)
    vars(model).update(_max_length=10, _scoring=scoring)
    for choice, why in (([2] * 9, "has 9 tokens, and beside one of the prompt .* holds 8"), ([], "no token is left")):
        with pytest.raises(EngineError, match=why):
            model._loglikelihood_tokens([(("prompt", "choice"), [1], [2]), (("prompt", "choice"), [1], choice)])
    with pytest.raises(EngineError, match="trivia: max_gen_toks=10 does not fit"):
        vars(model).update(_max_gen_toks=256)
        model.check_limits({"trivia": {"max_gen_toks": 10}})


@pytest.mark.usefixtures("never_computes", "no_question")
def test_a_prompt_without_tokens_is_refused_and_all_are_named(
    models: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models["prefix"], "add_bos_token", False)
    asked = [*choices("\n", " A", " B", task="one"), *choices(" ", "A", task="two", document=5)]
    with pytest.raises(EngineError, match=r"one, document 0: its prompt '\\n' has no tokens.*2 of one, 1 of two"):
        models["prefix"].loglikelihood(asked, disable_tqdm=True)


def test_cut_prompts_and_ties_are_counted_by_document(models: dict[str, Any], caplog: Any) -> None:
    long = "uste dut " * 80
    asked = [
        *choices(long, " A", " B", task="reading", document=0), *choices("Kaixo", " A", " B", task="reading", document=1),
        *choices("Kaixo", " A", " B", " A", task="trivia", document=3), *choices("Kaixo", " A", task="fine"),
    ]  # fmt: skip
    expected = {"reading": {"cut_prompts": 1, "documents": 2}, "trivia": {"ties": 1, "documents": 1}}
    theirs = models["hf"].loglikelihood(asked, disable_tqdm=True)
    for way in ("prefix", "full"):
        caplog.clear()
        scores = models[way].loglikelihood(asked, disable_tqdm=True)
        assert [score for score, _ in scores] == pytest.approx([score for score, _ in theirs], abs=1e-4)
        said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert len(said) == 2 and "1 of 2 of reading" in said[0] and "1 of 1 of trivia" in said[1]
        iberian = models[way].get_model_info()["iberian"]
        assert iberian["answers"] == expected
        assert len(iberian["warnings"]) == 2 and iberian["warnings"][0].startswith("reading: prompts cut to")
        # The next evaluation counts from nothing.
        models[way].loglikelihood(choices("Kaixo", " A"), disable_tqdm=True)
        iberian = models[way].get_model_info()["iberian"]
        assert iberian["answers"] == {} and "warnings" not in iberian


def test_known_answers_count_as_if_they_were_asked(models: dict[str, Any], caplog: Any) -> None:
    model = models["prefix"]
    asked = [*choices("uste dut " * 80, " A", " B", document=0), *choices("Kaixo", " A", " A", document=1)]
    asked += choices("uste dut " * 70, " A", " B", document=2)
    scores = model.loglikelihood(asked, disable_tqdm=True)
    whole = model.answers.counts()
    assert whole == {"task": {"cut_prompts": 2, "ties": 1, "documents": 3}}
    for cut in range(len(asked) + 1):
        caplog.clear()
        model.count_too(asked[:cut], scores[:cut])
        rest = model.loglikelihood(asked[cut:], disable_tqdm=True)
        assert len(rest) == len(asked) - cut
        assert model.answers.counts() == whole
        assert len([record for record in caplog.records if "prompts cut" in record.getMessage()]) == 1
    writes = [instance("generate_until", ("Kaixo " * n, {"until": [], "max_gen_toks": 6}), document=n) for n in (1, 2)]
    texts = model.generate_until(writes, disable_tqdm=True)
    model.count_too(writes, texts)
    assert model.generate_until([], disable_tqdm=True) == []
    assert model.answers.counts() == {"task": {"cut_answers": 2, "documents": 2}}
    model.swap(model.prepared.resolved)
    assert model.answers.counts() == {}


def test_a_store_in_front_changes_no_count(models: dict[str, Any]) -> None:
    from lm_eval_iberian.sweep.stored_lm import StoredLM

    stored: dict[str, str] = {}
    model = models["prefix"]
    scored = [*choices("uste dut " * 80, " A", " B", document=0), *choices("Kaixo", " A", " A", document=1)]
    written = [
        instance("generate_until", (text, {"until": [], "max_gen_toks": 6}), "writes") for text in ("Kaixo", "Ez")
    ]
    found = []
    for known in ({}, None):  # nothing, then all that was answered before
        before = StoredLM(
            model, "stamp", "digest", stored.copy() if known is None else known,
            lambda answers: stored.update({one.key: one.answer for one in answers}), {}, lambda *_: None,
        )  # fmt: skip
        answers = [before.loglikelihood(scored), before.generate_until(written)]
        found.append((answers, model.get_model_info()["iberian"]["answers"]))
    assert found[0] == found[1] and len(stored) == 6
    assert found[0][1] == {
        "task": {"cut_prompts": 1, "ties": 1, "documents": 2}, "writes": {"cut_answers": 1, "documents": 1},
    }  # fmt: skip


def test_cut_and_empty_answers_are_counted(models: dict[str, Any]) -> None:
    model = models["prefix"]
    free = {"until": [], "max_gen_toks": 6}
    text = model.generate_until([instance("generate_until", ("Kaixo", free))], disable_tqdm=True)[0]
    stops = {"until": [text[3:5]], "max_gen_toks": 6}
    nothing = {"until": [text[:1]], "max_gen_toks": 6}
    long = " ".join(WORDS * 20)
    asked = [
        instance("generate_until", (context, given), task, document)
        for document, (context, given, task) in enumerate(
            [
                ("Kaixo", free, "a"),
                ("Kaixo", stops, "a"),
                ("Kaixo", nothing, "b"),
                (long, free, "b"),
                ("Kaixo", free, "b"),
            ]
        )
    ]
    texts = model.generate_until(asked, disable_tqdm=True)
    assert texts == models["hf"].generate_until(asked, disable_tqdm=True)
    assert [isinstance(text, Cut) for text in texts] == [True, False, False, True, True]
    assert model.answers.counts() == {
        "a": {"cut_answers": 1, "documents": 2}, "b": {"cut_prompts": 1, "cut_answers": 2, "empty": 1, "documents": 3},
    }  # fmt: skip
    assert json.dumps(texts[0]) == json.dumps(str(texts[0]))


def test_a_limit_that_the_window_cannot_hold_is_refused(
    models: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(models["prefix"], "_model_generate", lambda *_, **__: pytest.fail("something was generated"))
    fine = instance("generate_until", ("Kaixo", {"until": [], "max_gen_toks": 6}))
    for setting in ({"max_gen_toks": 100}, {"max_new_tokens": 100}, {"max_gen_toks": 5, "max_length": 101}, {}):
        with pytest.raises(EngineError, match=r"flores: max_\w+=\d+ .*does not fit.*max_length=100.*--gen_kwargs"):
            models["prefix"].generate_until([fine, instance("generate_until", ("Kaixo", setting), "flores", 3)])
        with pytest.raises(EngineError, match="flores: "):
            models["prefix"].check_limits({"fine": {"max_gen_toks": 99}, "flores": setting})
    assert "truncation" not in caplog.text


@pytest.mark.usefixtures("never_computes", "no_question")
def test_such_a_limit_is_said_before_anything_is_scored(models: dict[str, Any], tmp_path: Path) -> None:
    """lm_eval asks for all log-likelihoods first: on a GPU that was hours before the message came."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    tasks = TaskManager(include_path=str(write_tasks(tmp_path, 3)), include_defaults=False)
    with pytest.raises(EngineError, match="local_words: max_gen_toks=100 does not fit"):
        simple_evaluate(
            models["prefix"],
            tasks=["local_choice", "local_words"],
            gen_kwargs={"max_gen_toks": 100},
            task_manager=tasks,
        )


def test_a_template_that_is_named_is_the_one_that_prompts(checkpoint: Path, tmp_path: Path) -> None:
    """lm_eval writes the named one's hash, prompts with the default one, and takes a name that there is not."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager
    from transformers import AutoTokenizer

    from lm_eval_iberian.models.hf import MergedHF

    folder = tmp_path / "model"
    shutil.copytree(checkpoint, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    usual = tokenizer.chat_template
    tokenizer.chat_template = {"default": usual, "rag": usual.replace("<|start|>", "RAG ")}
    tokenizer.save_pretrained(folder)
    tasks = TaskManager(include_path=str(write_tasks(tmp_path / "tasks", 3)), include_defaults=False)
    model = MergedHF(pretrained=str(folder), dtype="float32", device="cpu")

    def evaluate(name: str | bool) -> tuple[bool, str, str]:
        found = simple_evaluate(
            model, tasks=["local_choice"], task_manager=tasks, apply_chat_template=name, bootstrap_iters=0
        )
        prompt = found["samples"]["local_choice"][0]["arguments"][0][0]
        return "RAG user" in prompt, found["measured"]["chat"]["template"], model.tokenizer_name

    plain, named = evaluate(True), evaluate("rag")
    assert (plain[0], named[0]) == (False, True) and plain[1] != named[1]
    assert evaluate("default") == plain == evaluate(True)
    with model.template_named("rag"):
        assert model.tokenizer_name != plain[2]  # names the file of --cache_requests
    with pytest.raises(EngineError, match=r"--apply_chat_template nope: no template .*There are: default, rag\."):
        evaluate("nope")


@pytest.mark.parametrize("way", ["prefix", "full"])
def test_log_likelihoods_are_summed_in_float32(checkpoint: Path, models: dict[str, Any], way: str) -> None:
    """In bfloat16 log-probabilities near -80 come in steps of 0.5; a user's own softmax_dtype stays."""
    from lm_eval_iberian.models.hf import MergedHF

    given = {"pretrained": str(checkpoint), "dtype": "bfloat16", "device": "cpu", "batch_size": 4, "scoring": way}
    draw = random.Random(1)
    asked = [one for number in range(20) for one in choices("", *(" ".join(draw.sample(WORDS, k=12)) for _ in range(2)),
                                                            document=number)]  # fmt: skip
    mended, as_given = MergedHF(**given), MergedHF(**given, softmax_dtype="bfloat16")
    exact, scores, rounded = (
        [score for score, _ in model.loglikelihood(asked, disable_tqdm=True)]
        for model in (models["prefix"], mended, as_given)
    )
    assert mended.answers.counts() == {}
    assert _apart(scores, exact) < min(0.2, _apart(rounded, exact) / 2)


def _apart(some: list[float], others: list[float]) -> float:
    return max(abs(one - other) for one, other in zip(some, others, strict=True))


@pytest.mark.parametrize("way", ["prefix", "full"])
@pytest.mark.usefixtures("no_question")
def test_texts_are_encoded_anew_when_their_beginning_is_another(models: dict[str, Any], way: str) -> None:
    """`add_bos_token` may be set on a model that has scored: lm_eval's own reads it at each request."""
    asked, found = choices("Gasteiz dela", " ez dakit", " baina"), []
    for bos in (None, True, False, True):
        for name in (way, "hf"):
            models[name].add_bos_token = bos
        ours, theirs = (
            [score for score, _ in models[name].loglikelihood(asked, disable_tqdm=True)] for name in (way, "hf")
        )
        assert ours == pytest.approx(theirs, abs=1e-4), bos
        found.append(ours)
        for name in (way, "hf"):
            models[name].add_bos_token = None
    assert found[2] != pytest.approx(found[1], abs=1e-4) and found[3] == pytest.approx(found[1], abs=1e-4)


@pytest.fixture(scope="module")
def of_files(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Makes a copy of the checkpoint whose tokenizer puts texts between these tokens."""

    def make(frame: str) -> Path:
        folder = tmp_path_factory.mktemp("framed") / "model"
        shutil.copytree(checkpoint, folder)
        file = folder / "tokenizer.json"
        tokenizer = json.loads(file.read_text())
        parts = [{"Sequence": {"id": "A", "type_id": 0}} if part == "$A" else {"SpecialToken": {"id": part, "type_id": 0}}
                 for part in frame.split()]  # fmt: skip
        ids = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
        special = {name: {"id": name, "ids": [ids[name]], "tokens": [name]} for name in frame.split() if name != "$A"}
        tokenizer["post_processor"] |= {"single": parts, "pair": parts, "special_tokens": special}
        file.write_text(json.dumps(tokenizer))
        return folder

    return make


@pytest.mark.parametrize("bos", [True, False, None])
def test_bos_where_the_tokenizer_has_one_and_does_not_add_it(of_files: Any, bos: bool | None) -> None:
    """lm_eval hands `add_bos_token` to transformers, which then changes what such a tokenizer (GPT-2's) adds."""
    from lm_eval.models.huggingface import HFLM

    from lm_eval_iberian.models.hf import MergedHF

    given = {"pretrained": str(of_files("$A")), "dtype": "float32", "device": "cpu", "add_bos_token": bos}
    ours, theirs = MergedHF(**given), HFLM(**given)
    assert ours.tok_encode("Kaixo") == theirs.tok_encode("Kaixo")
    assert (ours.tok_encode("Kaixo")[0] == ours.tokenizer.bos_token_id) is (bos is True)
    asked = choices("Gasteiz dela", " ez dakit", " baina")
    assert [score for score, _ in ours.loglikelihood(asked, disable_tqdm=True)] == pytest.approx(
        [score for score, _ in theirs.loglikelihood(asked, disable_tqdm=True)], abs=1e-4
    )


@pytest.mark.usefixtures("no_question")
@pytest.mark.parametrize("frame", ["$A <|end_of_text|>", "<|begin_of_text|> $A <|end_of_text|>"])
def test_prompts_that_the_tokenizer_ends_are_refused(of_files: Any, frame: str) -> None:
    """With `add_eos_token` lm_eval scores each choice as the beginning of another text; those of one token all tie."""
    from lm_eval_iberian.models.hf import MergedHF

    model = MergedHF(pretrained=str(of_files(frame)), dtype="float32", device="cpu")
    for ask in (
        lambda: model.loglikelihood(choices("Kaixo", " A", " B"), disable_tqdm=True),
        lambda: model.generate_until([instance("generate_until", ("Kaixo", {"max_gen_toks": 3}))], disable_tqdm=True),
    ):
        with pytest.raises(EngineError, match=r"task, document 0: the tokenizer ends each prompt with <\|end_of_text"):
            ask()
    # What a chat template made begins with BOS, and gets nothing more.
    for said in ("<|begin_of_text|>Kaixo", ""):
        assert len(set(model.loglikelihood(choices(said, " A", " B"), disable_tqdm=True))) == 2
    model.add_bos_token = False
    assert len(set(model.loglikelihood(choices("Kaixo", " A", " B"), disable_tqdm=True))) == 2


@pytest.mark.parametrize("way", ["prefix", "full"])
@pytest.mark.usefixtures("no_question")
def test_choices_that_are_joined_to_the_prompt_are_counted(models: dict[str, Any], way: str, caplog: Any) -> None:
    """A token holds the prompt's end and the choice's beginning: lm_eval's number, but that of the rest alone."""
    prompt, choice = swallowed(models["hf"])
    asked = [*choices(prompt, f"{choice} bai", " ez", task="suffixes", document=4), *choices("Kaixo", " A", " B")]
    scores, expected = (
        [score for score, _ in models[name].loglikelihood(asked, disable_tqdm=True)] for name in (way, "hf")
    )
    assert scores == pytest.approx(expected, abs=1e-4)
    assert models[way].answers.counts() == {"suffixes": {"joined": 1, "documents": 1}}
    assert "the tokenizer joins to the prompt" in caplog.text


def test_each_text_is_encoded_ahead_wherever_a_batch_of_them_ends(
    models: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a prompt of blanks only the whole text is encoded, so a batch may end between a text and its prompt."""
    from lm_eval.models.huggingface import HFLM

    from lm_eval_iberian.models import encoding

    alone: list[str] = []
    plain = HFLM.tok_encode

    def noting(self: Any, string: Any, *arguments: Any, **options: Any) -> Any:
        alone.extend([string] if not arguments and not options else [])
        return plain(self, string, *arguments, **options)

    monkeypatch.setattr(encoding, "AT_ONCE", 3)
    monkeypatch.setattr(HFLM, "tok_encode", noting)
    models["prefix"].loglikelihood([one for word in WORDS for one in choices(f"{word} da", " bai", " ez")])
    assert alone == []


@pytest.mark.parametrize("way", ["prefix", "full"])
@pytest.mark.usefixtures("no_question")
def test_texts_that_are_alike_and_split_at_different_places(models: dict[str, Any], way: str) -> None:
    """HFLM computes them once, and read the shorter choice where the longer one begins."""
    for model in (models["hf"], models[way]):
        one = (("Kaixo", " a b"), [0, 20, 30], [40, 50, 60])
        other = (("Kaixo a b", " c"), [0, 20, 30, 40, 50], [70])
        together = [score for score, _ in model._loglikelihood_tokens([one, other], disable_tqdm=True)]
        alone = [model._loglikelihood_tokens([pair], disable_tqdm=True)[0][0] for pair in (one, other)]
        is_right = together == pytest.approx(alone, abs=1e-4)
        assert is_right is (model is not models["hf"])  # where lm_eval is right as well, none of this is needed
    assert models[way].logits_cache


lengths = st.integers(0, 12)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(lengths, st.lists(lengths, min_size=1, max_size=3)), min_size=1, max_size=4),
    st.integers(2, 14), st.sampled_from([None, True, False]), st.sampled_from(["prefix", "full"]),
    st.sampled_from(["", " ", "\n"]), st.randoms(),
)  # fmt: skip
def test_either_lm_evals_number_or_a_refusal(
    models: dict[str, Any],
    asked: list[tuple[int, list[int]]],
    window: int,
    bos: bool | None,
    way: str,
    end: str,
    draw: Any,
) -> None:
    """lm_eval's hf is asked choice by choice, without its shortcut for single tokens, which answers for no token at all."""
    requests = [
        one
        for document, (length, choice_lengths) in enumerate(asked)
        for one in choices(" ".join(draw.choices(WORDS, k=length)) + end,
                           *("".join(f" {word}" for word in draw.choices(WORDS, k=k)) for k in choice_lengths),
                           document=document)
    ]  # fmt: skip
    for model in (models[way], models["hf"]):
        model._max_length, model.add_bos_token = window, bos
    try:
        expected = [models["hf"].loglikelihood([request], disable_tqdm=True)[0] for request in requests]
    except (AssertionError, IndexError):
        expected = None
    try:
        found = models[way].loglikelihood(requests, disable_tqdm=True)
    except EngineError:
        found = None
    for model in (models[way], models["hf"]):
        model.add_bos_token = None
    assert (found is None) == (expected is None)
    if found is not None and expected is not None:
        assert [score for score, _ in found] == pytest.approx([score for score, _ in expected], abs=1e-4)
        assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]


class TestTies:
    """Which likelihoods are compared with each other."""

    def ties(self, *asked: tuple[str, str, float], document: int | None = 0) -> dict[str, Any]:
        tally = Tally()
        requests = [instance("loglikelihood", (context, text), "t", document) for context, text, _ in asked]
        for request in requests:
            tally.saw(request)
        tally.note_ties(requests, [(value, False) for _, _, value in asked])
        return tally.counts()

    def test_choices_of_one_context(self) -> None:
        assert self.ties(("c", "a", -1.0), ("c", "b", -1.0)) == {"t": {"ties": 1, "documents": 1}}
        assert self.ties(("c", "a", -1.0), ("c", "b", -1.0000001)) == {}

    def test_one_of_several_contexts_is_enough(self) -> None:
        asked = (("c", "a", -1.0), ("c", "b", -1.0), ("d", "a", -2.0), ("d", "b", -3.0))
        assert self.ties(*asked) == {"t": {"ties": 1, "documents": 1}}

    def test_contexts_that_are_choices(self) -> None:
        assert self.ties(("a", "x", -1.0), ("b", "x", -1.0)) == {"t": {"ties": 1, "documents": 1}}

    def test_likelihoods_with_and_without_a_context_are_not_compared(self) -> None:
        assert self.ties(("c", "a", -1.0), ("c", "b", -2.0), ("", "a", -2.0), ("", "b", -3.0)) == {}

    def test_requests_of_no_document_are_not_compared(self) -> None:
        assert self.ties(("c", "a", -1.0), ("c", "b", -1.0), document=None) == {}


def test_blanks_are_no_answer() -> None:
    tally = Tally()
    asked = [instance("generate_until", ("q", {}), document=number) for number in range(3)]
    tally.note_answers(asked, ["", " \n", "a"])
    for one in asked:
        tally.saw(one)
    assert tally.counts() == {"task": {"empty": 2, "documents": 3}}


def test_what_is_asked_again_is_another_evaluation() -> None:
    """lm_eval asks once a type; log-likelihoods and generation of one evaluation are counted together."""
    tally = Tally()
    for kind, document in (("loglikelihood", 0), ("generate_until", 1), ("loglikelihood", 2)):
        tally.begin(kind)
        request = instance(kind, ("q", "a"), document=document)
        tally.saw(request)
        tally.note("ties", request)
        expected = {0: 1, 1: 2, 2: 1}[document]
        assert tally.counts() == {"task": {"ties": expected, "documents": expected}}


@pytest.mark.parametrize("way", ["prefix", "full"])
@pytest.mark.usefixtures("no_question")
def test_a_prompt_is_cut_where_it_does_not_fit_with_its_choice(models: dict[str, Any], way: str) -> None:
    asked = choices("Gasteiz dela uste dut", " bai baina ez")
    together = sum(map(len, models["hf"]._encode_pair(*asked[0].args)))
    for room, cut in ((0, {}), (1, {"task": {"cut_prompts": 1, "documents": 1}})):
        models[way]._max_length = together - 1 - room  # hf puts in all but the last token
        models[way].loglikelihood(asked, disable_tqdm=True)
        assert models[way].answers.told()["answers"] == cut


def test_a_prompt_is_cut_where_it_does_not_fit_with_its_answer(models: dict[str, Any]) -> None:
    model = models["prefix"]
    prompt = "Gasteiz dela uste dut"
    tokens = len(models["hf"].tok_encode(prompt))
    for room, cut in ((0, 0), (1, 1)):
        model._max_length = tokens + 6 - room
        model.generate_until(
            [instance("generate_until", (prompt, {"until": [], "max_gen_toks": 6}))], disable_tqdm=True
        )
        assert model.answers.told()["answers"]["task"].get("cut_prompts", 0) == cut


def test_known_answers_are_those_of_their_own_documents(models: dict[str, Any]) -> None:
    model = models["prefix"]
    known, asked = (
        instance("generate_until", ("Kaixo", {"until": [], "max_gen_toks": 6}), task) for task in ("a", "b")
    )
    model.count_too([known], [""])
    model.generate_until([asked], disable_tqdm=True)
    assert model.answers.told()["answers"] == {
        "a": {"empty": 1, "documents": 1}, "b": {"cut_answers": 1, "documents": 1},
    }  # fmt: skip


def test_a_cache_in_front_changes_no_count(models: dict[str, Any], tmp_path: Path) -> None:
    """`--use_cache`: the first run computes, the second is answered from the file in part, the third wholly."""
    import lm_eval.api.model

    from lm_eval_iberian import plugin

    plugin.activate()
    model = models["prefix"]
    requests = [*choices("luze " * 300, " bat", " bat"), *choices("Kaixo", " bi", " hiru", document=1)]
    written = [
        instance("generate_until", ("Kaixo", {"until": ["\n\n"], "max_gen_toks": 3}), document=number)
        for number in (0, 1)
    ]
    cache = lm_eval.api.model.CachingLM(model, str(tmp_path / "cache.db"))
    counts = []
    for part in (2, 4, 4):
        cache.loglikelihood(requests[:part])
        cache.generate_until(written[: part // 2])
        counts.append(model.answers.told()["answers"])
    assert counts[0] == {"task": {"cut_prompts": 1, "cut_answers": 1, "ties": 1, "documents": 1}}
    assert counts[1] == counts[2] == {"task": {"cut_prompts": 1, "cut_answers": 2, "ties": 1, "documents": 2}}


def test_what_no_engine_answers_is_not_a_number() -> None:
    """Not 0.0, which would be probability 1, and win."""
    model: Any = Counted()
    model.cache_hook = SimpleNamespace(add_partial=lambda *_: None)
    pairs = [Pair(None, (1,), (2,)), Pair(None, (1,), (3,))]
    scores = model._scored(pairs, True, lambda pairs, take: take(1, (-2.5, True)))
    assert math.isnan(scores[0][0]) and scores[0][1] is False and scores[1] == (-2.5, True)
