"""Trains the toy family from scratch: base, instruct, basque, galician, catalan; tiny Llamas with one tokenizer.

    build_family(Path("toys"))      # toys/base, toys/instruct, toys/basque, toys/galician, toys/catalan

The base reads English and Spanish. The others start from it: `instruct` answers instructions in English and Spanish,
and each language model reads on in its own language, with its translations. Each step is seeded. A complete folder is
never made again, and an incomplete one is never left behind.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import random
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lm_eval_iberian.toy import instructions, texts, tiny
from merge_hooks.files import whole_folder

LANGUAGE_MODELS = {"basque": "eu", "galician": "gl", "catalan": "ca"}
MODELS = ("base", "instruct", *LANGUAGE_MODELS)
SHAPE = {
    "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 32, "max_position_embeddings": 1024,
    "initializer_range": 0.06,  # transformers' 0.02 is for wide models: narrow ones start to attend late with it
}  # fmt: skip
# A real base has read a little of every language (Llama 3.1 also of Basque). Without these traces a language model must
# move so far from the base, for words that the base has never seen, that nothing of it survives a merge.
BASE_SHARES = {"en": 0.44, "es": 0.44, "eu": 0.04, "gl": 0.04, "ca": 0.04}
# The share of a fine-tune's texts that the base has also read, as in Latxa's training. It keeps the models close.
REPLAY = 0.25
RECORD = "toy.json"
# Called with the model's name, steps done, steps in all, loss.
Progress = Callable[[str, int, int, float], None]


@dataclass(frozen=True)
class Schedule:
    """How one model is trained. A step reads `rows` x `length` tokens."""

    steps: int
    rate: float
    rows: int = 8
    length: int = 128


@dataclass(frozen=True)
class Settings:
    """All that decides what the toys become, beside the code and the seed.

    Args:
        base_instructions: the share of instructions with answers, as plain text, in what the base reads. README.md says
            what it does to linear merging.
    """

    vocabulary: int = 1800
    base: Schedule = Schedule(1200, 3e-3)
    instruct: Schedule = Schedule(500, 6e-4)
    language: Schedule = Schedule(250, 6e-4)
    base_instructions: float = 0.0

    def of(self, name: str) -> Schedule:
        """The schedule of a model."""
        return {"base": self.base, "instruct": self.instruct}.get(name, self.language)


def build_family(
    folder: Path, seed: int = 0, settings: Settings | None = None, progress: Progress | None = None,
    models: tuple[str, ...] = MODELS,
) -> dict[str, Path]:  # fmt: skip
    """Train what is not there yet.

    Args:
        folder: a model goes to folder/NAME.
        seed: of the first weights and of what is read in which order. The held-out part does not depend on it.
        progress: told of each step.
        models: those wanted; the base is always made.
    Returns:
        name -> folder of a checkpoint (float32, safetensors, tokenizer, chat template).
    """
    settings = settings or Settings()
    paths = {name: folder / name for name in dict.fromkeys(("base", *models))}
    digest = content_hash(settings, seed)
    tokenizer = None
    for name, path in paths.items():
        if is_whole(path, digest):
            continue
        tokenizer = tokenizer or build_tokenizer(settings.vocabulary)
        model = _start(name, paths["base"], len(tokenizer), seed)
        train_model(model, _reading(name, tokenizer, seed, settings), settings.of(name), name, progress)
        _keep(model, tokenizer, path, {"digest": digest, "seed": seed, "settings": asdict(settings)})
    return paths


def content_hash(settings: Settings, seed: int) -> str:
    """A stamp of the toys' code and word lists, the settings and the seed: what is cached under it is this."""
    digest = hashlib.sha256()
    here = Path(__file__).parent
    for file in sorted([*here.glob("*.py"), *here.glob("words/*.yaml"), Path(tiny.__file__)]):
        if file.name not in ("adapters.py", "documents.py", "recipes.py"):  # these only read the toys
            digest.update(file.read_bytes())
    digest.update(json.dumps([asdict(settings), SHAPE, seed], sort_keys=True).encode())
    return digest.hexdigest()[:16]


def is_whole(path: Path, digest: str) -> bool:
    """Whether a checkpoint is there that these settings made. Folders appear only when whole: see `_keep`."""
    try:
        return json.loads((path / RECORD).read_text(encoding="utf-8"))["digest"] == digest
    except (OSError, ValueError, KeyError, TypeError):
        return False


def build_tokenizer(size: int) -> Any:
    """One BPE tokenizer for all five languages. Does not depend on the seed."""
    draw = random.Random("tokenizer")
    every = tuple(texts.LANGUAGE_NAMES)
    read = list(itertools.islice(texts.plain_texts(draw, dict.fromkeys(every, 1.0)), 6000))
    for language in every:
        for _ in range(300):
            asked = instructions.instruction(draw, False)
            read += [instructions.prompt(asked, language), instructions.answer(asked, language, draw)]
    return tiny.build_tokenizer(size, read)


def _start(name: str, base: Path, vocabulary: int, seed: int) -> Any:
    """Random weights for the base, the base's for all others."""
    import torch
    from transformers import LlamaForCausalLM

    if name != "base":
        return LlamaForCausalLM.from_pretrained(base, dtype=torch.float32)
    return tiny.random_model("llama", vocabulary, seed, **SHAPE)


# A token and whether the model is to learn to write it.
Token = tuple[int, bool]


def _reading(name: str, tokenizer: Any, seed: int, settings: Settings) -> Iterator[Token]:
    """The tokens that a model reads, without end."""
    draw = random.Random(f"{name} {seed}")
    language = LANGUAGE_MODELS.get(name)
    shares = {**dict.fromkeys(("en", "es"), REPLAY / 2), language: 1 - REPLAY} if language else BASE_SHARES
    read = plain_tokens(texts.plain_texts(draw, shares), tokenizer)
    if name == "base" and settings.base_instructions:
        asked = plain_tokens(instructions.plain_conversations(draw), tokenizer)
        read = _mixed(draw, asked, settings.base_instructions, read)
    elif name == "instruct":
        read = _mixed(draw, _conversations(draw, tokenizer), 1 - REPLAY, read)
    return itertools.chain.from_iterable(read)


def _mixed(
    draw: random.Random, some: Iterator[list[Token]], share: float, others: Iterator[list[Token]]
) -> Iterator[list[Token]]:
    while True:
        yield next(some if draw.random() < share else others)


def plain_tokens(read: Iterator[str], tokenizer: Any) -> Iterator[list[Token]]:
    """Texts as tokens that are all learnt."""
    while batch := list(itertools.islice(read, 100)):
        for ids in tokenizer(batch)["input_ids"]:  # each begins with the token that begins a text
            yield [(token, True) for token in (*ids, tokenizer.eos_token_id)]


def _conversations(draw: random.Random, tokenizer: Any) -> Iterator[list[Token]]:
    """Prompts and answers in the chat template; only what the assistant says is learnt."""
    for user, assistant in instructions.conversations(draw):
        asked = tokenizer.apply_chat_template([user], add_generation_prompt=True, return_dict=False)
        said = tokenizer(f"{assistant['content']}<|end|>", add_special_tokens=False)["input_ids"]
        yield [(token, False) for token in asked] + [(token, True) for token in said]


def train_model(
    model: Any, tokens: Iterator[Token], schedule: Schedule, name: str, progress: Progress | None
) -> None:  # fmt: skip
    """AdamW with a short warm-up and a cosine to a tenth, on the parameters that ask for gradients."""
    import torch

    model.train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=schedule.rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    warm = max(1, schedule.steps // 20)
    cosine = lambda step: 0.1 + 0.9 * (1 + math.cos(math.pi * step / schedule.steps)) / 2  # noqa: E731
    rates = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: min((step + 1) / warm, cosine(step)))
    with _gradients_of(model, parameters) as gradients:
        for step in range(schedule.steps):
            loss = gradients(*_batch(tokens, schedule))
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            rates.step()
            if progress:
                progress(name, step + 1, schedule.steps, loss)
    model.eval()


@contextmanager
def _gradients_of(model: Any, parameters: list[Any]) -> Iterator[Callable[[Any, Any], float]]:
    """A function that sets the gradients of a batch and returns its loss.

    Tensors this small keep no second core busy inside an operation, so that two halves of a batch are worked on at a
    time, each by one thread: the same weights come out whatever the number of cores.
    """
    import torch

    def half(ids: Any, labels: Any, learnt: int) -> tuple[float, tuple[Any, ...]]:
        loss = model(input_ids=ids, labels=labels, use_cache=False, num_items_in_batch=learnt).loss
        return float(loss.detach()), torch.autograd.grad(loss, parameters)

    def whole(ids: Any, labels: Any) -> float:
        learnt = int((labels[:, 1:] != -100).sum())
        (one, mine), (other, theirs) = threads.map(half, ids.chunk(2), labels.chunk(2), (learnt, learnt))
        for parameter, a, b in zip(parameters, mine, theirs, strict=True):
            parameter.grad = a.add_(b)
        return one + other

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(2) as threads:
            yield whole
    finally:
        torch.set_num_threads(before)


def _batch(tokens: Iterator[Token], schedule: Schedule) -> tuple[Any, Any]:
    """Token ids and labels, int64 of rows x length; -100 where nothing is learnt. Texts run on across rows."""
    import torch

    taken = list(itertools.islice(tokens, schedule.rows * schedule.length))
    ids = torch.tensor([token for token, _ in taken]).view(schedule.rows, schedule.length)
    learnt = torch.tensor([learn for _, learn in taken]).view_as(ids)
    return ids, ids.masked_fill(~learnt, -100)


def _keep(model: Any, tokenizer: Any, path: Path, record: dict[str, Any]) -> None:
    """Write a checkpoint, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_folder(path) as folder:
        tiny.save(model, tokenizer, folder)
        (folder / RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")
        shutil.rmtree(path, ignore_errors=True)
