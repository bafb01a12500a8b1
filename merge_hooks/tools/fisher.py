"""Make a Fisher map: the diagonal of the Fisher information of a causal model, estimated on texts.

    make_map("HiTZ/latxa-7b", Path("texts.jsonl"), Path("latxa.fisher.safetensors"), Settings())

For each text x of T tokens, g(x) is the gradient of its log-likelihood: the sum over t of log p(x_t | x_<t), for
t = 2..T, as the first token (the BOS token, where the tokenizer sets one) is only read. The map is the mean over
texts of g(x) squared, elementwise:

    F = 1/N sum_x (d/d theta sum_t log p(y_t | x_<t))^2

One text is one sequence and one backward pass; squares are not taken of gradients summed over texts. By default the
targets y are the text's own tokens (the empirical Fisher); with targets="sampled" they are drawn from the model's
p(. | x_<t), as in Matena & Raffel 2022 (arXiv 2111.09832, equation 2, one draw): the contexts stay the text's.

The model is in float32, in evaluation mode, one sequence at a time. Each gradient is squared, added up in float32
and let go while the backward pass is still running, so beside the weights there is memory for the map, and for one
gradient. Sums are saved every so many texts; the same command goes on where it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merge_hooks.errors import FisherError
from merge_hooks.machine.memory import free_on_host
from merge_hooks.sources.fisher_file import FisherMap, Provenance, prints_of, read_map, write_map
from merge_hooks.tools.fisher_texts import read_texts, survey

if TYPE_CHECKING:
    import torch

    from merge_hooks.stream.stream import Stream

TARGETS = ("data", "sampled")
Step = Callable[[int, int], None]


@dataclass(frozen=True)
class Settings:
    """What the numbers of a map depend on, beside model and texts.

    Args:
        max_length: how many tokens of a text count; the rest is cut off.
        targets: "data" or "sampled", see the module.
        seed: for the draws of "sampled"; each text has a stream of its own.
        device: "cpu", "cuda", ...; "auto": a GPU if there is one.
        trust_remote_code: whether the checkpoint may bring code of its own.
    """

    max_length: int = 1024
    targets: str = "data"
    seed: int = 0
    device: str = "auto"
    trust_remote_code: bool = False


def make_map(
    model: str, texts: Path, to: Path, settings: Settings, step: Step = lambda done, total: None, save_every: int = 200
) -> FisherMap:
    """Make the map of a model on texts and write it. A run that was stopped is continued.

    Args:
        model: as in a recipe: a folder or Hub id, `model@revision`, `model+adapter`.
        texts: see `merge_hooks.tools.fisher_texts`.
        to: the file to write. `TO.partial` beside it keeps the state of a run, and is removed at its end.
        step: called with (texts processed, all texts).
        save_every: after how many texts the state is saved; the result does not depend on it.
    Raises:
        FisherError: the texts or settings cannot be used, or TO or its saved state was made from other ones.
        SourceError, PreflightError: the model cannot be had, or is not supported.
    """
    settings = _checked(settings)
    stream = _open(model, settings)
    print_, total = survey(texts)
    wanted = _facts(model, stream, print_, settings)
    if to.exists():
        return _same_run(to, wanted, FisherMap.open(to))
    state = to.with_name(f"{to.name}.partial")
    _refuse_no_room(stream, settings, to)
    earlier = _same_run(state, wanted) if state.exists() else None
    run = _Run(stream, settings, wanted, earlier)
    step(run.facts.position, total)
    for position, text in enumerate(read_texts(texts)):
        if position < run.facts.position:
            continue
        run.add(position, text)
        if (position + 1) % save_every == 0 and position + 1 < total:
            run.save(state)
        step(position + 1, total)
    if survey(texts)[0] != print_:
        raise FisherError(f"{texts}: the texts changed while the map was made. Run it again.")
    run.finish(to)
    state.unlink(missing_ok=True)
    state.with_name(f"{state.name}.writing").unlink(missing_ok=True)  # of a run that was killed while it wrote
    return FisherMap.open(to)


class _Run:
    """A model with hooks that square and add up its gradients.

    Args:
        stream: the model's weights.
        facts: of the map to be made.
        earlier: the state of a run that was stopped.
    """

    def __init__(self, stream: Stream, settings: Settings, facts: Provenance, earlier: FisherMap | None) -> None:
        import torch

        from merge_hooks.engines.hf import build_model

        self.settings = settings
        self.model = build_model(stream, settings.device, torch.float32)
        self.tokenizer = _tokenizer(stream, settings)
        names = dict(self.model.named_parameters())
        self.sums = {name: torch.zeros_like(parameter, requires_grad=False) for name, parameter in names.items()}
        known = {name for name, _ in self.model.named_parameters(remove_duplicate=False)}
        prints = {name: prints_of(tensor) for name, tensor in stream if name in known}
        aliases = _aliases(self.model)
        prints |= {name: prints[kept] for name, kept in aliases.items() if name not in prints}
        self.facts = replace(earlier.facts if earlier else facts, prints=prints, aliases=aliases)
        if earlier:
            self._take_up(earlier)
        for name, parameter in names.items():
            parameter.register_post_accumulate_grad_hook(self._adder(name))

    def _take_up(self, earlier: FisherMap) -> None:
        from safetensors import safe_open

        with safe_open(earlier.path, framework="pt") as file:
            for name, total in self.sums.items():
                total.copy_(file.get_tensor(name))

    def _adder(self, name: str) -> Callable[[torch.Tensor], None]:
        """Called once a backward pass, when the whole gradient of a parameter is known (tied uses summed)."""

        def add(parameter: torch.Tensor) -> None:
            assert parameter.grad is not None
            self.sums[name].addcmul_(parameter.grad, parameter.grad)
            parameter.grad = None

        return add

    def add(self, position: int, text: str) -> None:
        """Process one text. Raises FisherError if its likelihood is not a number."""
        ids = self.tokenizer(text)["input_ids"]
        counts = len(ids) >= 2
        if counts:
            likelihood = self._log_likelihood(ids[: self.settings.max_length], position)
            if not math.isfinite(likelihood.item()):
                raise FisherError(f"text {position + 1}: {self.facts.model} gives it no finite likelihood in float32.")
            likelihood.backward()
        self.facts = replace(
            self.facts,
            position=position + 1,
            count=self.facts.count + counts,
            truncated=self.facts.truncated + (len(ids) > self.settings.max_length),
        )

    def _log_likelihood(self, ids: list[int], position: int) -> torch.Tensor:
        import torch

        sequence = torch.tensor([ids], device=self.settings.device)
        logits = self.model(input_ids=sequence, use_cache=False).logits[0, :-1].float()
        logs = torch.log_softmax(logits, dim=-1)
        targets = sequence[0, 1:] if self.settings.targets == "data" else self._draw(logs, position)
        return logs.gather(1, targets[:, None]).sum()

    def _draw(self, logs: torch.Tensor, position: int) -> torch.Tensor:
        """A target for each position, from the model's own distribution: int64, as many as rows in `logs`.

        They are drawn on the CPU, from the text's own stream, so that a continued run draws what it would have drawn.
        """
        import torch

        from merge_hooks.kernels.masks import stream_key

        key = stream_key(self.settings.seed, f"text {position}", 0, "fisher targets")
        generator = torch.Generator().manual_seed(key)
        drawn = torch.multinomial(logs.detach().exp().cpu(), 1, generator=generator)
        return drawn[:, 0].to(logs.device)

    def save(self, state: Path) -> None:
        """Save the sums so far. Raises FisherError if they are not finite: such a state is never written."""
        self._refuse_infinite()
        write_map(state, self.sums, self.facts)

    def finish(self, to: Path) -> None:
        """Write the mean. Raises FisherError if no text counted."""
        if not self.facts.count:
            raise FisherError("no text has two tokens, so there is nothing to predict in them. Give longer texts.")
        self._refuse_infinite()
        means = {name: total.div_(self.facts.count) for name, total in self.sums.items()}
        write_map(to, means, replace(self.facts, is_whole=True))

    def _refuse_infinite(self) -> None:
        import torch

        for name, total in self.sums.items():
            if not torch.isfinite(total).all():
                raise FisherError(
                    f"{self.facts.model}: the squared gradients of {name} are not finite after {self.facts.position} "
                    "texts. Look at the texts since the last save."
                )


def _checked(settings: Settings) -> Settings:
    """The settings with a real device. Raises FisherError."""
    import torch

    if settings.targets not in TARGETS:
        raise FisherError(f"targets={settings.targets}: give one of {', '.join(TARGETS)}.")
    if settings.max_length < 2:
        raise FisherError(f"a maximal length of {settings.max_length} leaves no token to predict. Give 2 or more.")
    if settings.device != "auto":
        return settings
    return replace(settings, device="cuda" if torch.cuda.is_available() else "cpu")


def _open(model: str, settings: Settings) -> Stream:
    """The model, as the recipe of one plain model, checked as every merge is."""
    from merge_hooks.checks.preflight import check_fit
    from merge_hooks.recipe.recipe import read_recipe
    from merge_hooks.resolve.resolver import resolve
    from merge_hooks.stream.stream import open_stream

    recipe = read_recipe({"merge_method": "passthrough", "models": [{"model": model}]})
    stream = open_stream(resolve(recipe, trust_remote_code=settings.trust_remote_code))
    check_fit(stream)
    longest = getattr(stream.model_config, "max_position_embeddings", None)
    if isinstance(longest, int) and settings.max_length > longest:
        raise FisherError(f"{model} takes {longest} tokens. Give --max-length {longest} or less.")
    return stream


def _refuse_no_room(stream: Stream, settings: Settings, to: Path) -> None:
    """Raises FisherError, before hours of work, if there is no memory or disk for the result."""
    import psutil

    from merge_hooks.checks.estimate import estimate, gigabytes

    if not to.parent.is_dir():
        raise FisherError(f"{to}: there is no folder {to.parent}. Make it first.")
    size = estimate(stream, "float32").model
    free = psutil.disk_usage(str(to.parent)).free
    if 2 * size > free:  # the last state, and what is written in its place
        raise FisherError(
            f"{to}: the map and its state take {gigabytes(2 * size)}, and {gigabytes(free)} are free here."
        )
    available = free_on_host()
    if settings.device == "cpu" and 2 * size > available:
        raise FisherError(
            f"the model and its map take {gigabytes(2 * size)} in float32, and {gigabytes(available)} of memory are free."
        )


def _tokenizer(stream: Stream, settings: Settings) -> Any:
    from transformers import AutoTokenizer

    folder = stream.resolved.donor.folder
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=settings.trust_remote_code)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise FisherError(f"{folder}: transformers cannot read the tokenizer here ({first}).") from error


def _facts(model: str, stream: Stream, texts: str, settings: Settings) -> Provenance:
    source = stream.resolved.donor
    fingerprint = "+".join(dict(source.stamps()).values())
    kept = asdict(settings)
    del kept["trust_remote_code"]
    # No folder: the file's bytes, which go into a merge's signature, say what was measured and not where it lay.
    name = "+".join(Path(part).name for part in model.split("+"))
    return Provenance(name, fingerprint, texts, kept, 0, 0, 0, False, {}, {})


def _same_run(path: Path, wanted: Provenance, found: FisherMap | None = None) -> FisherMap:
    """What lies at `path`. Raises FisherError if it was made from something else than what is wanted now."""
    found = found or read_map(path)
    for key, words in (("fingerprint", "model"), ("texts", "texts"), ("settings", "settings")):
        if getattr(found.facts, key) != getattr(wanted, key):
            raise FisherError(
                f"{path}: was made from another {words} ({getattr(found.facts, key)}, now {getattr(wanted, key)}). "
                "Write to another file, or remove this one."
            )
    return found


def _aliases(model: Any) -> dict[str, str]:
    """Tied names -> the name that `named_parameters` gives: a head that is the embedding."""
    first = {id(parameter): name for name, parameter in model.named_parameters()}
    everything = model.named_parameters(remove_duplicate=False)
    return {name: first[id(parameter)] for name, parameter in everything if first[id(parameter)] != name}
