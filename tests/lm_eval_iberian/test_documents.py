"""Reading documents: mirrors good and bad, and the comparison with the manifests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lm_eval_iberian.documents import loader as documents
from lm_eval_iberian.documents.loader import DocumentsError
from lm_eval_iberian.documents.manifests import kind_of, manifests, nulls
from lm_eval_iberian.folders import tasks_folder
from tests.conftest import SHARED
from tests.tasks.common import build

HITZ = SHARED / "data" / "hitz"
QUESTION = {"id": 0, "question": "Zein?", "candidates": ["bat", "bi"], "answer": 0}


def write(folder: Path, path: str, config: str, split: str, rows: list[Any]) -> Path:
    """A file of a mirror."""
    file = folder / path / config / f"{split}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IBERIAN_DATA", str(tmp_path))
    return tmp_path


# Of benchmarks that take no shots unless told to: a few documents are enough to try them.
WITHOUT_SHOTS = ("projecte-aina/caBreu", "gplsi/cocoteros", "proxectonos/summarization_gl", "csebuetnlp/xlsum",
                 "projecte-aina/veritasQA")  # fmt: skip


@pytest.mark.slow
def test_every_sample_is_as_its_manifest_says() -> None:
    """Every configuration of every manifest has samples with the splits, columns and types it names."""
    for path, manifest in manifests().items():
        if path == "mteb/FloresBitextMining":
            continue
        for config, splits in manifest.configs.items():
            found = documents.load(path, config, splits)
            assert found.origin == "samples"
            # A row of WikiLingua has two sections, each a document.
            enough = 12 if len(splits) == 1 and not path.endswith(("multiblimp", "wiki_lingua")) else 6
            if path in WITHOUT_SHOTS:
                enough = 3
            assert all(len(found[split]) >= enough for split in splits), path


def test_every_data_set_of_a_task_has_a_manifest() -> None:
    import yaml

    named = set()
    for file in tasks_folder().glob("*/*yaml"):
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("dataset_path: ")]
        named |= {yaml.safe_load(line)["dataset_path"] for line in lines}
    missing = {path for path in named if path not in manifests() and "ifeval" not in path.lower()}
    assert missing == set()


@pytest.mark.skipif(not HITZ.is_dir(), reason="the real Basque documents lie beside the checkout only")
def test_the_real_basque_sets(mirror: Path) -> None:
    """EusTrivia whole, as HiTZ published it, and one of the exams."""
    for source, path, config in (
        ("eus_trivia", "HiTZ/EusTrivia", "default"),
        ("eus_exams_eu_ejadministrari", "HiTZ/EusExams", "eu_ejadministrari"),
    ):
        folder = mirror / path / config
        folder.mkdir(parents=True)
        (folder / "test.jsonl").symlink_to(HITZ / f"{source}.jsonl")
    task = build("iberian_eus_trivia")
    assert len(task.eval_docs) == 1715
    chance = sum(100 / len(task.doc_to_choice(row)) for row in task.eval_docs) / 1715
    assert chance == pytest.approx(26.55, abs=0.005)
    assert task.dump_config()["metadata"]["documents"] == str(mirror)
    assert len(build("iberian_eus_exams_eu_ejadministrari").eval_docs) == 696


def test_a_file_cut_short_is_refused(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(mirror, "HiTZ/EusTrivia", "default", "test", [QUESTION] * 7)
    with pytest.raises(DocumentsError, match=r"split test has 7 rows, not 1,715 \(eus_trivia/manifest.yml\)"):
        documents.load("HiTZ/EusTrivia", None, ["test"])
    monkeypatch.setenv("IBERIAN_ROWS", "any")
    found = documents.load("HiTZ/EusTrivia", None, ["test"])
    assert found.differences == ("split test has 7 rows, not 1,715",)
    assert build("iberian_eus_trivia").dump_config()["metadata"]["differences"] == list(found.differences)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"question": "Zein?", "answer": 0}, r"no column candidates \(there are: question, answer\)"),
        ({**QUESTION, "answer": "0"}, "column answer is string, not integer"),
        ({**QUESTION, "candidates": "bat"}, "column candidates is string, not strings"),
        ({**QUESTION, "candidates": [1, 2]}, "column candidates is a list of integer, not strings"),
    ],
)
def test_other_columns_are_named(mirror: Path, row: dict[str, Any], says: str) -> None:
    write(mirror, "HiTZ/EusTrivia", "default", "test", [row] * 1715)
    with pytest.raises(DocumentsError, match=says):
        documents.load("HiTZ/EusTrivia", None, ["test"])


def test_belebele_with_numbers_or_text(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`correct_answer_num` is a string in facebook/belebele and was a number in the Galician set."""
    monkeypatch.setenv("IBERIAN_ROWS", "any")
    row = {f"mc_answer{n}": str(n) for n in (1, 2, 3, 4)} | {"flores_passage": "p", "question": "q"}
    for answer in (3, "3"):
        rows = [{**row, "correct_answer_num": answer, "question": f"q{n}"} for n in range(8)]
        write(mirror, "proxectonos/belebele_gl", "default", "train", rows)
        task = build("iberian_belebele_gl")
        assert [task.doc_to_target(one) for one in task.eval_docs] == [2] * 8


def test_story_cloze_under_its_first_names(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """XStoryCloze with the Galician set's column names, and the Galician set with XStoryCloze's."""
    monkeypatch.setenv("IBERIAN_ROWS", "any")
    ours = tasks_folder() / "xstorycloze" / "samples"
    aliases = manifests()["juletxara/xstory_cloze"].aliases
    for split in ("train", "eval"):
        lines = (ours / f"juletxara/xstory_cloze/eu/{split}.jsonl").read_text(encoding="utf-8").splitlines()
        back = {column: alias for alias, column in aliases.items()}
        rows = [{back.get(key, key): value for key, value in json.loads(line).items()} for line in lines]
        write(mirror, "juletxara/xstory_cloze", "eu", split, rows)
        write(
            mirror,
            "proxectonos/xstorycloze_gl",
            "gl",
            "test" if split == "eval" else split,
            list(map(json.loads, lines)),
        )
    renamed, galician = build("iberian_xstorycloze_eu"), build("iberian_xstorycloze_gl")
    monkeypatch.setenv("IBERIAN_DATA", "samples")
    plain = build("iberian_xstorycloze_eu")
    for mine, other in zip(plain.eval_docs, renamed.eval_docs, strict=True):
        assert plain.doc_to_text(mine) == renamed.doc_to_text(other)
    for mine, other in zip(plain.eval_docs, galician.eval_docs, strict=True):
        assert plain.doc_to_choice(mine) == galician.doc_to_choice(other)


def test_flores_with_other_ids_is_refused(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sentences joined by their place would be other sentences' translations."""
    monkeypatch.setenv("IBERIAN_ROWS", "any")
    for language, shift in (("spa_Latn", 0), ("eus_Latn", 1)):
        for split in ("dev", "devtest"):
            rows = [{"id": n + shift, "text": f"{language} {n + shift}"} for n in range(9)]
            write(mirror, "openlanguagedata/flores_plus", language, split, rows)
    with pytest.raises(DocumentsError, match=r"do not have the same ids \(2 differ\)"):
        build("iberian_flores_es-eu")


def test_flores_is_joined_on_id(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IBERIAN_ROWS", "any")
    for language, order in (("spa_Latn", range(9)), ("eus_Latn", reversed(range(9)))):
        rows = [{"id": n, "text": f"sentence {n}"} for n in order]
        for split in ("dev", "devtest"):
            write(mirror, "openlanguagedata/flores_plus", language, split, rows)
    for row in build("iberian_flores_es-eu").eval_docs:
        assert row["sentence_spa_Latn"] == row["sentence_eus_Latn"] == f"sentence {row['id']}"


@pytest.mark.parametrize("prefix", ["", "sentence_"])
def test_flores_from_the_ungated_copy(mirror: Path, monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    """Where FLORES+ is out of reach: the copy, under either name of its columns; the results say so."""
    monkeypatch.setenv("IBERIAN_ROWS", "any")
    rows = [{f"{prefix}{code}": f"{code} {n}" for code in ("spa_Latn", "eus_Latn")} for n in range(9)]
    for split in ("dev", "devtest"):
        write(mirror, "mteb/FloresBitextMining", "default", split, rows)
    task = build("iberian_flores_es-eu")
    assert task.eval_docs[0] == {"sentence_spa_Latn": "spa_Latn 0", "sentence_eus_Latn": "eus_Latn 0"}
    assert task.dump_config()["metadata"]["documents"].startswith("mteb/FloresBitextMining")


def test_flores_without_shots_is_no_flores(mirror: Path) -> None:
    """The copy without dev: both reasons are given, and nothing is taken from devtest."""
    write(mirror, "mteb/FloresBitextMining", "default", "devtest", [{"spa_Latn": "a", "eus_Latn": "b"}] * 1012)
    with pytest.raises(DocumentsError, match=r"flores_plus \(spa_Latn\) cannot be had(.|\n)*no split dev"):
        build("iberian_flores_es-eu")


def test_damaged_files(mirror: Path) -> None:
    folder = mirror / "HiTZ/EusTrivia/default"
    folder.mkdir(parents=True)
    damage = {
        "test.jsonl": [(b'{"id": 1}\n{"id": ', "line 2: not JSON"), (b"\xff\xfe", "not UTF-8"),
                       (b"[1]\n", "JSON object"), (b"[" * 100_000, "not JSON"),
                       (b'{"id": 1}\n{"id": "a"}\n', "same columns and types")],
        "test.parquet": [(b"PAR1 and then nothing", "not a whole parquet file"), (b"", "not a whole parquet file")],
    }  # fmt: skip
    for name, contents in damage.items():
        for content, says in contents:
            (folder / name).write_bytes(content)
            with pytest.raises(DocumentsError, match=says):
                documents.load("HiTZ/EusTrivia", None, ["test"])
        (folder / name).unlink()
    with pytest.raises(DocumentsError, match=r"no \.jsonl or \.parquet files"):
        documents.load("HiTZ/EusTrivia", None, ["test"])


def test_no_such_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IBERIAN_DATA", "/no/such/folder")
    with pytest.raises(DocumentsError, match="no such folder"):
        documents.load("HiTZ/EusTrivia", None, ["test"])


def test_kinds_of_columns() -> None:
    from datasets import ClassLabel, List, Value

    assert kind_of(ClassLabel(names=["no", "yes"])) == kind_of(Value("int32")) == "integer"
    assert kind_of(List(Value("string"))) == "strings"
    assert kind_of({"text": List(Value("string")), "label": List(Value("string"))}) == "choices"
    assert kind_of(Value("large_string")) == "string"
    assert kind_of(Value("float64")) == "float64"


def test_lines_end_where_json_lines_end(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unicode knows more line ends (U+2028, U+0085), which a document may hold."""
    monkeypatch.setenv("IBERIAN_ROWS", "any")
    file = write(mirror, "HiTZ/EusTrivia", "default", "test", [QUESTION])
    text = "lerro bat\u2028beste bat\x85eta beste bat\x0b"
    file.write_text(json.dumps({**QUESTION, "question": text}, ensure_ascii=False) + "\r\n\n", encoding="utf-8")
    assert documents.load("HiTZ/EusTrivia", None, ["test"])["test"]["question"] == [text]


def test_every_split_is_compared_and_must_hold_documents(mirror: Path) -> None:
    rows = [json.loads(line) for line in (tasks_folder() / "xstorycloze/samples/juletxara/xstory_cloze/eu/eval.jsonl")
            .read_text(encoding="utf-8").splitlines()]  # fmt: skip
    known = manifests()["juletxara/xstory_cloze"].configs["eu"]
    assert set(known) == {"train", "eval"} and known["train"] is not None and known["eval"] is not None
    for broken, more in (("train", 1), ("eval", 1), ("eval", -1)):
        for split in known:
            count = known[split] + (more if split == broken else 0)
            write(mirror, "juletxara/xstory_cloze", "eu", split, (rows * (count // len(rows) + 1))[:count])
        with pytest.raises(DocumentsError, match=rf"split {broken} has [\d,]+ rows, not"):
            documents.load("juletxara/xstory_cloze", "eu", ["train", "eval"])
    (mirror / "juletxara/xstory_cloze/eu/eval.jsonl").write_text("")
    with pytest.raises(DocumentsError, match="split eval holds no documents"):
        documents.load("juletxara/xstory_cloze", "eu", ["train", "eval"])


def test_samples_are_of_their_own_configuration() -> None:
    """Exams of one language share those of the language; no other configuration takes another one's."""
    basque, spanish = (documents.load("HiTZ/EusExams", f"{code}_any")["test"]["question"] for code in ("eu", "es"))
    assert basque != spanish
    with pytest.raises(DocumentsError, match="there are no embedded samples of it"):
        documents.load("HiTZ/EusExams", "xx_any")


def test_an_alias_beside_its_column_is_left_alone() -> None:
    from datasets import Dataset

    from lm_eval_iberian.documents.manifests import Manifest, with_known_names

    manifest = Manifest("a/b", Path("manifest.yml"), {"Frase": "string"}, {}, "main", aliases={"sentence": "Frase"})
    both = Dataset.from_list([{"sentence": "a", "Frase": "b"}])
    assert with_known_names(both, manifest)[0] == {"sentence": "a", "Frase": "b"}
    assert with_known_names(both.remove_columns("Frase"), manifest)[0] == {"Frase": "a"}


def test_choices_have_texts_and_labels() -> None:
    from datasets import List, Value

    for other in ({"text": List(Value("string"))}, {"text": List(Value("string")), "label": List(Value("int32"))}):
        assert kind_of(other) not in ("choices", "string", "strings", "integer")


# Answers and texts that are not there ---------------------------------------------------------------------------------


def trivia(mirror: Path, **first: Any) -> Any:
    """The task on eight questions, the second of which is changed."""
    rows = [{**QUESTION, "id": number, "question": f"Zein {number}?"} for number in range(8)]
    write(mirror, "HiTZ/EusTrivia", "default", "test", [rows[0], {**rows[1], **first}, *rows[2:]])
    task = build("iberian_eus_trivia")
    task.build_all_requests(limit=None, rank=0, world_size=1)
    return task


@pytest.mark.parametrize("first", [{"question": None}, {"candidates": ["bat", None]}])
def test_a_text_that_is_null_marks_the_score(
    mirror: Path, monkeypatch: pytest.MonkeyPatch, first: dict[str, Any]
) -> None:
    """The prompt would say "None", and nobody would know."""
    monkeypatch.setenv("IBERIAN_ROWS", "any")
    found = trivia(mirror, **first).config.metadata["differences"]
    (column,) = first
    assert f'split test: column {column} is null 1 times, where prompts say "None"' in found
    assert len(trivia(mirror).config.metadata["differences"]) == 1, "the number of rows"


def test_nulls_are_counted_wherever_they_are() -> None:
    from datasets import Dataset

    choices = [{"text": ["a", None], "label": ["A", "B"]}, {"text": ["b", "c"], "label": [None, "B"]}, None]
    data = Dataset.from_dict(
        {"question_stem": [None, "x", None], "choices": choices, "answerKey": ["A"] * 3, "z": [None] * 3}
    )
    manifest = next(one for one in manifests().values() if "choices" in one.columns.values())
    column = next(name for name, kind in manifest.columns.items() if kind == "choices")
    found = nulls(data.rename_column("choices", column) if column != "choices" else data, manifest,
                  {"question_stem": "string", column: "choices"})  # fmt: skip
    assert [word.split(",")[0] for word in found] == [
        "column question_stem is null 2 times",
        f"column {column} is null 3 times",
    ]


def test_an_answer_that_is_no_choice_marks_the_score(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """lm_eval counts it as wrong. -1 is what splits with hidden answers hold."""
    monkeypatch.setenv("IBERIAN_ROWS", "any")
    task = trivia(mirror, answer=-1)
    words = "1 documents count as wrong whatever is answered: their right answer is none of their choices"
    assert task.config.metadata["differences"][1:] == [words]
    task.build_all_requests(limit=None, rank=0, world_size=1)
    assert task.config.metadata["differences"][1:] == [words], "said once"


def test_no_answer_is_refused_before_anything_is_asked(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IBERIAN_ROWS", "any")
    with pytest.raises(DocumentsError, match="document 1 of HiTZ/EusTrivia has no right answer"):
        trivia(mirror, answer=None)


def test_two_files_of_one_split_are_refused(mirror: Path) -> None:
    """Either may be the newer one."""
    file = write(mirror, "HiTZ/EusTrivia", "default", "test", [QUESTION])
    documents._read_file(file).to_parquet(str(file.with_suffix(".parquet")))
    with pytest.raises(DocumentsError, match=r"test\.jsonl and test\.parquet are both the split test"):
        documents.load("HiTZ/EusTrivia", None, ["test"])


def test_a_byte_order_mark_is_no_part_of_a_file(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IBERIAN_ROWS", "any")
    file = write(mirror, "HiTZ/EusTrivia", "default", "test", [QUESTION])
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    assert documents.load("HiTZ/EusTrivia", None, ["test"])["test"].to_list() == [QUESTION]
