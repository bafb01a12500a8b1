"""What people help themselves with is valid: citation, changelog, issue forms, pre-commit, py.typed, one version."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest
import yaml

from lm_eval_iberian import __version__
from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FORMS = sorted(path.name for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_one_version_everywhere() -> None:
    assert PROJECT["project"]["version"] == __version__
    assert read("CITATION.cff")["version"] == __version__
    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_citation_has_what_its_schema_requires() -> None:
    """https://github.com/citation-file-format/citation-file-format, 1.2.0: required keys, and who an author is."""
    citation = read("CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert citation["message"] and citation["title"] and citation["type"] == "software"
    assert all("name" in author or "family-names" in author for author in citation["authors"])
    assert citation["license"] == PROJECT["project"]["license"]
    assert isinstance(citation["version"], str)


def test_each_package_of_the_wheel_is_marked_as_typed() -> None:
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    typed = [name for name in packages if (ROOT / name / "__init__.py").exists()]
    assert set(typed) == {"lm_eval_iberian", "merge_hooks", "ifeval_multi"}
    assert all((ROOT / name / "py.typed").exists() for name in typed)


@pytest.mark.parametrize("form", FORMS)
def test_issue_forms_are_githubs(form: str) -> None:
    """https://docs.github.com/communities/using-templates-to-encourage-useful-issues-and-pull-requests"""
    content = read(f".github/ISSUE_TEMPLATE/{form}")
    assert content["name"] and content["description"] and content["body"]
    questions = [item for item in content["body"] if item["type"] != "markdown"]
    ids = [question["id"] for question in questions]
    assert len(set(ids)) == len(ids) > 0
    for question in questions:
        assert question["type"] in {"input", "textarea", "dropdown", "checkboxes"}
        assert question["attributes"]["label"]
        assert ("options" in question["attributes"]) == (question["type"] in {"dropdown", "checkboxes"})
        assert set(question.get("validations", {})) <= {"required"}


def test_issue_forms_ask_for_what_is_needed() -> None:
    required = {
        form: {item["id"] for item in read(f".github/ISSUE_TEMPLATE/{form}")["body"]
               if item.get("validations", {}).get("required")}
        for form in FORMS
    }  # fmt: skip
    assert required["recipe-refused.yml"] >= {"recipe", "check", "versions"}
    assert required["wrong-verdict.yml"] >= {"language", "instruction", "kwargs", "prompt", "answer", "expected"}


def test_pre_commit_runs_what_make_lint_runs() -> None:
    hooks = [hook["id"] for repository in read(".pre-commit-config.yaml")["repos"] for hook in repository["hooks"]]
    lint = re.search(r"^lint: .*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert lint
    tools = re.findall(r"bin/([\w-]+)(?: (check|format))?", lint[1])
    assert sorted(f"{name}-{verb}" if verb else name for name, verb in tools) == sorted(hooks)


def test_make_test_runs_every_test() -> None:
    """Folders are named in the Makefile, for their order: none may be left out."""
    (line,) = re.findall(r"^IN_ORDER := (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    folders = {path.relative_to(ROOT / "tests").parts[0] for path in (ROOT / "tests").rglob("*/test_*.py")}
    assert {f"tests/{name}" for name in folders} == set(line.split()) - {"$(wildcard", "tests/test_*.py)"}
