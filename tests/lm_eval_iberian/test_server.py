"""`backend=server` against a stand-in: what is asked, what is refused, what goes wrong and is mended.

A real server: test_server_vllm.py.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lm_eval_iberian.models.questions import Pair, Score
from lm_eval_iberian.models.server_batches import ask_in_batches
from lm_eval_iberian.models.server_scoring import score_by_questions
from merge_hooks.engines.vllm_server import RefusedError, Server, ServerAwayError
from merge_hooks.errors import ChangedError, EngineError
from tests.conftest import linear
from tests.lm_eval_iberian.stand_in_server import VOCABULARY, StandInServer, complete, row_after


@pytest.fixture
def stand_in() -> Iterator[StandInServer]:
    server = StandInServer()
    yield server
    server.close()


def client(stand_in: StandInServer, **options: Any) -> Server:
    """A client that does not sleep; `waits` says for how long it would have."""
    waits: list[float] = []
    made = Server(stand_in.url, pause=waits.append, **options)
    made.waits = waits  # type: ignore[attr-defined]
    return made


# Log-likelihoods


def score_by_hand(weights: str, pair: Pair) -> Score:
    """The sum over the table, and whether each token is the likeliest."""
    total, greedy = 0.0, True
    for place, token in enumerate(pair.continuation):
        row = row_after(weights, [*pair.prompt, *pair.continuation[:place]])
        said = row[token % VOCABULARY]
        total, greedy = total + said, greedy and said >= max(row)
    return total, greedy


@pytest.mark.parametrize("block_size", [4, 16, None])
@pytest.mark.parametrize("fills_up", [False, True])
def test_questions_over_the_api_give_the_tables_sums(block_size: int | None, fills_up: bool) -> None:
    """Short and long prompts and choices, token 0 among them, also where vLLM hides it."""
    dice = random.Random(block_size)
    prompts = [tuple(dice.choices(range(VOCABULARY), k=length)) for length in (1, 3, 9, 30)]
    pairs = [
        Pair(("", ""), prompt, tuple(dice.choices([0, 1, 2, 3], k=dice.choice([1, 1, 2, 5, 9]))))
        for prompt in prompts for _ in range(12)
    ]  # fmt: skip
    # Where token 0 is the likeliest, and hidden, others are still not greedy.
    for prompt in [(n, n, n, n, n) for n in range(400) if (row := row_after("w", [n] * 5))[0] == max(row)]:
        pairs += [Pair(("", ""), prompt, (token,)) for token in (0, 7)]
    # Choices that are greedy from end to end; some begin with the likeliest token 0.
    for prompt in prompts:
        written: tuple[int, ...] = ()
        for _ in range(3):
            row = row_after("w", [*prompt, *written])
            written = (*written, max(range(VOCABULARY), key=row.__getitem__))
            pairs.append(Pair(("", ""), prompt, written))
    sent: list[Any] = []

    def ask(bodies: Iterable[Any], take: Callable[[int, Any], None]) -> None:
        for place, body in enumerate(bodies):
            sent.append(body)
            take(place, complete("w", body, fills_up))

    found: dict[int, Score] = {}
    score_by_questions(ask, pairs, found.__setitem__, block_size)
    wanted = [score_by_hand("w", pair) for pair in pairs]
    assert [found[place][0] for place in range(len(pairs))] == pytest.approx([score for score, _ in wanted], abs=1e-9)
    assert [found[place][1] for place in range(len(pairs))] == [greedy for _, greedy in wanted]
    assert sum(greedy for _, greedy in wanted) >= 12
    # Settings of the server's generation_config.json hold for none of them.
    assert all(body["repetition_penalty"] == 1.0 and body["temperature"] == 0.0 and body["top_k"] == 0 for body in sent)


def test_choices_that_begin_alike_go_in_one_request() -> None:
    pairs = [Pair(("", ""), (n, 1, 2, 3), (choice,)) for n in range(20) for choice in (5, 6, 7, 8)]
    sent: list[Any] = []

    def ask(bodies: Iterable[Any], take: Callable[[int, Any], None]) -> None:
        for place, body in enumerate(bodies):
            sent.append(body)
            take(place, complete("w", body))

    score_by_questions(ask, pairs, lambda *_: None, 4)
    assert [len(body["prompt"]) for body in sent] == [16, 4]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"token_logprobs": [3.5]}, "another --logprobs-mode"),
        ({"tokens": ["Bai"]}, "by texts"),
        ({"top_logprobs": [{"token_id:1": -1.0}]}, "other tokens"),
        ({"tokens": []}, "of one token"),
    ],
)
def test_answers_that_are_none_are_refused(change: dict[str, Any], words: str) -> None:
    def ask(bodies: Iterable[Any], take: Callable[[int, Any], None]) -> None:
        for place, body in enumerate(bodies):
            answer = complete("w", body, fills_up=False)
            answer["choices"][0]["logprobs"] |= change
            take(place, answer)

    with pytest.raises(EngineError, match=words):
        score_by_questions(ask, [Pair(("", ""), (1, 2), (3,))], lambda *_: None, 4)


# The client


def test_it_asks_again_after_a_while(stand_in: StandInServer) -> None:
    stand_in.trouble = [503, 0, 429]
    server = client(stand_in)
    assert server.get("/version") == {"version": "0.32.0"}
    assert stand_in.asked["/version"] == 4
    waits = server.waits  # type: ignore[attr-defined]
    assert len(waits) == 3 and 0.25 <= waits[0] <= 0.5 and 1.0 <= waits[2] <= 2.0


def test_it_gives_up_and_says_where(stand_in: StandInServer) -> None:
    stand_in.trouble = [503] * 9
    with pytest.raises(ServerAwayError, match=rf"{stand_in.url}: the server does not answer .*503.*a bad day"):
        client(stand_in).get("/version")


def test_a_swap_is_not_sent_twice(stand_in: StandInServer) -> None:
    stand_in.trouble = [503]
    with pytest.raises(ServerAwayError):
        client(stand_in).collective_rpc("merge_swap", args=["{}", "off", True])
    assert stand_in.asked["/collective_rpc"] == 1


def test_an_answer_that_takes_too_long(stand_in: StandInServer) -> None:
    stand_in.seconds = 0.5
    with pytest.raises(ServerAwayError, match="no answer within 0 s; timeout= waits longer"):
        client(stand_in, timeout=0.05).post("/v1/completions", {"prompt": [1], "max_tokens": 1}, tries=1)


def test_what_the_server_refuses_is_said_in_its_words(stand_in: StandInServer) -> None:
    stand_in.answers["/v1/completions"] = (400, {"error": {"message": "This model's maximum\ncontext length is 64"}})
    with pytest.raises(RefusedError, match="maximum context length is 64"):
        client(stand_in).post("/v1/completions", {})
    assert stand_in.asked["/v1/completions"] == 1


def test_a_dead_engine_is_a_server_that_is_away(stand_in: StandInServer) -> None:
    stand_in.answers |= {"/v1/completions": (500, {"error": "EngineDeadError"}), "/health": (503, "")}
    with pytest.raises(ServerAwayError, match="engine has died"):
        client(stand_in).post("/v1/completions", {})


def test_keys(stand_in: StandInServer) -> None:
    stand_in.key = "secret"
    assert client(stand_in, key="secret").version == "0.32.0"
    with pytest.raises(EngineError, match="VLLM_API_KEY"):
        client(stand_in, key="guess").get("/v1/models")


def test_it_waits_for_a_server_that_is_away(stand_in: StandInServer) -> None:
    stand_in.trouble = [503, 503, 0]
    client(stand_in).wait()
    assert stand_in.asked["/health"] == 4
    stand_in.answers["/health"] = (503, "")
    with pytest.raises(ServerAwayError, match="no healthy server there for 0 s"):
        client(stand_in, patience=0.0).wait()


@pytest.mark.parametrize(
    ("version", "is_right"), [("0.31.9", False), ("0.33.1+cpu", True), ("0.34.0", False), ("1.0", False)]
)
def test_versions(stand_in: StandInServer, version: str, is_right: bool) -> None:
    stand_in.version = version
    if is_right:
        assert client(stand_in).version == version
    else:
        with pytest.raises(EngineError, match=rf"the server is vLLM {version}; checked are >=0.32 and <0.34"):
            _ = client(stand_in).version


def test_a_server_of_another_kind(stand_in: StandInServer) -> None:
    stand_in.answers["/version"] = (404, {"detail": "Not Found"})
    with pytest.raises(EngineError, match="no vLLM answers there"):
        _ = client(stand_in).version


def test_addresses() -> None:
    assert Server("http://host:8000/v1/").base_url == "http://host:8000"
    with pytest.raises(EngineError, match="write it with http://"):
        Server("host:8000")


# Batches


class Holding:
    """A holder that writes down what it is asked to do."""

    def __init__(self, server: Server, checks: list[Exception | None]) -> None:
        self.server, self.checks, self.did = server, checks, ""

    def hold(self) -> None:
        self.did += "h"

    def renew(self) -> None:
        self.did += "n"

    def check(self) -> None:
        self.did += "c"
        if self.checks and (error := self.checks.pop(0)):
            raise error

    def release(self) -> None:
        self.did += "r"

    def recover(self) -> None:
        self.did += "w"


BODIES = [{"prompt": [number], "max_tokens": 1} for number in range(7)]


def test_answers_of_a_batch_that_does_not_count_are_dropped(stand_in: StandInServer) -> None:
    """Somebody swaps during the first batch: all of it is asked again, and nothing of it is passed on."""
    stand_in.changes_after = 3
    holder = Holding(client(stand_in), [ChangedError("other weights")])
    taken: dict[int, Any] = {}
    recover = holder.recover

    def put_right() -> None:
        assert taken == {}
        stand_in.weights = "first"
        recover()

    holder.recover = put_right  # type: ignore[method-assign]
    ask_in_batches(holder, BODIES, taken.__setitem__, concurrent=2)
    assert taken == {place: complete("first", body) for place, body in enumerate(BODIES)}
    assert holder.did == "hcwhchcr"


def test_a_batch_ends_when_its_time_is_up(stand_in: StandInServer) -> None:
    holder = Holding(client(stand_in), [])
    taken: dict[int, Any] = {}
    ask_in_batches(holder, BODIES, taken.__setitem__, concurrent=1, seconds=0.0)
    assert sorted(taken) == list(range(7)) and holder.did == "hc" * 8 + "r"


def test_a_server_that_dies_is_waited_for(stand_in: StandInServer) -> None:
    stand_in.trouble = [0] * 5
    holder = Holding(client(stand_in), [])
    taken: dict[int, Any] = {}
    ask_in_batches(holder, BODIES[:1], taken.__setitem__, concurrent=1)
    assert sorted(taken) == [0] and holder.did == "hwhchcr"


def test_it_ends_where_somebody_changes_the_server_again_and_again(stand_in: StandInServer) -> None:
    holder = Holding(client(stand_in), [ChangedError("other weights")] * 9)
    with pytest.raises(ChangedError):
        ask_in_batches(holder, BODIES, lambda *_: pytest.fail("an answer that does not count"), concurrent=2)
    assert holder.did == "hcw" * 3 + "hcr"


def test_an_error_of_a_request_is_raised(stand_in: StandInServer) -> None:
    stand_in.answers["/v1/completions"] = (400, {"error": {"message": "no"}})
    with pytest.raises(RefusedError):
        ask_in_batches(Holding(client(stand_in), []), BODIES, lambda *_: None, concurrent=2)


# The model


@pytest.fixture
def of_llama(llama: dict[str, Path]) -> Iterator[StandInServer]:
    """A stand-in that says it serves the tiny base."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(llama["base"]))
    server = StandInServer(str(llama["base"]), tokens=lambda text: list(tokenizer(text)["input_ids"]))
    yield server
    server.close()


def model(stand_in: StandInServer, **arguments: Any) -> Any:
    from lm_eval_iberian.models import Merged

    return Merged(backend="server", base_url=stand_in.url, patience=0, **arguments)


def test_a_plain_server_is_marked_as_not_proved(of_llama: StandInServer, llama: dict[str, Path]) -> None:
    """Without development mode nobody can tell what it computes with: another signature, and the results say so."""
    proved = model(of_llama)
    assert proved.get_model_info()["iberian"]["proof"] == "proved"
    of_llama.is_dev, of_llama.merged = False, False
    plain = model(of_llama)
    said = plain.get_model_info()["iberian"]
    assert said["proof"].startswith("not proved: the server cannot be asked")
    assert "proof:none" in said["signature"] and "proof:none" not in str(proved.signature)
    assert plain.signature.weights != proved.signature.weights
    assert plain.identity.answers != proved.identity.answers
    assert "vllm-server:0.32.0 window 64" in said["signature"]


def test_bos_where_the_tokenizer_has_one_and_does_not_add_it(
    of_llama: StandInServer, llama: dict[str, Path], tmp_path: Path
) -> None:
    """As lm_eval's vLLM, which hands `add_bos_token` to transformers. The server itself goes on without it."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(llama["base"]), add_bos_token=False)
    tokenizer.save_pretrained(tmp_path)
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"post_processor": None}))
    plain = AutoTokenizer.from_pretrained(tmp_path)
    of_llama.tokens = lambda text: list(plain(text)["input_ids"])
    tokens = of_llama.tokens("Kaixo")
    for begins, expected in ((True, [plain.bos_token_id, *tokens]), (False, tokens), (None, tokens)):
        ours = model(of_llama, tokenizer=str(tmp_path), add_bos_token=begins)
        assert (begins, ours.tok_encode("Kaixo"), ours.tok_encode(["Kaixo"])) == (begins, expected, [expected])


def test_a_recipe_that_needs_a_swap_is_refused_with_the_way_to_start(
    of_llama: StandInServer, llama: dict[str, Path]
) -> None:
    of_llama.is_dev = False
    wanted = "not in development mode.*VLLM_SERVER_DEV_MODE=1 vllm serve .*--worker-extension-cls"
    with pytest.raises(EngineError, match=wanted):
        model(of_llama, recipe=linear(llama))
    with pytest.raises(EngineError, match=wanted):
        model(of_llama, pretrained=str(llama["instruct"]))
    of_llama.is_dev = True
    with pytest.raises(EngineError, match="swap=never was said"):
        model(of_llama, recipe=linear(llama), swap="never")


def test_without_swaps_a_sweep_measures_what_is_served(of_llama: StandInServer, llama: dict[str, Path]) -> None:
    """As a sweep asks: the served model again is no swap; any other point is refused, and the model goes on."""
    from lm_eval.api.instance import Instance

    from merge_hooks.recipe import read_recipe
    from merge_hooks.recipe.recipe import passthrough
    from merge_hooks.resolve import resolve

    of_llama.is_dev = False
    plain = model(of_llama)
    with pytest.raises(EngineError, match="not in development mode"):
        plain.swap(resolve(read_recipe(linear(llama))))
    assert plain.swap(resolve(passthrough(str(llama["base"]), None))) == ""
    asked = Instance("loglikelihood", {}, ("Bai", " ez"), 0)
    assert plain.loglikelihood([asked], disable_tqdm=True)[0][0] < 0


def test_a_server_that_somebody_swapped_is_not_scored_under_its_own_name(of_llama: StandInServer) -> None:
    of_llama.change("a merge", "a" * 32)
    with pytest.raises(EngineError, match="holds other weights"):
        model(of_llama, swap="never")


def test_other_weights_between_batches_are_put_right(of_llama: StandInServer, llama: dict[str, Path]) -> None:
    """The stand-in changes during a batch and between two calls: scores are those of our weights."""
    from lm_eval.api.instance import Instance

    ours = model(of_llama, recipe=linear(llama))
    requests = [Instance("loglikelihood", {}, (f"Bai {number}", " ez"), number) for number in range(4)]
    pairs = [Pair(None, *map(tuple, ours._encode_pair(*request.args))) for request in requests]
    wanted = [pytest.approx(score_by_hand("ours", pair)[0]) for pair in pairs]
    of_llama.changes_after = 2
    assert [score for score, _ in ours.loglikelihood(requests, disable_tqdm=True)] == wanted
    of_llama.change("somebody else's", "f" * 32)
    assert [score for score, _ in ours.loglikelihood(requests, disable_tqdm=True)] == wanted
    assert of_llama.asked["/pause"] == 3 and of_llama.owner == ""
    assert len(of_llama.salts) == 3  # nothing is found in a cache that other weights have filled


def test_a_swap_that_another_overtakes_is_made_again(of_llama: StandInServer, llama: dict[str, Path]) -> None:
    """Somebody else swaps between our swap and its proof, which is then of other weights, and right for these."""
    from lm_eval.api.instance import Instance

    worker, overtakes = of_llama._worker, iter([True])

    def overtaken(method: str, arguments: list[Any]) -> Any:
        said = worker(method, arguments)
        if method == "merge_swap" and next(overtakes, False):
            of_llama.change("somebody else's", "e" * 32)
        return said

    of_llama._worker = overtaken  # type: ignore[method-assign]
    ours = model(of_llama, recipe=linear(llama))
    requests = [Instance("loglikelihood", {}, (f"Bai {number}", " ez"), number) for number in range(4)]
    pairs = [Pair(None, *map(tuple, ours._encode_pair(*request.args))) for request in requests]
    wanted = [pytest.approx(score_by_hand("ours", pair)[0]) for pair in pairs]
    assert [score for score, _ in ours.loglikelihood(requests, disable_tqdm=True)] == wanted
    assert ours.swap_digest == "d" * 32 and of_llama.asked["/pause"] == 2


def test_no_swap_after_the_turn_was_lost(of_llama: StandInServer, llama: dict[str, Path]) -> None:
    """The pause before a swap waits for requests under way; so long, that the turn may be another's by then."""
    ours, before = model(of_llama), of_llama.stamp
    answer = of_llama.answer

    def slow(path: str, body: Any) -> tuple[int, Any]:
        if path == "/pause":
            of_llama.owner = "gpu7:123"
        return answer(path, body)

    of_llama.answer = slow  # type: ignore[method-assign]
    with pytest.raises(EngineError, match="gpu7:123 is using this server"):  # what it waits for when it tries again
        ours._put_in(ours.prepared)
    assert of_llama.stamp == before


def test_a_merge_that_came_and_went_is_noticed_by_who_does_not_swap(of_llama: StandInServer) -> None:
    """Their text is answered as before by then; the workers still say that it is another load."""
    plain = model(of_llama, swap="never")
    assert plain.proof.in_words.startswith("not proved")
    plain.check()
    of_llama.stamp = "started anew"
    with pytest.raises(ChangedError, match="started anew"):
        plain.check()
    plain.check()
    before = of_llama.weights
    of_llama.change("a merge", "a" * 32)
    of_llama.change(before, "b" * 32)
    with pytest.raises(EngineError, match="somebody else put a merge into the server"):
        plain.check()


def test_who_is_not_swapped_right_notices_by_a_text(of_llama: StandInServer) -> None:
    of_llama.is_dev = False
    of_llama.answers["/v1/completions"] = (200, None)
    canaries = iter([-1.0, -1.02, -1.2])
    from lm_eval_iberian.models.server import MergedServer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MergedServer, "_sing", lambda self: [next(canaries)])
        plain = model(of_llama)
        plain.check()
        with pytest.raises(EngineError, match="answers otherwise than at the start"):
            plain.check()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"api_key": "x"}, "VLLM_API_KEY"),
        ({"tensor_parallel_size": 2}, "was started with its own"),
        ({"max_length": 4096}, "--max-model-len 4096"),
        ({"dtype": "bfloat16"}, "computes in float32, wanted is bfloat16"),
        ({"served": "other"}, "does not serve other"),
        ({"colour": "red"}, "no such argument"),
    ],
)
def test_arguments(of_llama: StandInServer, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(EngineError, match=words):
        model(of_llama, **arguments)


def test_another_tokenizer_is_refused(of_llama: StandInServer) -> None:
    of_llama.tokens = lambda text: list(text.encode())
    with pytest.raises(EngineError, match="makes other tokens of a text"):
        model(of_llama)


def test_other_log_probabilities_are_refused(of_llama: StandInServer) -> None:
    of_llama.model_config["logprobs_mode"] = "raw_logits"
    with pytest.raises(EngineError, match="--logprobs-mode raw_logits"):
        model(of_llama)


def test_keys_and_values_outside_of_the_engine_are_refused(of_llama: StandInServer) -> None:
    """Emptying the prefix cache leaves them there, and some are found by the tokens alone."""
    of_llama.configuration["kv_transfer_config"] = {"kv_connector": "OffloadingConnector", "kv_role": "kv_both"}
    with pytest.raises(EngineError, match=r"outside of its engine \(OffloadingConnector\)"):
        model(of_llama)


@pytest.mark.slow
def test_other_files_on_the_servers_machine_are_refused(of_llama: StandInServer, llama: dict[str, Path]) -> None:
    worker = of_llama._worker

    def other(method: str, arguments: list[Any]) -> Any:
        return {"prints": {}} if method == "merge_prints" else worker(method, arguments)

    of_llama._worker = other  # type: ignore[method-assign]
    with pytest.raises(EngineError, match="holds other files than here"):
        model(of_llama, recipe=linear(llama))
    assert of_llama.asked["/pause"] == 0


@pytest.mark.slow
def test_a_server_that_comes_back_as_another_is_refused(of_llama: StandInServer) -> None:
    ours = model(of_llama)
    of_llama.window = 32
    with pytest.raises(EngineError, match="came back as another one: window is 32, before 64"):
        ours.recover()


def test_somebody_elses_turn_is_waited_for(of_llama: StandInServer) -> None:
    ours = model(of_llama)
    of_llama.owner = "gpu7:123"
    with pytest.raises(EngineError, match="gpu7:123 is using this server"):
        ours.hold()


@pytest.mark.slow
def test_answers_that_the_server_cuts_itself_are_refused(of_llama: StandInServer) -> None:
    from lm_eval.api.instance import Instance

    ours = model(of_llama)
    asked = Instance("generate_until", {}, ("Kaixo", {"until": ["\n"], "max_gen_toks": 9}), 0)
    assert ours.generate_until([asked], disable_tqdm=True) == ["abc"]
    of_llama.spoil = lambda _, answer: answer | {"usage": answer["usage"] | {"completion_tokens": 4}}
    with pytest.raises(EngineError, match="cuts answers after 4 tokens, wanted are up to 9"):
        ours.generate_until([asked], disable_tqdm=True)


@pytest.mark.slow
def test_unknown_generation_settings_are_refused(of_llama: StandInServer) -> None:
    from lm_eval.api.instance import Instance

    asked = Instance("generate_until", {}, ("Kaixo", {"until": [], "max_gen_toks": 9, "colour": "red"}), 0)
    with pytest.raises(EngineError, match="colour: no such generation setting"):
        model(of_llama).generate_until([asked], disable_tqdm=True)


@pytest.mark.parametrize(
    ("kind", "why"), [(None, ""), ("fp8_per_channel", ""), ("fp8_per_tensor", ""), ("awq", "quantised as awq"),
                      ("compressed-tensors", "quantised as compressed-tensors")],
)  # fmt: skip
def test_servers_that_quantise_are_swapped_where_it_can_be_proved(kind: str | None, why: str) -> None:
    from lm_eval_iberian.models.served import Served

    served = Served("http://here", "0.32", "m", "m", 512, 32, {"model_config": {"quantization": kind}}, [])
    assert why in served.why_no_swap and bool(why) == bool(served.why_no_swap)
