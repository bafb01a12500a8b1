"""`backend=server` and what else may listen there: answers that look right and are not, proxies, keys, restarts.

What is no JSON, or of other types, is in tests/faults/test_servers.py.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lm_eval_iberian.models.questions import Pair
from lm_eval_iberian.models.served import look, server_of
from lm_eval_iberian.models.server_batches import ask_in_batches
from lm_eval_iberian.models.server_scoring import score_by_questions
from merge_hooks.engines.vllm_server import Server, ServerAwayError
from merge_hooks.errors import EngineError
from tests.conftest import first_ones, linear
from tests.lm_eval_iberian.stand_in_server import StandInServer
from tests.lm_eval_iberian.test_server import Holding, client, model, of_llama, score_by_hand, stand_in

__all__ = ["of_llama", "stand_in"]  # fixtures


# Answers

PAIRS = [Pair(("", ""), (number, 7, 7, 7, 7, number), choice) for number in range(3) for choice in ((5,), (6, 8, 9))]


def scored(stand_in: StandInServer) -> list[tuple[float, bool]]:
    """The pairs' scores over a server."""
    found: dict[int, tuple[float, bool]] = {}
    holder = Holding(client(stand_in), [])
    score_by_questions(
        lambda bodies, take: ask_in_batches(holder, bodies, take, 2), PAIRS, found.__setitem__, block_size=4
    )
    return [found[place] for place in range(len(PAIRS))]


def first(answer: Any) -> Any:
    """The entry of a request's first prompt."""
    return min(answer["choices"], key=lambda choice: choice["index"])


def of_the_last_prompt_twice(body: Any, answer: Any) -> None:
    for choice in answer["choices"]:
        choice["index"] = max(choice["index"], 1)


def without_the_first_tokens(body: Any, answer: Any) -> None:
    answer["usage"]["prompt_tokens"] -= 2


def with_a_second_bos(body: Any, answer: Any) -> None:
    answer["usage"]["prompt_tokens"] += len(answer["choices"])


def by_sampling(body: Any, answer: Any) -> None:
    """As at temperature 1: the written token is not the likeliest."""
    said = first(answer)["logprobs"]
    said["tokens"], said["token_logprobs"] = ["token_id:3"], [-9.0]
    said["top_logprobs"][0]["token_id:3"] = -9.0


def as_logits(body: Any, answer: Any) -> None:
    """Below zero, and yet no log-probabilities: together they are likelier than sure."""
    said = first(answer)["logprobs"]
    said["top_logprobs"][0] = dict.fromkeys([*said["top_logprobs"][0], "token_id:1", "token_id:2"], -0.1)
    said["token_logprobs"] = [-0.1]


def of_the_wrong_token(body: Any, answer: Any) -> None:
    said = first(answer)["logprobs"]["top_logprobs"][0]
    said.update(
        {f"token_id:{token + 1}": said.pop(f"token_id:{token}") for token in body.get("logprob_token_ids", [0])}
    )


def with_fewer(body: Any, answer: Any) -> None:
    answer["choices"].pop()


def filtered(body: Any, answer: Any) -> None:
    first(answer)["finish_reason"] = "content_filter"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (of_the_last_prompt_twice, r"answered prompts .* of \d"),
        (with_fewer, r"answered prompts .* of \d"),
        (without_the_first_tokens, "read .* tokens of the prompts, sent were"),
        (with_a_second_bos, "read .* tokens of the prompts, sent were"),
        (by_sampling, "is likelier than the one that it wrote"),
        (as_logits, "likelier than sure"),
        (of_the_wrong_token, "other tokens than were asked for"),
        (filtered, "content_filter"),
    ],
)
def test_answers_that_look_right_and_are_not(
    stand_in: StandInServer, spoil: Callable[[Any, Any], None], words: str
) -> None:
    assert scored(stand_in) == [pytest.approx(score_by_hand("first", pair)) for pair in PAIRS]
    stand_in.spoil = lambda body, answer: (spoil(body, answer), answer)[1]
    with pytest.raises(EngineError, match=words):
        scored(stand_in)


def test_what_somebody_else_aborted_is_asked_again(stand_in: StandInServer) -> None:
    """vLLM gives the beginning of an answer when all requests are aborted (`/pause?mode=abort`)."""
    left = [2]

    def abort(body: Any, answer: Any) -> Any:
        left[0] -= 1
        if left[0] >= 0:
            first(answer)["finish_reason"] = "abort"
        return answer

    stand_in.spoil = abort
    assert scored(stand_in) == [pytest.approx(score_by_hand("first", pair)) for pair in PAIRS]
    left[0] = 10_000
    with pytest.raises(EngineError, match="aborted"):
        scored(stand_in)


def test_a_batch_that_is_asked_again_is_said(stand_in: StandInServer, caplog: pytest.LogCaptureFixture) -> None:
    stand_in.trouble = [0] * 5
    with caplog.at_level(logging.WARNING, "lm_eval.iberian"):
        ask_in_batches(Holding(client(stand_in), []), [{"prompt": [1], "max_tokens": 1}], lambda *_: None, concurrent=1)
    assert "asked again" in caplog.text and "does not answer" in caplog.text


# The client


@pytest.mark.parametrize("end", ["/", "/v1", "/v1/", "/v1/completions", "/v1/completions/", "/v1/chat/completions"])
def test_addresses_as_others_want_them(end: str) -> None:
    """lm_eval's own `local-completions` wants the whole path."""
    assert Server(f"http://host:8000{end}").base_url == "http://host:8000"
    assert Server(f"https://host/below{end}").base_url == "https://host/below"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://me:secret@host:8000", "VLLM_API_KEY"),
        ("http://secret@host", "VLLM_API_KEY"),
        ("http://host:8000/?api_key=secret", "without"),
        ("http://host:8000#secret", "without"),
        ("http://host:99999", "no address"),
        ("http://host:port", "no address"),
        ("http://[::1", "no address"),
        ("http://:8000", "write it with"),
        ("http://ho st:8000", "no address"),
        ("ftp://host", "write it with"),
    ],
)
def test_addresses_that_are_none_are_refused_before_anything_is_sent(url: str, words: str) -> None:
    with pytest.raises(EngineError, match=words) as raised:
        Server(url).get("/version")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("key", ["schlüssel-secret", "two\nlines-secret", "nul\x00secret"])
def test_a_key_that_no_header_takes_is_refused_and_not_shown(
    stand_in: StandInServer, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    if "\x00" not in key:
        monkeypatch.setenv("VLLM_API_KEY", key)
        with pytest.raises(EngineError, match="VLLM_API_KEY") as raised:
            server_of({"base_url": stand_in.url})
    else:
        with pytest.raises(EngineError, match="VLLM_API_KEY") as raised:
            Server(stand_in.url, key=key)
    assert "secret" not in str(raised.value) and not stand_in.asked


def test_a_key_read_from_a_file_ends_in_a_line_break(stand_in: StandInServer, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in.key = "secret"
    monkeypatch.setenv("VLLM_API_KEY", "secret\n")
    assert server_of({"base_url": stand_in.url}).version == "0.32.0"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed_and_says_where_to(stand_in: StandInServer, status: int) -> None:
    """Whoever is there would get prompts and key."""
    other = StandInServer()
    stand_in.trouble, stand_in.headers = [status] * 9, {"Location": f"{other.url}/version"}
    with pytest.raises(EngineError, match=f"{other.url}/version.*base_url="):
        client(stand_in, key="secret").get("/version")
    assert not other.asked
    other.close()


def test_it_waits_as_long_as_a_busy_server_says(stand_in: StandInServer) -> None:
    stand_in.trouble, stand_in.headers = [429, 503], {"Retry-After": "90"}
    server = client(stand_in)
    assert server.get("/version") == {"version": "0.32.0"}
    assert [90.0 <= wait < 100.0 for wait in server.waits] == [True, True]  # type: ignore[attr-defined]


@pytest.mark.parametrize("method", ["merge_state", "merge_prove", "merge_lease"])
def test_calls_that_change_nothing_are_sent_again(stand_in: StandInServer, method: str) -> None:
    """They are made before and after each batch, through whatever is busy for a moment."""
    stand_in.trouble = [429, 503]
    assert len(client(stand_in).collective_rpc(method, args=["me", 1.0])) == 1
    assert stand_in.asked["/collective_rpc"] == 3


@pytest.mark.parametrize("said", ["soon", "-5", "nan", "Wed, 21 Oct 2015 07:28:00 GMT", "inf", "1e999"])
def test_a_time_to_wait_that_is_none_is_as_if_it_were_not_said(stand_in: StandInServer, said: str) -> None:
    stand_in.trouble, stand_in.headers = [429], {"Retry-After": said}
    server = client(stand_in)
    server.get("/version")
    assert 0.25 <= server.waits[0] <= 0.5  # type: ignore[attr-defined]


def test_nobody_waits_longer_than_patience(stand_in: StandInServer) -> None:
    stand_in.trouble, stand_in.headers = [429] * 99, {"Retry-After": "86400"}
    server = client(stand_in, patience=20.0)
    with pytest.raises(ServerAwayError, match="429"):
        server.get("/version")
    assert sum(server.waits) <= 100.0  # type: ignore[attr-defined]


def test_a_request_that_took_too_long_is_not_sent_five_times(stand_in: StandInServer) -> None:
    """With the default of 600 s five tries, of four batches, would be three hours."""
    stand_in.seconds = 0.5
    with pytest.raises(ServerAwayError, match="no answer within"):
        client(stand_in, timeout=0.05).post("/v1/completions", {"prompt": [1], "max_tokens": 1})
    assert stand_in.asked["/v1/completions"] == 1


def test_a_proxy_of_the_environment_is_named(stand_in: StandInServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """On clusters HTTP_PROXY is set, and the proxy refuses what it cannot reach: 403 is not about a key then."""
    monkeypatch.setenv("http_proxy", stand_in.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    stand_in.trouble = [403] * 9
    with pytest.raises(EngineError, match=r"proxy.*NO_PROXY"):
        client(stand_in).get("/version")


# What is served


def card(name: str, root: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "root": root, "max_model_len": 64, **more}


def test_of_several_models_none_is_guessed(stand_in: StandInServer) -> None:
    stand_in.served = [card("a", "m/a"), card("b", "m/b")]
    with pytest.raises(EngineError, match=r"several models: a, b.*served="):
        look(client(stand_in))
    assert look(client(stand_in), "b").root == "m/b"
    stand_in.served = [card("a", "m/a"), card("alias", "m/a")]
    assert look(client(stand_in)).name == "a"


@pytest.mark.parametrize("status", first_ones([403, 404, 405], 1))
def test_a_gateway_that_keeps_the_development_mode_from_us(of_llama: StandInServer, status: int) -> None:
    """It is as a server without it: scored, and marked."""
    for path in ("/server_info", "/collective_rpc", "/pause", "/reset_prefix_cache"):
        of_llama.answers[path] = (status, "forbidden")
    assert model(of_llama).get_model_info()["iberian"]["proof"].startswith("not proved")


def test_an_adapter_of_the_server_is_no_model_of_ours(stand_in: StandInServer) -> None:
    stand_in.served = [card("a", "m/a"), card("eu", "adapters/eu", parent="a")]
    assert look(client(stand_in)).name == "a"
    with pytest.raises(EngineError, match=r"eu is an adapter.*base\+adapter"):
        look(client(stand_in), "eu")


# Restarts


def asked(number: int = 0) -> Any:
    from lm_eval.api.instance import Instance

    return Instance("loglikelihood", {}, (f"Bai {number}", " ez"), number)


def restart(server: StandInServer, change: str) -> None:
    """Somebody starts the server anew while nothing is asked."""
    server.change("fresh")
    server.merged = False
    match change:
        case "window":
            server.window = 48
        case "dtype":
            server.model_config |= {"dtype": "torch.bfloat16"}
            worker = server._worker
            server._worker = lambda method, more: (  # type: ignore[method-assign]
                worker(method, more) | {"dtype": "bfloat16"} if method == "merge_state" else worker(method, more)
            )
        case "version":
            server.version = "0.33.0"
        case "hf_overrides":
            server.model_config |= {"hf_overrides": {"rope_theta": 1.0}}
        case "quantization":
            server.model_config |= {"quantization": "fp8_per_tensor"}
        case "is_dev":
            server.is_dev = False


@pytest.mark.parametrize(
    "change", first_ones(["window", "dtype", "version", "hf_overrides", "quantization", "is_dev"], 1)
)
def test_a_server_that_was_started_anew_between_two_batches_is_compared(
    of_llama: StandInServer, llama: dict[str, Path], change: str
) -> None:
    ours = model(of_llama, recipe=linear(llama))
    ours.loglikelihood([asked()], disable_tqdm=True)
    restart(of_llama, change)
    with pytest.raises(EngineError, match="came back as another one"):
        ours.loglikelihood([asked(1)], disable_tqdm=True)


@pytest.mark.parametrize("change", first_ones(["window", "version"], 1))
def test_a_server_without_proofs_is_compared_too(of_llama: StandInServer, change: str) -> None:
    of_llama.is_dev = False
    ours = model(of_llama)
    ours.loglikelihood([asked()], disable_tqdm=True)
    weights = of_llama.weights
    restart(of_llama, change)
    of_llama.weights = weights
    with pytest.raises(EngineError, match="came back as another one"):
        ours.loglikelihood([asked(1)], disable_tqdm=True)


@pytest.mark.slow
def test_the_same_server_started_anew_is_swapped_again(of_llama: StandInServer, llama: dict[str, Path]) -> None:
    ours = model(of_llama, recipe=linear(llama))
    before = ours.loglikelihood([asked()], disable_tqdm=True)
    restart(of_llama, "nothing")
    assert ours.loglikelihood([asked()], disable_tqdm=True) == before


# Keys of results


@pytest.mark.parametrize(
    "settings",
    [
        {"quantization": "fp8_per_tensor"}, {"hf_overrides": {"rope_theta": 5.0}}, {"disable_sliding_window": True},
        {"override_attention_dtype": "half"}, {"hf_config_path": "elsewhere"}, {"logits_processors": ["a.b"]},
        {"generation_config": "elsewhere"},
    ],
)  # fmt: skip
def test_what_a_server_was_started_with_is_part_of_its_name(stand_in: StandInServer, settings: dict[str, Any]) -> None:
    """The weights are proved, and the same: answers are not. A sweep plans with this name."""
    server = client(stand_in)
    plain = look(server).engine(True)
    stand_in.model_config |= dict.fromkeys(settings)
    assert look(server).engine(True) == plain == "vllm-server=0.32.0 window 64"
    stand_in.model_config |= settings
    assert look(server).engine(True).startswith(f"{plain} ")


@pytest.mark.slow
def test_what_a_server_was_started_with_is_part_of_the_key(of_llama: StandInServer) -> None:
    plain = model(of_llama)
    of_llama.model_config["hf_overrides"] = {}
    assert model(of_llama).identity.answers == plain.identity.answers
    of_llama.model_config["hf_overrides"] = {"rope_theta": 5.0}
    other = model(of_llama)
    assert other.identity.answers != plain.identity.answers and str(other.signature) != str(plain.signature)
    assert other.signature.weights == plain.signature.weights


@pytest.mark.slow
def test_the_dtype_of_the_cache_is_in_the_key_without_development_mode(of_llama: StandInServer) -> None:
    of_llama.is_dev = False
    metrics = 'vllm:cache_config_info{block_size="4",cache_dtype="%s",enable_prefix_caching="True"} 1.0\n'
    of_llama.answers["/metrics"] = (200, metrics % "auto")
    plain = model(of_llama)
    of_llama.answers["/metrics"] = (200, metrics % "fp8")
    assert "cache fp8" in str(model(of_llama).signature) and "cache" not in str(plain.signature)


# Tokenizers


def test_a_tokenizer_with_other_special_tokens_is_refused(of_llama: StandInServer) -> None:
    """It reads plain text alike. But what is written is decoded, and ended, by the server."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(of_llama.root)
    special = [token for token in tokenizer.all_special_tokens if len(token) > 1]
    assert special
    of_llama.tokens = lambda text: [
        token + 1 if token in tokenizer.convert_tokens_to_ids(special) and token != tokenizer.bos_token_id else token
        for token in tokenizer(text)["input_ids"]
    ]
    with pytest.raises(EngineError, match="makes other tokens of a text"):
        model(of_llama)


# Arguments


@pytest.mark.parametrize(
    "argument",
    [
        "timeout=abc", "timeout=0", "timeout=nan", "timeout=inf", "patience=-1", "patience=soon", "num_concurrent=0",
        "num_concurrent=1.5", "num_concurrent=many", "max_length=1", "max_length=-5", "max_length=abc", "max_length=0",
        "max_model_len=32.5", "max_gen_toks=-1", "max_gen_toks=x", "prefix_token_id=x", "prefix_token_id=-1",
        "chat_template_args=x", "add_bos_token=maybe", "truncation_side=up", "seed=x",
    ],
)  # fmt: skip
def test_arguments_that_are_none_are_refused_by_name(of_llama: StandInServer, argument: str) -> None:
    from lm_eval_iberian.models import Merged

    name, _, value = argument.partition("=")
    with pytest.raises(EngineError, match=rf"{name}={value}: give "):
        Merged(backend="server", base_url=of_llama.url, **{"patience": 0, name: value})


@pytest.mark.slow
def test_a_model_that_is_called_by_a_number(of_llama: StandInServer) -> None:
    """lm_eval's command line reads served=5 as a number."""
    of_llama.served = [card("5", of_llama.root), card("6", "m/other")]
    assert model(of_llama, served=5).served.name == "5"


@pytest.mark.slow
def test_arguments_as_texts_are_what_they_say(of_llama: StandInServer) -> None:
    """From Python and from YAML they may be texts."""
    said = {"timeout": "20", "num_concurrent": "2", "max_length": "48", "max_gen_toks": "5", "add_bos_token": "false", "seed": "3",
            "prefix_token_id": "1"}  # fmt: skip
    ours = model(of_llama, **said)
    assert (ours.server.timeout, ours._concurrent, ours.max_length, ours.max_gen_toks) == (20.0, 2, 48, 5)
    assert (ours.add_bos_token, ours.seed, ours.prefix_token_id) == (False, 3, 1)
    told = {name: int(value) for name, value in said.items() if value.isdigit()} | {"add_bos_token": False}
    assert model(of_llama, **told).identity.answers == ours.identity.answers


def test_an_error_in_an_answer_that_is_none_is_said(stand_in: StandInServer) -> None:
    """Gateways answer 200, and the error inside."""
    stand_in.spoil = lambda *_: {"error": {"message": "quota\nexceeded"}}
    with pytest.raises(EngineError, match="quota exceeded"):
        scored(stand_in)
