"""READMEs hold: links and anchors lead somewhere, named files exist, every room is on the map, Python in them runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import merge_hooks
from tests.conftest import ROOT, task_arithmetic

PACKAGES = ("lm_eval_iberian", "merge_hooks", "ifeval_multi")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "tasks/README.md"]
PAGES += sorted(page for folder in (*PACKAGES, "tests") for page in (ROOT / folder).rglob("*.md"))
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


def prose(page: Path) -> str:
    """Its text without blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """GitHub's anchors of its headings."""
    heads = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", re.sub(r"\[(.*?)\]\(.*?\)", r"\1", head).lower()).replace(" ", "-") for head in heads
    }


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    text = re.sub(r"(`+).*?\1|\"[^\"\n]*\"", "", prose(page))
    for link in re.findall(r"\]\(([^)\s]+)[^)]*\)", text):
        target, _, anchor = link.partition("#")
        if not target.startswith("http"):
            there = (page.parent / target).resolve() if target else page
            assert there.exists(), link
            assert not anchor or anchor in anchors(there), link


@pytest.mark.parametrize("name", NAMES)
def test_files_that_are_named_exist(name: str) -> None:
    """Beside the page, below it or above it, or in a package; `NAME.py` and packs/ are the reader's own."""
    page = ROOT / name
    tests = {test.name for test in (ROOT / "tests").rglob("test_*.py")}
    above = [ROOT, *(ROOT / package for package in PACKAGES), *(at for at in page.parents if at.is_relative_to(ROOT))]
    found = re.findall(r"`([\w./]+\.py)`", prose(page))
    spans = [span for span in found if "NAME" not in span and not span.startswith("packs/") and span not in tests]
    missing = [span for span in spans if not any((at / span).exists() for at in above)]
    assert [span for span in missing if not list(page.parent.rglob(span))] == []


@pytest.mark.parametrize("package", ["merge_hooks", "lm_eval_iberian"])
def test_rooms_are_on_the_map(package: str) -> None:
    text = (ROOT / package / "README.md").read_text(encoding="utf-8")
    rooms = [file.parent.name for file in (ROOT / package).glob("*/__init__.py")]
    assert [room for room in rooms if f"[{room}]({room}/" not in text] == []


PYTHON = [name for name, page in zip(NAMES, PAGES, strict=True) if "```python" in page.read_text()]
EVALUATE = ("lm_eval_iberian/models/README.md", "lm_eval_iberian/PYTHON.md")  # half a minute


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in EVALUATE else []) for name in PYTHON]
)
def test_python_in_readmes_runs(
    name: str, llama: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder with a merge.yml over tiny models."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IBERIAN_DATA", "samples")
    Path("merge.yml").write_text(yaml.safe_dump(task_arithmetic(llama, "float32")))
    text = (ROOT / name).read_text(encoding="utf-8")
    for block in re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        exec(compile(block, name, "exec"), {})


def test_the_example_of_merge_hooks_runs(
    llama: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is what `help(merge_hooks)` shows."""
    monkeypatch.chdir(tmp_path)
    Path("merge.yml").write_text(yaml.safe_dump(task_arithmetic(llama, "float32")))
    example = "".join(line[4:] for line in (merge_hooks.__doc__ or "").splitlines(True) if line.startswith("    "))
    found: dict[str, object] = {}
    exec(compile(example, "merge_hooks.__doc__", "exec"), found)
    assert "tensor" in found, "the stream yields tensors"
