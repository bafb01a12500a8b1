"""Old import paths: they work for one release, name the new place, and are the very same objects."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

import pytest

import lm_eval_iberian.moved
import merge_hooks.moved

ROOT = Path(lm_eval_iberian.__file__).parent.parent
TABLES = [merge_hooks.moved.MOVED, lm_eval_iberian.moved.MOVED]


@pytest.mark.parametrize("table", TABLES, ids=["merge_hooks", "lm_eval_iberian"])
def test_every_new_place_is_there_and_no_old_one_is(table: dict[str, str]) -> None:
    for old, new in table.items():
        assert importlib.util.find_spec(new) is not None, new
        place = Path(*old.split("."))
        assert not (ROOT / place).is_dir() and not (ROOT / place.with_suffix(".py")).exists(), f"{old}: who would look?"


@pytest.mark.parametrize(("old", "new"), [
    ("merge_hooks.hf_loader", "merge_hooks.engines.hf"),
    ("lm_eval_iberian.significance", "lm_eval_iberian.scores.significance"),
    ("lm_eval_iberian.sweep.run", "lm_eval_iberian.runs.run"),
])  # fmt: skip
def test_an_old_module_is_the_new_one(old: str, new: str) -> None:
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=f"{old} is {new} now"):
        found = importlib.import_module(old)
    assert found is importlib.import_module(new) and sys.modules[old] is found
    assert found.__name__ == new and found.__spec__ is not None and found.__spec__.name == new


def test_the_warning_points_at_the_line_that_imports() -> None:
    with pytest.warns(DeprecationWarning) as caught:
        sys.modules.pop("merge_hooks.estimate", None)
        import merge_hooks.estimate  # noqa: F401

        from merge_hooks.recipe import resolve  # noqa: F401
    assert {warning.filename for warning in caught} == {__file__} and len(caught) >= 2


def test_the_doors_of_folders_do_not_warn(recwarn: pytest.WarningsRecorder) -> None:
    from merge_hooks.recipe import read_recipe
    from merge_hooks.recipe.recipe import read_recipe as in_its_file
    from merge_hooks.resolve import resolve
    from merge_hooks.stream import open_stream

    assert read_recipe is in_its_file and callable(resolve) and callable(open_stream)
    assert not [warning for warning in recwarn if warning.category is DeprecationWarning]


def test_functions_of_a_module_that_is_a_folder_now() -> None:
    from lm_eval_iberian import documents
    from lm_eval_iberian.documents import loader

    with pytest.warns(DeprecationWarning, match=r"lm_eval_iberian\.documents\.load is lm_eval_iberian"):
        assert documents.load is loader.load


def test_what_was_never_there_is_not_found() -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("merge_hooks.nothing_of_the_kind")
    with pytest.raises(ImportError):
        from merge_hooks.recipe import nothing_of_the_kind  # noqa: F401
