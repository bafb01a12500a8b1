"""`iberian best RUN --by ifeval_eu,mt_eu`: the best recipe of a sweep, and how to get it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lm_eval_iberian.commands.habits import json_option, other_out_option, out_option
from lm_eval_iberian.commands.terminal import echo, note
from lm_eval_iberian.wording import some

if TYPE_CHECKING:
    from lm_eval_iberian.compare.best import Best, Candidate, Goal
    from lm_eval_iberian.runs.point import SweepPoint
    from lm_eval_iberian.scores.significance import Difference
    from lm_eval_iberian.scores.suite import Score

# How many rows of a long ranking are shown.
ROWS = 10


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--by", default="", metavar="COLUMNS",
              help="What counts; without it, what there is to name is listed. E.g. ifeval_eu,mt_eu: columns of the suite, tasks, or task:metric. Their plain mean; or a "
                   "weighted sum, 'mt_eu + 0.5*ifeval_eu'.")  # fmt: skip
@json_option()
@click.option(
    "--pareto", is_flag=True, help="List the points that no other beats in one column without losing in another."
)
@click.option("--any", "any_role", is_flag=True, help="Parents and baselines may win, too.")
@out_option("--save", type=click.Path(dir_okay=False, path_type=Path), help="Write the recipe to this file.")
@other_out_option(
    "checkpoint", "--export", "checkpoint", type=click.Path(path_type=Path),
    help="Write the merged checkpoint to this folder.",
)  # fmt: skip
@click.option(
    "--trust-remote-code", is_flag=True, help="Let the configurations of models bring Python code of their own."
)
def best(
    run: Path,
    by: str,
    pareto: bool,
    any_role: bool,
    out: Path | None,
    checkpoint: Path | None,
    as_json: bool,
    trust_remote_code: bool,
) -> None:
    """Name the best recipe of the sweep in RUN by the mean of the columns, and say by how much it leads.

    Points compete only where they were measured on the same documents; all others are named with the reason. †:
    a score over part of the documents, or over the embedded samples.
    """
    from lm_eval_iberian.compare.best import find_best, is_sum, names_of
    from lm_eval_iberian.compare.columns import Scores
    from lm_eval_iberian.runs.run import read_sweep_run

    names = [name.strip() for name in ([by] if is_sum(by) else by.split(",")) if name.strip()]
    if not names:
        raise click.UsageError(f"--by: name at least one column. {names_of(Scores(read_sweep_run(run)))}")
    if pareto and len(names) < 2:
        raise click.UsageError("--pareto wants several columns: --by bench_eu,ifeval_eu.")
    found = find_best(read_sweep_run(run), names, any_role)
    echo(best_json(found) if as_json else best_text(found, pareto, out))
    point = found.best.point
    if out is not None:
        out.write_text(point.recipe, encoding="utf-8")
    if checkpoint is not None:
        note(f"\n{checkpoint}: {', '.join(_export(point, checkpoint, trust_remote_code))}")


def best_json(found: Best) -> str:
    """The ranking, the front and who may not win, as JSON."""

    def row(one: Candidate) -> dict[str, Any]:
        return {"point": one.point.name, "role": one.point.role, "refused": one.refused,
                "columns": {goal.name: score.value for goal, score in zip(found.goals, one.scores, strict=False)},
                "problems": [problem for score in one.scores for problem in score.problems]}  # fmt: skip

    return json.dumps(
        {
            "best": found.best.point.name,
            "recipe": found.best.point.recipe,
            "ranked": [row(one) for one in found.ranked],
            "added_as_written": [column for goal in found.goals for column in goal.as_written],
            "front": [one.point.name for one in found.front],
            "refused": [row(one) for one in found.refused],
        },
        indent=1,
        ensure_ascii=False,
    )


def best_text(found: Best, pareto: bool = False, save: Path | None = None) -> str:
    """Everything that is printed about the best point: ranking, lead, who may not win, recipe, command."""
    point = found.best.point
    lines = [*_lines(found, pareto), "", "Recipe:", "", _indented(point.recipe), "", _how_to_run(point, save)]
    return "\n".join(lines)


def _lines(found: Best, pareto: bool) -> list[str]:
    names = ", ".join(goal.name for goal in found.goals)
    from lm_eval_iberian.compare.differences import prompted_otherwise

    many = len(found.goals) > 1
    lines = [f"The best by {'the mean of ' if many else ''}{names}: {found.best.point.name}", ""]
    lines += _table(found.ranked, found.goals)
    if len(found.ranked) > ROWS:
        lines.append(f"and {len(found.ranked) - ROWS} more")
    lines += ["", _lead(found)]
    lines += [f"CAUTION: {found.best.point.name}: {words}." for words in _cautions(found.best)]
    if pareto:
        lines += ["", "The Pareto front: no other point is as good in all columns and better in one.", ""]
        lines += _table(sorted(found.front, key=lambda one: one.values, reverse=True), found.goals, rows=None)
    if shown := [one for one in found.refused if one.is_complete]:
        lines += ["", "Not in the running, with the figures that they have:", ""]
        lines += _table(sorted(shown, key=lambda one: one.point.role == "merge"), found.goals)
        lines += [f"and {len(shown) - ROWS} more"] if len(shown) > ROWS else []
    if found.refused:
        lines += ["", *(f"- {one.point.name}: {one.refused}" for one in found.refused)]
    if problems := _problems(found):
        lines += ["", *(f"† {problem}" for problem in problems)]
    if as_written := list(dict.fromkeys(column for goal in found.goals for column in goal.as_written)):
        lines += [
            "",
            f"Added as lm_eval writes it, for what a full score of it is, is not known here: {some(as_written, 4)}.",
        ]
    if any(
        prompted_otherwise(*pair) for one in found.ranked for pair in zip(found.best.scores, one.scores, strict=True)
    ):
        lines += ["", "CAUTION: they were not all prompted in the same way (see the column prompt)."]
    return lines


def _cautions(best: Candidate) -> list[str]:
    """What to look at before the winner's scores."""
    from lm_eval_iberian.scores.suite import BELOW_CHANCE

    low = [doubt for score in best.scores for doubt in score.doubts if doubt.endswith(BELOW_CHANCE)]
    return [*(f"{task}: {', '.join(words)}" for task, words in best.point.flags.items()), *dict.fromkeys(low)]


def _table(candidates: Sequence[Candidate], goals: tuple[Goal, ...], rows: int | None = ROWS) -> list[str]:
    """A Markdown table: point, how it was prompted, columns, mean."""
    from lm_eval_iberian.identity.prompting import has_several, shown

    heads = ["point", "prompt", *(goal.name for goal in goals), *(["mean"] if len(goals) > 1 else [])]
    lines = [f"| {' | '.join(heads)} |", "|---|---" + "|---:" * (len(heads) - 2) + "|"]
    several = has_several(prompt for one in candidates for score in one.scores for prompt in score.prompts)
    for one in list(candidates)[:rows]:
        prompt = shown((prompt for score in one.scores for prompt in score.prompts), several)
        mean = [f"{one.mean:.2f}"] if len(goals) > 1 else []
        lines.append(f"| {' | '.join([one.point.name.replace('|', '/'), prompt, *map(_cell, one.scores), *mean])} |")
    return lines


def _cell(score: Score) -> str:
    spread = f" ± {score.spread:.2f}" if score.spread is not None else ""
    return f"{score.value:.2f}{spread}" + (" †" if score.problems else "")


def _lead(found: Best) -> str:
    if len(found.ranked) < 2:
        return "It is the only one that can win."
    next_one, value = found.ranked[1].point.name, found.best.mean - found.ranked[1].mean
    if value == 0:
        return f"{next_one} is exactly as good; it comes later in the sweep."
    if found.lead is None:
        return f"It leads {next_one} by {value:.2f} points; whether that is chance was not tested ({found.no_test})."
    said = "significant" if found.lead.significant() else "not significant: either may be the better one"
    chosen = f" The best of {len(found.ranked)} is also the luckiest: expect a little less of it on other documents."
    return (
        f"It leads {next_one} by {value:.2f} points (95 % interval {found.lead.low:+.2f} to {found.lead.high:+.2f}, "
        f"{_p(found.lead)}): {said}.{chosen if len(found.ranked) > 2 else ''}\n{_method(found.lead)}"
    )


def _p(lead: Difference) -> str:
    return f"p = {lead.p:.3f}" if lead.p >= 0.001 else "p < 0.001"


def _method(lead: Difference) -> str:
    """How interval and p were computed, and why they disagree where they do."""
    if lead.is_of_few:
        few = "1 document differs" if lead.differing == 1 else f"{lead.differing} documents differ"
        of_p = f"p is not the bootstrap's, but the least that an exact sign test gives where {few}"
        why = "the bootstrap has seen these few documents only"
    else:
        of_p, why = "p is two-sided, of the same resamples", "only just"
    apart = (lead.low > 0 or lead.high < 0) and not lead.significant()
    return f"Method: {lead.method}; {of_p}." + (f" The interval leaves out 0 ({why}); p decides." if apart else "")


def _problems(found: Best) -> list[str]:
    """Why scores are marked, each reason once with how many points have it."""
    counts: dict[str, int] = {}
    for one in (*found.ranked, *found.refused):
        for problem in dict.fromkeys(p for score in one.scores if score.value is not None for p in score.problems):
            counts[problem] = counts.get(problem, 0) + 1
    return [f"{problem} ({count} points)" if count > 1 else problem for problem, count in counts.items()]


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" if line else "" for line in text.rstrip().splitlines())


def _how_to_run(point: SweepPoint, save: Path | None) -> str:
    """The commands that measure the point again, without the sweep."""
    from lm_eval_iberian.compare.again import commands

    recipe = save or Path("best.yml")
    out = recipe.with_name(f"{recipe.stem}-again")
    saved = (
        f"The recipe is in {save}; to measure it again:" if save else "Save it as best.yml (--out best.yml), then run"
    )
    lines = [*commands(point, recipe, out), f"iberian report {shlex.quote(str(out))}"]
    shown = "\n".join(f"    {line}" for line in lines)
    return f"{saved}\n\n{shown}\n\nor have it as a checkpoint with --out-checkpoint DIR."


def _export(point: SweepPoint, out: Path, trust_remote_code: bool) -> list[str]:
    """Write the merged checkpoint; its card holds the measured scores."""
    from lm_eval_iberian.compare.best import BestError
    from merge_hooks.checks.preflight import check_fit
    from merge_hooks.recipe.recipe import Recipe
    from merge_hooks.resolve.resolver import resolve
    from merge_hooks.stream.stream import open_stream
    from merge_hooks.tools.export import export

    recipe = Recipe(point.recipe, point.name, Path(point.folder) if point.folder else None)
    stream = open_stream(resolve(recipe, point.merge_seed, point.rng, trust_remote_code))
    check_fit(stream)
    if any("signature" not in (result["config"].get("iberian") or {}) for result in point.results):
        raise BestError(f"{point.name}: its results carry no signature, so they cannot go onto a model card.")
    return export(stream, out, point.results)
