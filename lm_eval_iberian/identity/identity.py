"""Is this the same measurement? One object names everything that an answer depends on, and answers the question.

    mine = of_results(json.load(open("results_2026.json")))     # any results file of lm_eval
    mine.row                       # what runs of one row share: all but tasks and the seeds of sampling
    mine.agrees(theirs)            # may both stand in one row?
    mine.differences(theirs)       # ["max_length 64", "no chat template"], for a label

Everyone who must know asks here: the rows of a report, `--use_cache`, the store of a sweep, engines that points share.
What a sweep plans is written as a results file without answers, and read by the same function. So a plan and a file of
one measurement have one identity.

    weights            the merge, by the contents of its sources; another model by its name and revision
    tokenizer          the whole of it (`merge_hooks.stream.tokenizer.tokenizer_hash`)
    generation_config  what generation_config.json (or config.json) puts in force
    arguments          every argument of the model but those of HARMLESS
    versions           of lm_eval, transformers, the engine, mergekit and this package
    chat               chat template, shots as turns, system prompt: where they are used
    seed               of sampling
    tasks              leaf task -> version, shots and their seed, generation settings, configuration, code, documents

Files of other models, and files older than this module, say less. What they do not say is not compared.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from typing import Any

from lm_eval_iberian.identity.answered import answered
from lm_eval_iberian.identity.prompting import SOME
from merge_hooks import hashing
from merge_hooks.texts import value_of

# Where results files say what was read.
KEY = "measured"

# What one answer to one request depends on. Prompts, and so template, shots and documents, are in the request.
OF_AN_ANSWER = ("weights", "tokenizer", "generation_config", "arguments", "versions", "seed")

# Arguments that say how an engine works and not what it computes: up to the rounding of sums taken in another order.
HARMLESS = frozenset({
    # how much is computed at once, and when
    "batch_size", "max_batch_size", "max_num_seqs", "max_num_batched_tokens", "enable_chunked_prefill", "logits_cache",
    "enable_prefix_caching", "enforce_eager", "compilation_config", "block_size", "async_scheduling",
    # on what
    "device", "parallelize", "device_map", "device_map_option", "tensor_parallel_size", "pipeline_parallel_size",
    "data_parallel_size", "distributed_executor_backend", "disable_custom_all_reduce", "enable_expert_parallel",
    # with how much memory
    "gpu_memory_utilization", "kv_cache_memory_bytes", "swap_space", "cpu_offload_gb", "max_memory_per_gpu",
    "max_cpu_memory", "offload_folder", "low_cpu_mem_usage", "num_gpu_blocks_override",
    # where files lie, and what is logged
    "cache_dir", "download_dir", "token", "disable_log_stats", "use_tqdm_on_load", "verbosity",
    # of the model `merged`: where sources are kept between swaps, how swaps are made and proved
    "resident", "proof", "swap",
    # of a server: where it is, and how long to wait for it
    "base_url", "served", "timeout", "patience", "num_concurrent",
})  # fmt: skip
# Arguments that another section holds: weights, tokenizer, versions.
ELSEWHERE = frozenset({
    "recipe", "pretrained", "revision", "dtype", "tokenizer", "tokenizer_revision", "backend", "merge_seed", "rng",
    "peft", "delta", "subfolder",
    "model", "path", "engine",  # as models of servers are named
})  # fmt: skip
# The short form's and presets' part of the arguments, in files that do not say which are the engine's.
OF_RECIPES = frozenset({
    "method", "base", "models", "out_dtype", "tokenizer_source", "chat_template", "weight", "density", "epsilon",
    "lambda", "normalize", "int8_mask", "gamma", "rescale", "t", "instruct", "language",
})  # fmt: skip
# Defaults of arguments: an argument at its default counts as not given.
DEFAULTS: Mapping[str, Any] = {
    "scoring": "prefix", "trust_remote_code": False, "truncation": False, "use_fast_tokenizer": True,
    "max_gen_toks": 256, "tokenizer_mode": "auto", "truncation_side": "left", "quantization": False,
}  # fmt: skip
# Older names of values: vLLM's online float8 was once called fp8.
SAME_AS = {("quantization", "fp8"): "fp8_per_tensor"}
# Entries of a task's metadata that say where it lies and what was found there, not what it is.
SAID_ELSEWHERE = ("config_source", "documents", "documents_hash", "documents_revision", "documents_notes",
                  "dataset_revisions", "differences")  # fmt: skip
# Where lm_eval's command line writes the parts of the section `chat`.
_CHAT_KEYS = {"template": "chat_template_sha", "multiturn": "fewshot_as_multiturn", "system": "system_instruction_sha"}
_HASH = re.compile("[0-9a-f]{16,}")
# How functions show in a dumped configuration: at another address in each process.
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_NAMES = {"weights": "other weights", "tokenizer": "other tokenizer"}


@dataclass(frozen=True)
class Identity:
    """What was measured.

    Args:
        parts: section -> name -> plain JSON value; see the head of this file.
        counted: leaf task -> what lm_eval's own files say of its documents (`_documents_of_file`): compared where one of
            two files does not say which documents were read. Not in the digests.
    """

    parts: Mapping[str, Mapping[str, Any]]
    counted: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def digest(self) -> str:
        """32 hex digits for all of it."""
        return digest(self.parts)

    @cached_property
    def row(self) -> str:
        """The digest of what the files of one row share. They may hold different tasks, and different seeds."""
        return self.without("tasks", "seed").digest

    @cached_property
    def answers(self) -> str:
        """The digest of what every answer depends on beside its request: for a cache's name, and a store's key."""
        return self.only(*OF_AN_ANSWER).digest

    def only(self, *sections: str) -> Identity:
        """These sections alone."""
        return replace(self, parts={name: part for name, part in self.parts.items() if name in sections})

    def without(self, *sections: str) -> Identity:
        """All but these sections."""
        return replace(self, parts={name: part for name, part in self.parts.items() if name not in sections})

    def agrees(self, other: Identity) -> bool:
        """Whether both may stand in one row: same model, and tasks that both hold are measured in the same way."""
        return self.row == other.row and not self._of_tasks(other)

    def differences(self, other: Identity) -> list[str]:
        """What this has and the other has not, in a few words each, for a label."""
        word = self._other_program(other)
        if word is not None:
            # Of the other sections only what both state: there, weights and tokenizer differ in name, not in value.
            return [word, *self._of_any_program().differences(other._of_any_program())]
        words = [word for name in self.parts if name not in ("tasks", "seed") for word in self._of_section(name, other)]
        return list(dict.fromkeys([*words, *self._of_tasks(other), *self._of_section("seed", other)]))

    def _other_program(self, other: Identity) -> str | None:
        """What was asked, if the other asked something else: "model hf" is lm_eval's, "model merged" is ours."""
        ours, theirs = ((one.parts.get("versions") or {}).get("model") for one in (self, other))
        return None if ours == theirs else f"model {_shown(ours or 'merged')}"

    def _of_any_program(self) -> Identity:
        """The parts that files of all models state in the same words."""
        parts = self.without("tokenizer", "generation_config").parts
        told = {"weights": ("dtype",), "versions": ("lm_eval", "transformers")}
        return replace(self, parts={
            name: {key: part[key] for key in told.get(name, part) if key in part} for name, part in parts.items()
        })  # fmt: skip

    def _of_section(self, name: str, other: Identity) -> list[str]:
        ours, theirs = self.parts.get(name) or {}, other.parts.get(name) or {}
        if name == "chat" and bool(ours.get("template")) != bool(theirs.get("template")):
            ours, theirs = ({**said, "multiturn": False} for said in (ours, theirs))  # the one word says both
        return [_word(name, key, ours, theirs) for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]

    def _of_tasks(self, other: Identity) -> list[str]:
        """Differences in tasks that both hold. A part that one of them does not state is not compared."""
        ours, theirs = self.parts.get("tasks") or {}, other.parts.get("tasks") or {}
        return list(dict.fromkeys(
            word for task in ours if task in theirs for word in
            (*_task_words(task, ours[task], theirs[task]),
             *_documents_words(task, self._documents(task), other._documents(task)))
        ))  # fmt: skip

    def _documents(self, task: str) -> dict[str, Any]:
        """What is known of a task's documents: which were read, and what lm_eval's own files say."""
        return {"documents": self.parts["tasks"][task].get("documents"), **self.counted.get(task, {})}


def of_results(data: Mapping[str, Any]) -> Identity:
    """The identity of a results file of lm_eval, or of what `simple_evaluate` returned, for our model or any other."""
    config = _mapping(data.get("config"))
    stamp = _mapping(config.get("iberian"))
    given = parse(config.get("model_args"))
    model = _merged(stamp, given, config) if stamp else _other(data, given, config)
    versions = {name: data.get(f"{name}_version") for name in ("lm_eval", "transformers")}
    told = _mapping(data.get(KEY))
    leaves, counts = _leaves(data), answered(data)
    return Identity({
        **model,
        "versions": {name: value for name, value in {**model["versions"], **versions}.items() if value is not None},
        "chat": _chat(data),
        "seed": _seeds(data, config, given),
        "tasks": {task: _task(data, told, task, given, counts.get(task)) for task in leaves},
    }, {task: _documents_of_file(data, task, counts.get(task)) or {} for task in leaves})  # fmt: skip


def of_model(info: Mapping[str, Any], seed: Any = None) -> Identity:
    """What every answer of a model `merged` depends on, before the model is asked anything.

    Args:
        info: its `get_model_info()`.
        seed: the engine's.
    """
    said = {f"{name}_version": version(name) for name in ("lm_eval", "transformers")}
    return of_results({**said, "config": {**info, "model_args": {"seed": seed}}}).only(*OF_AN_ANSWER)


def counting(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that an answer depends on and that no other section holds, without those at their default."""
    return {
        key: _plain(SAME_AS.get((key, value), value) if isinstance(value, str) else value)
        for key, value in sorted(arguments.items())
        if key not in HARMLESS and key not in ELSEWHERE and key != "seed"
        and value is not None and DEFAULTS.get(key) != value
    }  # fmt: skip


def parse(arguments: Any) -> dict[str, Any]:
    """lm_eval's model arguments, from a mapping or the text of `--model_args`; numbers and truth values as such."""
    if isinstance(arguments, Mapping):
        return {str(key): value_of(said) if isinstance(said, str) else said for key, said in arguments.items()}
    pairs = [part.partition("=") for part in str(arguments or "").split(",")]
    return {key.strip(): value_of(value) for key, equals, value in pairs if equals}


def digest(value: Any, length: int = 32) -> str:
    """`hashing.digest` of any value, JSON or not."""
    return hashing.digest(_plain(value), length)


def text_digest(text: str | None) -> str | None:
    """lm_eval's own hash of a chat template or a system prompt."""
    return hashlib.sha256(text.encode()).hexdigest() if text else None


def told(template: str | None, multiturn: bool, system: str | None, tasks: Mapping[str, Any]) -> dict[str, Any]:
    """What goes into results under KEY: what `lm_eval.evaluate` was given, and what `task_code` read.

    Args:
        template: the chat template in use, or None; "" is lm_eval's for one that a server applies.
        tasks: leaf task -> `code` and `documents`.
    """
    named = SOME if template == "" else text_digest(template)
    chat = {"template": named, "multiturn": bool(multiturn), "system": text_digest(system)}
    return {"chat": chat, "tasks": dict(tasks)}


def _merged(stamp: Mapping[str, Any], given: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """The sections of a model `merged`, from its own statement."""
    arguments = stamp.get("arguments")
    if not isinstance(arguments, Mapping):
        arguments = {key: value for key, value in given.items() if key not in OF_RECIPES}
    return {
        "weights": {"merge": stamp.get("weights") or stamp.get("signature_digest"), "dtype": config.get("model_dtype")},
        "tokenizer": {"tokenizer": stamp.get("tokenizer_hash")},
        "generation_config": _mapping(stamp.get("generation_config")),
        "arguments": counting(parse(arguments)),
        "versions": _mapping(stamp.get("versions")),
    }


def _other(data: Mapping[str, Any], given: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """The sections of any other model, from what lm_eval writes."""
    named = {key: given[key] for key in ("pretrained", "revision", "peft", "delta", "subfolder") if given.get(key)}
    named |= {key: given[key] for key in ("model", "path", "engine") if given.get(key)}
    hashes = {key: config[key] for key in ("model_sha", "peft_sha", "delta_sha") if config.get(key)}
    # lm_eval draws a name for what names none, and it is the same for two servers.
    model = named or {"model": given.get("base_url") or data.get("model_name") or config.get("model_args")}
    dtype = config.get("model_dtype") or given.get("dtype")
    return {
        "weights": {**model, **hashes, "dtype": None if dtype is None else str(dtype).removeprefix("torch.")},
        "tokenizer": {key: given[key] for key in ("tokenizer", "tokenizer_revision") if given.get(key)},
        "generation_config": {},
        "arguments": counting(given),
        "versions": {"model": data.get("model_source") or config.get("model")},
    }


def _chat(data: Mapping[str, Any]) -> dict[str, Any]:
    """The section `chat`: as we stated it, else as lm_eval's command line wrote it. Shots are turns only in a chat."""
    said = _told_chat(data) or {name: data.get(key) for name, key in _CHAT_KEYS.items()}
    template = said.get("template") or (SOME if _has_servers_template(data) else None)
    return {
        "template": template,
        "multiturn": bool(template and said.get("multiturn")),
        "system": said.get("system") or None,
    }


def chat_is_known(data: Mapping[str, Any]) -> bool:
    """Whether a results file says how its prompts were made."""
    if _told_chat(data) or data.get("chat_template_sha") or _has_servers_template(data):
        return True
    return "chat_template_sha" in data and data.get("chat_template") != ""


def _told_chat(data: Mapping[str, Any]) -> Mapping[str, Any]:
    return _mapping(_mapping(data.get(KEY)).get("chat"))


def _has_servers_template(data: Mapping[str, Any]) -> bool:
    """Whether a server put the prompts into a chat template, of which lm_eval has no text and writes "".

    lm_eval 0.4.4 and 0.4.5 write "" of other models too, which were asked without one. They do not say their version.
    """
    if "chat-completions" in str(data.get("model_source") or _mapping(data.get("config")).get("model")):
        return True
    is_sure = bool(data.get("fewshot_as_multiturn")) or "lm_eval_version" in data
    return data.get("chat_template") == "" and is_sure


def _seeds(data: Mapping[str, Any], config: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: config.get(name) for name in ("random_seed", "numpy_seed", "torch_seed")}
    found["engine"] = given.get("seed")
    found["generation"] = sorted({
        str(settings["seed"]) for task in _mapping(data.get("configs")).values()
        if "seed" in (settings := _mapping(_mapping(task).get("generation_kwargs")))
    })  # fmt: skip
    return {name: value for name, value in found.items() if value not in (None, [])}


def _leaves(data: Mapping[str, Any]) -> list[str]:
    """The leaf tasks of a results file: lm_eval names each in two places; a file that lost both has its scores."""
    results = _mapping(data.get("results"))
    named = {*_mapping(data.get("configs")), *(task for task in _mapping(data.get("n-samples")) if task in results)}
    return sorted(named or set(results) - set(_mapping(data.get("groups"))))


def _task(
    data: Mapping[str, Any], told: Mapping[str, Any], task: str, given: Mapping[str, Any], count: Any
) -> dict[str, Any]:  # fmt: skip
    """Everything that the score of a leaf task depends on beside the model."""
    config = dict(_mapping(_mapping(data.get("configs")).get(task)))
    is_told = bool(config)
    settings = _mapping(config.pop("generation_kwargs", None))
    shots = shots_of(data, task)
    read = _mapping(_mapping(told.get("tasks")).get(task))
    seed = _mapping(data.get("config")).get("fewshot_seed")
    return {
        "version": _mapping(data.get("versions")).get(task),
        "shots": shots,
        "shot_seed": seed if shots else None,
        "generation": {key: value for key, value in settings.items() if key != "seed"},
        "configuration": _configuration(config, given) if is_told else None,
        "code": read.get("code"),
        "documents": read.get("documents"),
        "read": None if read.get("documents") else _documents_of_file(data, task, count),
    }


def shots_of(data: Mapping[str, Any], task: str) -> Any:
    """How many examples each prompt of a task showed; files of lm_eval 0.3 say it once for all tasks."""
    config = _mapping(_mapping(data.get("configs")).get(task))
    said = (_mapping(data.get("n-shot")).get(task), config.get("num_fewshot"))
    return next((one for one in said if one is not None), _mapping(data.get("config")).get("num_fewshot"))


def _configuration(config: dict[str, Any], given: Mapping[str, Any]) -> str:
    """A hash of a task's configuration, without the model's arguments, which lm_eval mixes into its metadata."""
    left_out = {*SAID_ELSEWHERE, *given}
    metadata = _mapping(config.pop("metadata", None))
    config.pop("num_fewshot", None)
    config["metadata"] = {key: value for key, value in metadata.items() if key not in left_out}
    return hashlib.sha256(_ADDRESS.sub("", json.dumps(_plain(config), sort_keys=True)).encode()).hexdigest()[:16]


def _documents_of_file(data: Mapping[str, Any], task: str, count: Any) -> dict[str, Any] | None:
    """What lm_eval's own files say of the documents: how many (or at most, in files that do not say how many), and a hash
    if samples were logged."""
    config = _mapping(data.get("config"))
    found = {"count": count, "hash": _mapping(data.get("task_hashes")).get(task)}
    if found["count"] is None and "limit" in config:
        found["limit"] = config["limit"] or "none"
    return {key: value for key, value in found.items() if value is not None} or None


def _word(section: str, key: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    value = ours.get(key)
    if section == "chat":
        return _chat_word(key, value, theirs.get(key))
    if section in _NAMES and key != "dtype":
        name = str(value)[:8] if _HASH.fullmatch(str(value)) else _shown(value)
        return f"{_NAMES[section]}{f' ({name})' if value else ''}"
    if section == "versions" and value is None and key in ("lm_eval", "transformers"):  # there was one
        return f"{key} of a version that is not said"
    prefix = {"generation_config": "generation_config ", "seed": "" if "seed" in key else "seed of "}.get(section, "")
    return f"{prefix}{key} {_shown(value)}" if value is not None else f"{prefix}{key} not set"


def _chat_word(key: str, value: Any, theirs: Any) -> str:
    if key == "multiturn":
        return "shots as turns" if value else "shots in one turn"
    name = "chat template" if key == "template" else "system prompt"
    if SOME in (value, theirs) and value and theirs:
        return f"the server's {name}" if value == SOME else f"another {name} than the server's"
    return f"no {name}" if not value else f"{name} {value[:8]}" if theirs else name


def _task_words(task: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    words = []
    for key in ("version", "configuration", "code"):
        if None not in (ours.get(key), theirs.get(key)) and ours[key] != theirs[key]:
            words.append(f"{task}: version {ours[key]}" if key == "version" else f"{task}: other {key}")
    if ours.get("shots") != theirs.get("shots"):
        words.append(f"{ours.get('shots')} shots")
    elif ours.get("shot_seed") != theirs.get("shot_seed"):
        words.append(f"seed of the shots {ours.get('shot_seed')}")
    settings, others = _mapping(ours.get("generation")), _mapping(theirs.get("generation"))
    for key in {**settings, **others}:
        if settings.get(key) != others.get(key):
            words.append(f"{key} {_shown(settings[key])}" if key in settings else f"{key} not set")
    return words


def _documents_words(task: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """What sets documents apart: which they are where both say so, else each thing that both of lm_eval's files say."""
    first, *others = ("documents", "count", "limit", "hash")
    keys = [first] if None not in (ours.get(first), theirs.get(first)) else others
    differ = [key for key in keys if None not in (ours.get(key), theirs.get(key)) and ours[key] != theirs[key]]
    # Fewer documents have another hash: it says nothing more.
    words = {"count": f"{task}: {ours.get('count')} documents", "limit": f"{task}: limit {ours.get('limit')}"}
    return [words.get(differ[0], f"{task}: other documents")] if differ else []


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:24]}... ({digest(value, 6)})"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _plain(value: Any) -> Any:
    """A value as it comes back from JSON that lm_eval wrote: text for what JSON does not know."""
    return json.loads(json.dumps(value, default=_known))


def _known(value: Any) -> Any:
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=str)
    return value.item() if hasattr(value, "item") else str(value)
