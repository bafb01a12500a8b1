"""The guide "French from nothing" of ifeval_multi/README.md, executed step by step."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ifeval_multi import new_language
from ifeval_multi.cli import ifeval
from ifeval_multi.lm_eval_support import LEVELS
from ifeval_multi.pack import languages
from tests import forks

ROOT = Path(__file__).parents[2]
README = (ROOT / "ifeval_multi/README.md").read_text(encoding="utf-8")
GUIDE = README.split("## Another language in an afternoon", 1)[1].split("\n## ", 1)[0]


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", GUIDE, re.DOTALL)


PROMPTS, ANSWERS = blocks("json")


def commands() -> list[list[str]]:
    lines = [line for block in blocks("console") for line in block.split("\n")]
    return [shlex.split(line[2:]) for line in lines if line.startswith("$ ")]


def run(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """A command of the guide, with this checkout's ifeval_multi for the installed one."""
    if words[:2] == ["iberian", "ifeval"]:
        words = [sys.executable, "-m", "ifeval_multi", *words[2:]]
    elif words[0] == "python":
        words = [sys.executable, *words[1:]]
    elif words[0] == "lm_eval":
        words = [sys.executable, "-m", *words]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1"}
    return forks.run(words, cwd=folder, env=environment)


@pytest.mark.slow
def test_french_from_nothing(tmp_path: Path, llama: dict[str, Path]) -> None:
    """In an empty folder, step by step; lm_eval is given a tiny model and few tokens."""
    new, unfinished, finished, tested, linted, scored, evaluated, own = commands()

    assert run(new, tmp_path).returncode == 0
    done = run(unfinished, tmp_path)
    assert done.returncode == 1 and "TODO: own_name: TODO" in done.stdout

    (tmp_path / "packs/fr.yaml").write_text(blocks("yaml")[0], encoding="utf-8")
    done = run(finished, tmp_path)
    assert done.returncode == 0 and "ready, " in done.stdout, done.stdout
    assert run(tested, tmp_path).returncode == 0

    (tmp_path / "packs/fr.jsonl").write_text(PROMPTS, encoding="utf-8")
    done = run(linted, tmp_path)
    assert done.returncode == 0, done.stdout

    (tmp_path / "packs/answers.jsonl").write_text(ANSWERS, encoding="utf-8")
    done = run(scored, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 prompts, 3 instructions" in done.stdout
    assert "prompt_strict 50.00" in done.stdout and "edition original" not in done.stdout

    evaluated[evaluated.index("pretrained=MODEL")] = f"pretrained={llama['base']}"
    few = ["--gen_kwargs", "max_gen_toks=4", "--output_path", "out", "--device", "cpu"]
    done = run([word for word in evaluated if word != "--apply_chat_template"] + few, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    results = json.loads(next((tmp_path / "out").rglob("results_*.json")).read_text(encoding="utf-8"))
    scores = results["results"]["ifeval_fr"]
    assert {f"{level},none" for level in LEVELS} <= set(scores)
    errors = {level for level in LEVELS if scores[f"{level}_stderr,none"] != "N/A"}
    assert errors == {level for level in LEVELS if level.startswith("prompt")}, "as the guide says of ±"
    assert results["configs"]["ifeval_fr"]["metadata"]["documents"].endswith("packs/fr.jsonl, 2 prompts")

    (tmp_path / "packs/fr.py").write_text(blocks("python")[0], encoding="utf-8")
    done = run(own, tmp_path)
    assert done.returncode == 0 and "ready, " in done.stdout, done.stdout


def test_the_task_and_the_guide_name_the_four_accuracies() -> None:
    task = (new_language.TEMPLATES / "task.yaml").read_text(encoding="utf-8")
    assert all(level in task and level in GUIDE for level in LEVELS)


def test_the_shipped_french_pack_is_the_guides() -> None:
    shipped = (ROOT / "ifeval_multi/languages/fr.yaml").read_text(encoding="utf-8")
    assert blocks("yaml")[0] == shipped


def cli(*words: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(ifeval, [str(word) for word in words])
    return done.exit_code, done.output


def test_new_refuses_to_overwrite_and_odd_codes(tmp_path: Path) -> None:
    assert cli("new", "it", "--folder", tmp_path)[0] == 0
    code, told = cli("new", "it", "--folder", tmp_path)
    assert code == 1 and "is there already" in told
    assert "is no language code" in cli("new", "Galego!", "--folder", tmp_path)[1]


@pytest.mark.parametrize("name", ifeval.commands)
def test_the_readme_names_options_that_help_shows(name: str) -> None:
    """It said --verdicts, an older name that no help shows."""
    lines = " ".join(re.findall(rf"iberian ifeval {name} .*", README))
    assert set(re.findall(r"--[a-z-]+", lines)) <= set(re.findall(r"--[a-z-]+", cli(name, "--help")[1]))
    assert not re.findall("--(?:verdicts|folder)", README)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("ast", "Error: ast: Asturian ships already: --language ast. To change it, copy"),
        ("oci", "Error: oci: Occitan ships already, as 'oc': --language oc. To change it, copy"),
        ("eus", "Basque ships already, as 'eu'"),
    ],
)
def test_new_says_that_a_language_ships(tmp_path: Path, code: str, told: str) -> None:
    found, said = cli("new", code, "--out", tmp_path / "packs")
    assert found == 1 and told in said and not (tmp_path / "packs").exists()
    assert ("eu.py" in said) == (code == "eus"), "the file beside it is copied, too"
    assert cli("new", code, "--out", tmp_path / "packs", "--from-nothing")[0] == 0
    assert (tmp_path / f"packs/{code}.yaml").is_file()


def test_the_other_codes_are_of_languages_that_ship() -> None:
    other = new_language._SHORT
    assert set(other.values()) == set(languages()) - {"ast"} and all(len(code) == 3 for code in other)


def test_new_writes_into_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never into the package, unless its folder is named; and then the pack alone."""
    monkeypatch.chdir(tmp_path)
    code, told = cli("new", "ast", "--name", "Asturian", "--from-nothing")
    assert code == 0 and told.endswith("then: iberian ifeval check ast.yaml\n")
    assert {file.name for file in tmp_path.iterdir()} == {"ast.yaml", "test_ast.py", "ifeval_ast.yaml"}
    assert "--include_path . --tasks ifeval_ast" in (tmp_path / "ifeval_ast.yaml").read_text(encoding="utf-8")
    monkeypatch.setattr(new_language, "LANGUAGES_FOLDER", tmp_path / "languages")
    assert cli("new", "ast", "--folder", tmp_path / "languages", "--from-nothing")[0] == 0
    assert [file.name for file in (tmp_path / "languages").iterdir()] == ["ast.yaml"]


def test_both_editions_where_they_are_asked_for(tmp_path: Path) -> None:
    prompts, answers = tmp_path / "p.jsonl", tmp_path / "a.jsonl"
    prompts.write_text(PROMPTS, encoding="utf-8")
    answers.write_text(ANSWERS, encoding="utf-8")
    told = cli("score", "-l", "fr", "--data", prompts, "--responses", answers, "--edition", "both")[1]
    assert "edition corrected" in told and "edition original" in told


def test_check_says_what_is_wrong_with_a_pack(tmp_path: Path) -> None:
    good = (ROOT / "ifeval_multi/languages/gl.yaml").read_text(encoding="utf-8")
    file = tmp_path / "gl.yaml"
    file.write_text(good.replace("labels: [gl]", "labels: [pt]"), encoding="utf-8")
    code, told = cli("check", file)
    assert code == 1 and "identification.sample: identified as 'gl', not ['pt']" in told
    file.write_text(
        good.replace('"A miña resposta é si.", followed: true', '"Si!", followed: true'),
        encoding="utf-8",
    )
    code, told = cli("check", file)
    assert code == 0 or "examples, number 1" in told


@pytest.mark.parametrize("option", ["--out", "--verdicts"])
def test_score_writes_verdicts_with_reasons(tmp_path: Path, option: str) -> None:
    prompts, answers = tmp_path / "p.jsonl", tmp_path / "a.jsonl"
    prompts.write_text(PROMPTS, encoding="utf-8")
    answers.write_text(ANSWERS, encoding="utf-8")
    out = tmp_path / "v.jsonl"
    words = ("score", "-l", "fr", "--data", prompts, "--responses", answers, option, out)
    code, told = cli(*words)
    assert code == 0 and "edition corrected" in told and "edition original" not in told
    assert "found 3 bullets, exactly 2 asked" in out.read_text(encoding="utf-8")


def test_score_refuses_answers_to_other_prompts(tmp_path: Path) -> None:
    prompts, answers = tmp_path / "p.jsonl", tmp_path / "a.jsonl"
    prompts.write_text(PROMPTS, encoding="utf-8")
    answers.write_text('{"key": 1, "response": "a", "prompt": "another"}\n', encoding="utf-8")
    words = ("score", "-l", "fr", "--data", prompts, "--responses", answers)
    assert "was given to another prompt" in cli(*words)[1]
    answers.write_text('{"key": 1, "response": "a"}\n', encoding="utf-8")
    assert "there is no answer to key 2" in cli(*words)[1]
    answers.write_text('{"key": 1}\n{"key": 2}\n', encoding="utf-8")
    assert "key `response` holds no text" in cli(*words)[1]


def scored(tmp_path: Path, answers: list[dict[str, Any]], prompts: str = PROMPTS, *more: str) -> tuple[int, str]:
    """`score` on these answers, stdout and stderr together."""
    (tmp_path / "p.jsonl").write_text(prompts, encoding="utf-8")
    (tmp_path / "a.jsonl").write_text("".join(f"{json.dumps(answer)}\n" for answer in answers), encoding="utf-8")
    return cli("score", "-l", "fr", "--data", tmp_path / "p.jsonl", "--responses", tmp_path / "a.jsonl", *more)


ONE, TWO = (json.loads(line) for line in ANSWERS.splitlines())
FIRST, SECOND = (json.loads(line)["prompt"] for line in PROMPTS.splitlines())


@pytest.mark.parametrize(
    "second",
    [{"key": 2, "response": "* A\n* B"}, {"key": "2", "response": "* A\n* B"}, {"key": 2, "prompt": SECOND, "response": "* A\n* B"},
     TWO],
)  # fmt: skip
def test_two_answers_to_a_prompt_are_refused(tmp_path: Path, second: dict[str, Any]) -> None:
    """The last one was taken, so that a second try could raise a score."""
    for answers in ([ONE, TWO, second], [ONE, second, TWO]):
        code, told = scored(tmp_path, answers)
        assert code == 1 and "a.jsonl, line 3: a second answer to key 2; line 2 has the first. Keep one" in told
    answers = [ONE, {"prompt": SECOND, "response": "a"}, {"prompt": SECOND, "response": "b"}]
    assert "line 3: a second answer to key 2" in scored(tmp_path, answers)[1]


def test_answers_with_prompts_may_share_a_key(tmp_path: Path) -> None:
    """So do published ones, of two languages in one file; what is not used is named."""
    answers = [ONE, {**TWO, "prompt": SECOND}, {**TWO, "prompt": "Outro."}, {"key": 7, "response": "?"}]
    code, told = scored(tmp_path, answers)
    assert code == 0 and "prompt_strict 50.00" in told
    assert "a.jsonl: 2 answers not used, no prompt of " in told and "p.jsonl is theirs: line 3, line 4\n" in told
    assert "not used" not in scored(tmp_path, [ONE, TWO])[1]


def test_two_prompts_with_one_key_are_refused(tmp_path: Path) -> None:
    """One answer was scored as the answer to both."""
    code, told = scored(tmp_path, [ONE], PROMPTS.replace('"key": 2', '"key": 1'))
    assert code == 1 and "p.jsonl, line 2: key 1 comes twice; line 1 has it, too. Give each prompt a key" in told
    code, told = scored(tmp_path, [ONE, TWO], PROMPTS + PROMPTS.splitlines()[1])
    assert code == 1 and "p.jsonl, line 3: key 2 comes twice; line 2 has it, too. Take one of the two away." in told
    apart = [{**ONE, "prompt": FIRST}, {**TWO, "key": 1, "prompt": SECOND}]
    code, told = scored(tmp_path, apart, PROMPTS.replace('"key": 2', '"key": 1'))
    assert code == 0 and "prompt_strict 50.00" in told, "each answer says to which of the two"


def sample(row: dict[str, Any], answer: Any, ours: bool = True, **other: Any) -> dict[str, Any]:
    """A line of lm_eval's samples: our tasks put the row into `doc` as a text, lm_eval's own are the `doc`."""
    doc = {"prompt": row["prompt"], "language": "fr", "row": json.dumps(row)} if ours else row
    return {
        "doc_id": 0,
        "doc": doc,
        "target": "0",
        "resps": [[answer]],
        "filtered_resps": [answer],
        "filter": "none",
    } | other


@pytest.mark.parametrize("ours", [True, False])
def test_samples_that_lm_eval_logged_are_scored(tmp_path: Path, ours: bool) -> None:
    rows = [json.loads(line) for line in PROMPTS.splitlines()]
    wanted = scored(tmp_path, [ONE, TWO])
    answers = [sample(row, said["response"], ours) for row, said in zip(rows, (ONE, TWO), strict=True)]
    assert scored(tmp_path, answers) == wanted
    assert scored(tmp_path, answers, "".join(f"{json.dumps(one)}\n" for one in answers)) == wanted, "prompts of samples"
    unfiltered = [{key: value for key, value in one.items() if key != "filtered_resps"} for one in answers]
    assert scored(tmp_path, unfiltered) == wanted
    several = [answers[0], sample(rows[1], "a", ours, filtered_resps=[["a", "b"]])]
    assert "a.jsonl, line 2: 2 answers to one prompt. Give samples" in scored(tmp_path, several)[1]
    assert (
        "line 1: `resps` holds no text"
        in scored(tmp_path, [sample(rows[0], [1.0, False], ours, filtered_resps=[-2.5])])[1]
    )
    twice = scored(tmp_path, [*answers, answers[0]])
    assert twice[0] == 1 and "line 3: a second answer to key 1; line 1 has the first" in twice[1]


def test_a_key_is_a_number_a_text_or_what_a_spreadsheet_makes_of_it(tmp_path: Path) -> None:
    wanted = scored(tmp_path, [ONE, TWO])
    assert scored(tmp_path, [{**ONE, "key": 1.0}, {**TWO, "key": "2"}]) == wanted
    assert "there is no answer to key 2" in scored(tmp_path, [ONE, {**TWO, "key": 2.5}])[1]


def test_a_file_that_cannot_be_scored_says_where_and_why(tmp_path: Path) -> None:
    said = scored(tmp_path, [ONE, {"key": 2, "output": "a"}])[1]
    assert "a.jsonl, line 2: key `response` holds no text; the answer has key, output. Give answers as" in said
    assert "p.jsonl: no prompt in it. Give the prompts" in scored(tmp_path, [], "\n")[1], "it was nan, with exit code 0"
    (tmp_path / "a.jsonl").write_bytes(b'{"key": 1, "response": "\xff"}')
    words = ("score", "-l", "fr", "--data", tmp_path / "p.jsonl", "--responses", tmp_path / "a.jsonl")
    (tmp_path / "p.jsonl").write_text(PROMPTS, encoding="utf-8")
    assert "a.jsonl: not UTF-8 (invalid start byte, byte 24). Save it as UTF-8." in cli(*words)[1]


@pytest.mark.parametrize("name", ["no/such/folder.jsonl", ".", "p.jsonl", "a.jsonl"])
def test_verdicts_that_cannot_be_written_are_refused_before_anything_is_scored(tmp_path: Path, name: str) -> None:
    """The answers were overwritten by their verdicts."""
    code, said = scored(tmp_path, [ONE, TWO], PROMPTS, "--out", str(tmp_path / name))
    assert (
        code == 1
        and "prompt_strict" not in said
        and ("cannot be written" in said or "is the file that is read" in said)
    )
    assert json.loads((tmp_path / "a.jsonl").read_text().splitlines()[0]) == ONE


@pytest.mark.parametrize("number", ["²", float("nan"), float("inf"), -1, 2.5, True, "9" * 5000, "-1", None, [1]])
def test_a_number_that_is_none_is_a_message(tmp_path: Path, number: Any) -> None:
    row = {"key": 1, "prompt": "x", "instruction_id_list": ["length_constraints:number_words"],
           "kwargs": [{"num_words": number, "relation": "at least"}]}  # fmt: skip
    code, said = scored(tmp_path, [ONE], json.dumps(row))
    assert code == 1 and "p.jsonl, line 1" in said and "Traceback" not in said and len(said) < 300


def test_of_prompts_without_an_instruction_no_score_is_shown(tmp_path: Path) -> None:
    row = {"key": 1, "prompt": "x", "instruction_id_list": [], "kwargs": []}
    code, said = scored(tmp_path, [ONE], json.dumps(row))
    assert code == 0 and "prompt_strict –  prompt_loose –" in said and "nan" not in said


def test_score_says_that_lint_has_findings(tmp_path: Path) -> None:
    """The score is as it was: lint is another command."""
    faulty = PROMPTS.replace("au moins 20 mots", "au moins 30 mots")
    code, told = scored(tmp_path, [ONE, TWO], faulty)
    line = f"lint has 1 finding about these prompts: iberian ifeval lint {tmp_path}/p.jsonl --language fr\n"
    good_code, good = scored(tmp_path, [ONE, TWO])
    assert told == good + line and code == good_code == 0 and "lint" not in good
    assert cli("lint", tmp_path / "p.jsonl", "-l", "fr") == (0, f"0 findings in {tmp_path}/p.jsonl\n")


def test_findings_about_published_code_are_told_where_it_is_scored(tmp_path: Path) -> None:
    letter = {"letter": "!", "let_frequency": 2, "let_relation": "at least"}
    row = {"key": 2, "prompt": "Escribe polo menos 2 signos !", "instruction_id_list": ["keywords:letter_frequency"], "kwargs": [letter]}  # fmt: skip
    prompts = json.dumps(row)
    assert "lint has" not in scored(tmp_path, [TWO], prompts, "-l", "gl")[1]
    for edition in ("original", "both"):
        assert "lint has 1 finding" in scored(tmp_path, [TWO], prompts, "-l", "gl", "--edition", edition)[1]


def test_a_pack_with_todo_scores_and_lints_nothing(tmp_path: Path) -> None:
    """The prompts were blamed for relations that the pack does not have yet."""
    cli("new", "it", "--name", "Italian", "--out", tmp_path)
    pack = tmp_path / "it.yaml"
    todo = len(cli("check", pack)[1].splitlines())
    for code, told in (scored(tmp_path, [ONE, TWO], PROMPTS, "-l", str(pack)), cli("lint", tmp_path / "p.jsonl", "-l", pack)):  # fmt: skip
        assert code == 1 and todo > 9
        assert (
            f"it.yaml: the pack is not finished: {todo} lines with TODO. Fill them in; `iberian ifeval check " in told
        )
    french = blocks("yaml")[0]
    pack.write_text(french.replace("own_name: français", "own_name: TODO"), encoding="utf-8")
    assert "not finished: 1 line with TODO" in scored(tmp_path, [ONE, TWO], PROMPTS, "-l", str(pack))[1]
    pack.write_text(french + "# TODO: more examples\n", encoding="utf-8")
    assert scored(tmp_path, [ONE, TWO], PROMPTS, "-l", str(pack))[0] == 0, "a comment is no gap"


def test_a_missing_file_is_no_traceback() -> None:
    code, told = cli("lint", "nowhere.jsonl", "-l", "gl")
    assert code == 1 and "there is no such file" in told and "Traceback" not in told
