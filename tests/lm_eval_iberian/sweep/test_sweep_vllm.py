"""A sweep over one running vLLM, by the command, against transformers' answers to the same requests."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import yaml

from lm_eval_iberian.runs.run import read_sweep_run
from tests import forks
from tests.lm_eval_iberian.sweep.local_tasks import write_tasks
from tests.lm_eval_iberian.sweep.runner import run
from tests.lm_eval_iberian.sweep.test_resume import a_sweep


@pytest.mark.slow
def test_one_engine_gives_transformers_answers(llama: dict[str, Path], tmp_path: Path) -> None:
    """Four models through one engine: same choices, same texts; the second call finds everything done."""
    data = a_sweep(llama, write_tasks(tmp_path / "tasks", 12))
    assert run(data, tmp_path / "hf") == {}
    data["model_args"] = {"backend": "vllm", "dtype": "float32", "max_model_len": 512}
    (tmp_path / "trial.yml").write_text(yaml.safe_dump(data))
    command = [sys.executable, "-m", "lm_eval_iberian.commands.main", "sweep", "trial.yml"]
    first = forks.run(command, cwd=tmp_path, env={**os.environ, "COLUMNS": "200"})
    assert first.returncode == 0, first.stderr[-3000:]
    assert first.stderr.count("engine started") == 1 and first.stderr.count("swapped") == 3
    ours, theirs = read_sweep_run(tmp_path / "runs" / "trial"), read_sweep_run(tmp_path / "hf")
    assert [point.name for point in ours.points] == [point.name for point in theirs.points]
    for one, other in zip(ours.points, theirs.points, strict=True):
        assert one.answers("local_choice") == other.answers("local_choice"), one.name
        assert one.answers("local_words") == _whole_characters(other.answers("local_words")), one.name
        assert one.scores("local_choice") == other.scores("local_choice")
    assert (tmp_path / "runs" / "trial" / "report" / "report.html").stat().st_size > 10_000
    second = forks.run(command, cwd=tmp_path)
    assert second.returncode == 0 and "4 of 4 evaluations are done already" in second.stderr
    assert second.stdout == first.stdout
    assert json.loads((tmp_path / "runs" / "trial" / "plan.json").read_text())["axes"] == {"weight": ["0.5", "1.0"]}


def _whole_characters(answers: dict[int, list[str]]) -> dict[int, list[str]]:
    """As vLLM writes them: where the limit cuts an answer within a character, transformers ends it with U+FFFD."""
    return {document: [text.removesuffix("\ufffd") for text in texts] for document, texts in answers.items()}
