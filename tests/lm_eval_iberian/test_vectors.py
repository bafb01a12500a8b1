"""`iberian vectors`: what it prints, writes and draws."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner, Result

from lm_eval_iberian.commands.main import cli
from lm_eval_iberian.pictures.vectors import draw
from merge_hooks.errors import EngineError
from merge_hooks.tools.vectors.compare import Similarity


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["vectors", *map(str, arguments)], catch_exceptions=False)


@pytest.fixture(scope="module")
def made(llama: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """Three vectors, one of which did not move."""
    folder = tmp_path_factory.mktemp("vectors")
    return run("--base", llama["base"], *models_of(llama), "--to", folder / "v.json"), folder


def models_of(llama: dict[str, Path]) -> list[Path]:
    return [llama["basque"], llama["instruct"], llama["base"]]


@pytest.mark.slow
def test_the_table(made: tuple[Result, Path]) -> None:
    result, _ = made
    assert result.exit_code == 0
    row = next(line for line in result.output.splitlines() if "2 instruct" in line)
    assert [cell.strip() for cell in row.split("│")][3:5] == ["1.0000", "–"]
    assert "base did not move" in result.output and "nan" not in result.output


def test_the_json(made: tuple[Result, Path]) -> None:
    """Equal to the table; null, not NaN, where there is no cosine; layers and kinds hold all tensors between them."""
    result, folder = made
    text = (folder / "v.json").read_text()
    content = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert [entry["name"] for entry in content["vectors"]] == ["basque", "instruct", "base"]
    assert all("@" in entry["stamp"] for entry in content["vectors"])
    assert f"{content['cosine'][0][1]:.4f}" in result.output
    assert content["cosine"][2] == [None, None, None] and content["unmoved"] == ["base"]
    assert list(content["layers"]) == ["0", "1", "2", "3"] and "self_attn.q_proj" in content["kinds"]
    squares = sum(entry["length"][0] ** 2 for entry in content["kinds"].values())
    assert squares == pytest.approx(content["length"][0] ** 2)


def words_of(picture: Path) -> str:
    """All text in an SVG, wherever its lines break."""
    return " ".join(" ".join(ElementTree.parse(picture).getroot().itertext()).split())


@pytest.mark.slow
def test_the_pictures(llama: dict[str, Path], tmp_path: Path) -> None:
    """They are drawn in seconds."""
    said = run("--base", llama["base"], *models_of(llama), "--to", tmp_path / "v.json", "--plot", tmp_path / "v").output
    for name in ("v", "v_layers", "v_kinds"):
        words = words_of(tmp_path / f"{name}.svg")
        assert "basque" in words and "cosine" in words
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert f"{name}.svg" in said


@pytest.mark.slow
def test_the_same_numbers_draw_the_same_bytes(tmp_path: Path) -> None:
    products = {f"model.layers.{layer}.norm.weight": np.eye(3) + 0.1 * layer for layer in range(3)}
    similarity = Similarity(("eu", "gl", "ca"), products, ("the vectors do not start from one base.",))
    drawn = [[path.read_bytes() for path in draw(similarity, tmp_path / "v")] for _ in range(2)]
    assert drawn[0] == drawn[1] and len(drawn[0]) == 4
    assert "do not start from one base" in words_of(tmp_path / "v.svg")


def test_figures_are_whole_in_a_narrow_terminal(llama: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """rich would cut 0.0017 to 0.0…, which is another number."""
    monkeypatch.setenv("COLUMNS", "20")
    output = run("--base", llama["base"], llama["basque"], llama["instruct"]).stdout
    assert "…" not in output and output.count("1.0000") == 2


def test_without_matplotlib(llama: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said before anything is read, with the line to type."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("merge_hooks.tools.vectors.compare.compare", lambda *_: pytest.fail("read first"))
    with pytest.raises(EngineError, match=r"pip install 'lm_eval_iberian\[plots\]'"):
        run("--base", llama["base"], llama["basque"], llama["instruct"], "--plot", tmp_path / "v")
