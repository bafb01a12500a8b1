"""`planning/table.json` says what the installed mergekit says, and spares a check of a text the import of mergekit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from merge_hooks.planning import registry, table

# Prints what was found, the seconds of processor time, and whether anything heavy was imported.
CHECK = """
import json, sys, time
from merge_hooks.recipe.short_form import find
found = {written: [finding.message for finding in find(written).findings] for written in json.loads(sys.argv[1])}
heavy = sorted({"torch", "transformers", "mergekit"} & sys.modules.keys())
print(json.dumps([found, time.process_time(), heavy]))
"""
RECIPES = [
    "merge_method: linear\nmodels: [{model: a, parameters: {weight: 1.0}}, {model: b, parameters: {weight: 0.5}}]",
    "merge_method: ties\nbase_model: a\ndensity: 0.5\nmodels: [{model: b, parameters: {weigth: 1.0, density: 1}}]",
    "merge_method: dare_ties\nbase_model: a\nmodels: [{model: a}, {model: b, parameters: {weight: 1}}]",
    "merge_method: linaer\nmodels: [{model: a}]",
    "merge_method: knots_ties\nbase_model: a\nmodels: [{model: b, parametres: {weight: 1.0}}]\ntokenizer: {sauce: union}",
    "method=linear,models=a:1.0;b:0.5",
    "preset:merge_and_conquer/linear,instruct=a,language=b",
]


def checked(recipes: list[str]) -> tuple[dict[str, list[str]], float, list[str]]:
    command = [sys.executable, "-c", CHECK, json.dumps(recipes)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found, seconds, heavy = json.loads(done.stdout)
    return found, seconds, heavy


@pytest.mark.slow
def test_the_table_is_what_mergekit_says() -> None:
    assert json.loads(table.FILE.read_text()) == json.loads(json.dumps(registry.describe())), (
        "mergekit or our methods changed: python -m merge_hooks.planning.registry"
    )


@pytest.mark.slow
def test_a_text_is_checked_in_no_time_and_as_mergekit_would(monkeypatch: pytest.MonkeyPatch) -> None:
    found, seconds, heavy = checked(RECIPES)
    assert (heavy, seconds < 1) == ([], True)
    monkeypatch.setattr(table, "kept", lambda: None)
    from merge_hooks.recipe.short_form import find

    for written, messages in found.items():
        assert messages == [finding.message for finding in find(written).findings], written
    assert sum(map(bool, found.values())) >= 5, "there was something to find"


def test_with_another_mergekit_the_table_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "mergekit.merge_methods", raising=False)
    table._fitting.cache_clear()
    assert table.kept() is not None
    monkeypatch.setattr(table, "digest", lambda: "another")
    table._fitting.cache_clear()
    assert table.kept() is None
    table._fitting.cache_clear()


def test_with_a_method_that_the_table_does_not_know_it_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    from merge_hooks.methods.register import OURS

    monkeypatch.delitem(sys.modules, "mergekit.merge_methods", raising=False)
    monkeypatch.setitem(OURS, "halfway", "nowhere")
    assert table.kept() is None


def test_the_hash_is_over_the_files_that_decide(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "mergekit" / "merge_methods").mkdir(parents=True)
    for name in ("__init__.py", "config.py", "merge_methods/linear.py"):
        (tmp_path / "mergekit" / name).write_text("one")
    from types import SimpleNamespace

    spec = SimpleNamespace(origin=str(tmp_path / "mergekit" / "__init__.py"))
    monkeypatch.setattr(table, "find_spec", lambda name: spec)
    before = table.digest()
    (tmp_path / "mergekit" / "__init__.py").write_text("two")
    assert table.digest() == before
    (tmp_path / "mergekit" / "merge_methods" / "linear.py").write_text("two")
    assert table.digest() != before
