"""The toy family is trained once, never left half-written, and made again when what makes it changes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from lm_eval_iberian.toy.train import RECORD, Schedule, Settings, build_family, content_hash

FEW = Settings(vocabulary=400, base=Schedule(2, 1e-3), instruct=Schedule(2, 1e-3), language=Schedule(2, 1e-3))


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


@pytest.mark.nightly
def test_a_second_call_does_nothing_and_a_change_makes_all_again(tmp_path: Path) -> None:
    said: list[str] = []
    tell = lambda name, *_: said.append(name)  # noqa: E731
    paths = build_family(tmp_path, settings=FEW, progress=tell)
    assert set(paths) == {"base", "instruct", "basque", "galician", "catalan"}
    before = {name: weights(path) for name, path in paths.items()}
    assert len(set(before.values())) == 5
    said.clear()
    build_family(tmp_path, settings=FEW, progress=tell)
    assert said == []
    build_family(tmp_path, seed=1, settings=FEW, progress=tell, models=("instruct",))
    assert set(said) == {"base", "instruct"}
    assert weights(paths["base"]) != before["base"]
    # ... and the same seed gives the same weights.
    build_family(tmp_path, settings=FEW)
    assert {name: weights(path) for name, path in paths.items()} == before


@pytest.mark.nightly
def test_what_was_killed_is_finished_by_the_same_call(tmp_path: Path) -> None:
    def kill(name: str, done: int, *_: object) -> None:
        if name == "instruct" and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_family(tmp_path, settings=FEW, progress=kill)
    assert [path.name for path in tmp_path.iterdir()] == ["base"]
    said: list[str] = []
    paths = build_family(tmp_path, settings=FEW, progress=lambda name, *_: said.append(name))
    assert "base" not in said
    assert weights(paths["base"]) == weights(build_family(tmp_path / "again", settings=FEW, models=())["base"])
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.nightly
def test_the_number_of_threads_changes_nothing_and_instructions_in_the_base_do(tmp_path: Path) -> None:
    import torch

    made, before = [], torch.get_num_threads()
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            made.append(weights(build_family(tmp_path / str(number), settings=FEW, models=())["base"]))
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(before)
    assert made[0] == made[1]
    with_instructions = replace(FEW, base_instructions=0.5)
    assert content_hash(with_instructions, 0) != content_hash(FEW, 0)
    assert weights(build_family(tmp_path / "asked", settings=with_instructions, models=())["base"]) != made[0]


def test_a_damaged_record_is_no_checkpoint(tmp_path: Path) -> None:
    from lm_eval_iberian.toy.train import is_whole

    digest = content_hash(FEW, 0)
    for text in ("", "[]", '{"digest": 3}', json.dumps({"digest": content_hash(FEW, 1)})):
        (tmp_path / RECORD).write_text(text)
        assert not is_whole(tmp_path, digest)
    (tmp_path / RECORD).write_text(json.dumps({"digest": digest}))
    assert is_whole(tmp_path, digest)


def test_the_command_names_what_it_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Quiet without a terminal; a recipe beside each language model."""
    from lm_eval_iberian.commands import toy as toy_command
    from lm_eval_iberian.toy import train

    monkeypatch.setattr(train, "build_family", lambda folder, seed, progress: {"base": folder / "base"})
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    done = CliRunner().invoke(toy_command.toy, [str(tmp_path)])
    assert done.exit_code == 0, done.output
    names = [Path(line).name for line in done.output.splitlines()]
    assert names[:3] == ["base", "texts-instruct.jsonl", "merge-basque.yml"]
    assert all((tmp_path / name).is_file() for name in names[1:])
    assert len((tmp_path / "texts-basque.jsonl").read_text(encoding="utf-8").splitlines()) == 200
