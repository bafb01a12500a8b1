"""Multi-LMentry: verdicts written by hand in six languages; what is read, drawn and refused; means over tasks."""

from __future__ import annotations

import ast
import json
import time
from pathlib import Path
from typing import Any

import pytest

from lm_eval_iberian.benchmarks.table import benchmarks
from lm_eval_iberian.documents import hub
from lm_eval_iberian.documents.manifests import manifests
from lm_eval_iberian.documents.revisions import Wanted
from lm_eval_iberian.errors import DocumentsError
from lm_eval_iberian.folders import tasks_folder
from lm_eval_iberian.metrics.elementary import COMPARED, CUES, LAST_VERBS, SHORT_WORDS, TASKS, YES_NO, needed, verdict
from tests.tasks.common import ours, requests

PATH = "BSC-LT/multi_lmentry"
FOLDERS = {"eu": "eu", "gl": "gl", "ca": "ca", "es": "es", "en": "en", "pt": "pt_br"}


def load(name: str) -> Any:
    return ours().load([name])["tasks"][name]


def rows(language: str) -> list[dict[str, Any]]:
    file = tasks_folder() / "lmentry" / "samples" / PATH / FOLDERS[language] / "test.jsonl"
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


# Verdicts -------------------------------------------------------------------------------------------------------------

TWO = {"answer": "river", "distractor": "sun"}
RIO = {"answer": "río", "distractor": "sol"}
MARIPOSA = {"answer": "mariposa", "distractor": "sol"}
RIU = {"answer": "papallona", "distractor": "riu"}
MENDI = {"answer": "tximeleta", "distractor": "ibai"}
LIST = {"answer": "pear", "distractors": ["saw", "nail", "hammer", "pear tree"]}
SIZE = {"answer": 412, "distractor": 87}
WORDS = {"answer": "left", "query": "boat", "sentence": "The boat left the harbour"}

# task, facts, language, answer -> right?
VERDICTS = [
    # one of two, said alone, in a sentence, with quotes and emphasis
    ("more_letters", TWO, "en", "river", True),
    ("more_letters", TWO, "en", "River.", True),
    ("more_letters", TWO, "en", "**River**", True),
    ("more_letters", TWO, "en", "sun", False),
    ("more_letters", TWO, "en", 'The word "river" has more letters than "sun".', True),
    ("more_letters", TWO, "en", "Sun has fewer letters than river.", True),
    ("more_letters", TWO, "en", "River is shorter than sun.", False),
    ("more_letters", TWO, "en", "Sun has more letters.", False),
    ("more_letters", TWO, "en", 'Of the words "river" and "sun", "river" is the longer one.', True),
    ("more_letters", TWO, "en", 'Of the words "river" and "sun", "sun" has more letters.', False),
    ("more_letters", TWO, "en", "Sun has 3 letters and river has 5, so river has more.", True),
    ("more_letters", TWO, "en", "The longer word is river.", True),
    ("more_letters", TWO, "en", "<think>Is it the sun? The sun!</think>\n\nriver", True),
    ("more_letters", TWO, "en", "The answer is:\n\nriver\n\nbecause the sun is shorter", True),
    ("more_letters", TWO, "en", "river or sun", None),
    ("more_letters", TWO, "en", "I cannot say.", None),
    ("more_letters", TWO, "en", "rivers", None),
    ("more_letters", TWO, "en", "", None),
    ("more_letters", TWO, "en", "...\n?", None),
    ("less_letters", {"answer": "sun", "distractor": "river"}, "en", "River has more letters.", True),
    ("less_letters", {"answer": "sun", "distractor": "river"}, "en", "Sun is shorter than river", True),
    ("less_letters", {"answer": "sun", "distractor": "river"}, "en", "River is the shorter one.", False),
    ("more_letters", RIO, "es", "La palabra «río» tiene más letras que «sol».", True),
    ("more_letters", RIO, "es", "Entre «sol» y «río», «sol» tiene más letras.", False),
    ("more_letters", RIO, "es", "«Sol» es más corta.", True),
    ("more_letters", RIU, "ca", "La paraula més llarga és papallona.", True),
    ("more_letters", RIU, "ca", "«Riu» té menys lletres que «papallona».", True),
    ("more_letters", RIU, "gl", "Riu é máis longa ca papallona", False),
    ("more_letters", {"answer": "borboleta", "distractor": "rio"}, "pt", "“Rio” é mais curta.", True),
    ("more_letters", MENDI, "eu", '"tximeleta" hitzak ditu letra gehiago.', True),
    ("more_letters", MENDI, "eu", '"ibai" hitzak baino letra gehiago ditu "tximeleta" hitzak.', True),
    ("more_letters", MENDI, "eu", '"ibai" laburragoa da.', True),
    ("more_letters", MENDI, "eu", "Ibai da luzeagoa.", False),
    # counted before they are compared; compared without "letters"; not compared at all
    ("more_letters", MARIPOSA, "es", "Sol tiene 3 letras y mariposa tiene 8, así que mariposa tiene más.", True),
    ("more_letters", MARIPOSA, "es", "Mariposa tiene 8 letras y sol tiene menos.", True),
    ("more_letters", MARIPOSA, "es", "Sol tiene 3 letras y mariposa 8: sol es más larga.", False),
    ("more_letters", MARIPOSA, "es", "Sol es más corta que mariposa.", True),
    ("more_letters", MARIPOSA, "es", "La que tiene mayor número de letras es mariposa.", True),
    ("less_letters", {"answer": "sol", "distractor": "mariposa"}, "es", "Mariposa tiene más.", True),
    ("more_letters", RIU, "ca", "Riu en té 3 i papallona 9, per tant papallona en té més.", True),
    ("more_letters", RIU, "ca", "Riu és més curta.", True),
    ("more_letters", {"answer": "bolboreta", "distractor": "río"}, "gl", "Río ten 3 e bolboreta 9; bolboreta ten máis.", True),
    ("more_letters", {"answer": "borboleta", "distractor": "rio"}, "pt", "Rio tem 3, logo borboleta tem mais.", True),
    ("more_letters", TWO, "en", "'Sun' has 3 letters and 'river' has 5 letters.", None),
    ("more_letters", TWO, "en", "'Sun' (3 letters) vs. 'river' (5 letters): 'river'.", True),
    ("more_letters", TWO, "en", "River, not sun.", True),
    ("more_letters", TWO, "en", "Sun, not river.", False),
    ("more_letters", TWO, "en", "Both river and the sun.", None),
    # words that are compared and look like words of a comparison
    ("more_letters", {"answer": "lesson", "distractor": "cat"}, "en", "Lesson", True),
    ("more_letters", {"answer": "lesson", "distractor": "cat"}, "en", "Cat", False),
    ("first_alphabetically", {"answer": "after", "distractor": "dog"}, "en", "After", True),
    ("first_alphabetically", {"answer": "after", "distractor": "first"}, "en", '"First" comes after "after".', True),
    ("bigger_number", SIZE, "en", "412", True),
    ("bigger_number", SIZE, "en", "87 is smaller than 412", True),
    ("bigger_number", SIZE, "en", "4120", None),
    ("bigger_number", SIZE, "es", "El número 87 es mayor que 412.", False),
    ("bigger_number", SIZE, "eu", "412 handiagoa da.", True),
    ("bigger_number", SIZE, "eu", "87 baino handiagoa da 412.", True),
    ("smaller_number", {"answer": 87, "distractor": 412}, "gl", "O 412 é maior ca o 87.", True),
    ("smaller_number", {"answer": 87, "distractor": 412}, "ca", "412 és més petit.", False),
    ("first_alphabetically", TWO, "en", "Sun comes after river.", True),
    ("first_alphabetically", TWO, "en", "River comes before sun.", True),
    ("first_alphabetically", TWO, "pt", "Sun vem primeiro", False),
    ("first_alphabetically", RIO, "es", "«Sol» va después de «río».", True),
    ("first_alphabetically", MENDI, "eu", "Ibai dator lehenago.", False),
    ("rhyming_word", {"answer": "light", "distractor": "moon", "query": "night"}, "en", "Night rhymes with light", True),
    ("rhyming_word", {"answer": "balcó", "distractor": "cullera"}, "ca", "cullera", False),
    ("homophones", {"answer": "hora", "distractor": "mañá"}, "gl", "«Ora» soa como «hora».", True),
    ("homophones", {"answer": "hora", "distractor": "mañá"}, "gl", "Soa como «mañá».", False),
    # one of a list; the longer of two options that share a place
    ("most_associated_word", LIST, "en", "pear", True),
    ("most_associated_word", LIST, "en", "Pear tree", False),
    ("most_associated_word", LIST, "en", '"saw", "nail", "hammer" and "pear": pear', True),
    ("least_associated_word", LIST, "en", "The nail, not the pear", False),
    ("least_associated_word", LIST, "en", "Pear has least to do with it.", True),
    # yes or no
    ("any_words_from_category", {"num_distractors": 4, "num_words": 5}, "en", "Yes, one of them.", True),
    ("any_words_from_category", {"num_distractors": 5, "num_words": 5}, "en", "Yes", False),
    ("any_words_from_category", {"num_distractors": 5, "num_words": 5}, "es", "No.", True),
    ("all_words_from_category", {"num_distractors": 0, "num_words": 5}, "es", "Si", True),
    ("all_words_from_category", {"num_distractors": 0, "num_words": 5}, "ca", "La resposta és sí.", True),
    ("all_words_from_category", {"num_distractors": 1, "num_words": 5}, "ca", "La resposta és sí.", False),
    ("all_words_from_category", {"num_distractors": 1, "num_words": 5}, "gl", "Non, hai un que non o é.", True),
    ("all_words_from_category", {"num_distractors": 1, "num_words": 5}, "gl", "No caso de todas: si", False),
    ("all_words_from_category", {"num_distractors": 0, "num_words": 5}, "eu", "Bai", True),
    ("all_words_from_category", {"num_distractors": 0, "num_words": 5}, "eu", "Batzuk bai, baina beste batzuk ez", None),
    ("all_words_from_category", {"num_distractors": 0, "num_words": 5}, "pt", "Sim, todas.", True),
    ("all_words_from_category", {"num_distractors": 0, "num_words": 5}, "pt", "Não", False),
    ("all_words_from_category", {"num_distractors": 0, "num_words": 5}, "en", "All are, there are no exceptions.", None),
    ("all_words_from_category", {"num_distractors": 0, "num_words": 5}, "es", "Todas, no hay ninguna otra.", None),
    ("all_words_from_category", {"num_distractors": 0, "num_words": 5}, "ca", "Ho són totes, no n'hi ha d'altres.", None),
    ("all_words_from_category", {"num_distractors": 1, "num_words": 5}, "es", "Creo que no, mesa es un mueble.", True),
    ("all_words_from_category", {"num_distractors": 1, "num_words": 5}, "en", "The answer is no", True),
    # letters
    ("first_letter", {"answer": "c", "word": "cat"}, "en", "C", True),
    ("first_letter", {"answer": "c", "word": "cat"}, "en", 'The first letter of "cat" is "c".', True),
    ("first_letter", {"answer": "c", "word": "cat"}, "en", "The first letter is t.", False),
    ("first_letter", {"answer": "c", "word": "cat"}, "en", "C is the first letter of the word.", True),
    ("first_letter", {"answer": "c", "word": "cat"}, "en", "A cat begins with it", None),
    ("last_letter", {"answer": "a", "word": "casa"}, "gl", "A última letra é o a.", True),
    ("last_letter", {"answer": "a", "word": "casa"}, "gl", "A derradeira", None),
    ("last_letter", {"answer": "a", "word": "casa"}, "ca", "La darrera lletra és «s».", False),
    ("last_letter", {"answer": "a", "word": "casa"}, "es", "La última letra de «casa» es la «a».", True),
    ("first_letter", {"answer": "l", "word": "lore"}, "eu", "Lehenengo letra l da.", True),
    ("first_letter", {"answer": "l", "word": "lore"}, "eu", '"l" da, ez "o".', None),
    ("first_letter", {"answer": "á", "word": "árbol"}, "es", "Á", True),
    ("first_letter", {"answer": "a", "word": "apple"}, "en", "'A' is the first letter of 'apple'.", True),
    ("first_letter", {"answer": "a", "word": "apple"}, "en", "‘B’ is the first letter of **apple**.", False),
    # words of a sentence, set apart by whatever marks
    ("word_after", WORDS, "en", "'Left' comes after 'boat'.", True),
    ("word_after", WORDS, "en", "**Left** comes after _boat_.", True),
    ("word_after", WORDS, "en", "Left comes after boat.", True),
    ("word_after", WORDS, "en", "'The' comes after `boat`.", False),
    ("word_before", {"answer": "the", "query": "boat"}, "en", "'The' is before 'boat'.", True),
    ("last_word", {"answer": "formatge"}, "ca", "‘Formatge’ és l'última paraula.", True),
    ("sentence_containing", {"word": "garden"}, "en", "The 'garden' is **full** of roses.", True),
    ("starts_with_word", {"word": "the"}, "en", "The **old** garden is full.", True),
    ("word_after", WORDS, "en", "left", True),
    ("word_after", WORDS, "en", 'The word after "boat" is "left".', True),
    ("word_after", WORDS, "en", 'After "boat" comes "the".', False),
    ("word_after", WORDS, "en", "The word that follows it is left.", True),
    ("word_after", WORDS, "en", '"left" or "the"', None),
    ("first_word", {"answer": "Itsasontzia"}, "eu", "Lehenengo hitza Itsasontzia da.", True),
    ("last_word", {"answer": "formatge"}, "ca", "L'última paraula és «formatge».", True),
    ("last_word", {"answer": "formatge"}, "ca", "L'última paraula és «mel».", False),
    ("first_word", {"answer": "Itsasontzia"}, "eu", "Portutik da.", False),
    ("word_before", {"answer": "the", "query": "boat"}, "en", "The", True),
    ("word_before", {"answer": "the", "query": "boat"}, "en", "left", False),
    # words that are made
    ("word_containing", {"letter": "m"}, "en", "summer", True),
    ("word_containing", {"letter": "m"}, "en", "winter", False),
    ("word_containing", {"letter": "m"}, "en", "m", False),
    ("word_containing", {"letter": "m"}, "en", "Summer contains the letter m.", True),
    ("word_containing", {"letter": "m"}, "en", 'A word with the letter "m" is "moon".', True),
    ("word_containing", {"letter": "m"}, "en", "moon, summer, lamp", True),
    ("word_containing", {"letter": "m"}, "en", "moon, sun, lamp", False),
    ("word_not_containing", {"letter": "a"}, "es", "sol", True),
    ("word_not_containing", {"letter": "a"}, "es", "Una palabra sin ella es casa.", False),
    ("starts_with_letter", {"letter": "t"}, "gl", "Tren", True),
    ("starts_with_letter", {"letter": "t"}, "gl", "catro", False),
    ("ends_with_letter", {"letter": "n"}, "eu", "egun", True),
    ("ends_with_letter", {"letter": "n"}, "eu", "neska", False),
    # sentences
    ("sentence_containing", {"word": "garden"}, "en", "The garden is full of roses.", True),
    ("sentence_containing", {"word": "garden"}, "en", "garden", False),
    ("sentence_containing", {"word": "garden"}, "en", "The gardener is old.", False),
    ("sentence_containing", {"word": "home"}, "ca", "Ha vingut l'home del gas.", True),
    ("sentence_containing", {"word": "garden"}, "en", 'Sure: "We sat in the garden."', True),
    ("sentence_not_containing", {"word": "negu"}, "eu", "Uda iritsi da.", True),
    ("sentence_not_containing", {"word": "negu"}, "eu", "Negu hotza izan da.", False),
    ("starts_with_word", {"word": "inverno"}, "pt", "Inverno é frio.", True),
    ("starts_with_word", {"word": "inverno"}, "pt", "O inverno é frio.", False),
    ("ends_with_word", {"word": "invierno"}, "es", "Pronto llegará el invierno.", True),
    ("ends_with_word", {"word": "invierno"}, "es", "El invierno llega.", False),
    ("ends_with_word", {"word": "hivern"}, "ca", "Ja ha arribat l'hivern!", True),
]  # fmt: skip


@pytest.mark.parametrize(("task", "facts", "language", "answer", "right"), VERDICTS)
def test_verdicts(task: str, facts: dict[str, Any], language: str, answer: str, right: bool | None) -> None:
    assert verdict(task, facts, answer, language) is right


def test_every_task_has_verdicts_of_both_sorts() -> None:
    for task in TASKS:
        found = {right for one, *_, right in VERDICTS if one == task}
        assert found >= {True, False}, task
    assert len(TASKS) == len(set(TASKS)) == 25


def test_every_language_has_its_words() -> None:
    assert set(CUES) == set(COMPARED.values())
    for table in (*CUES.values(), YES_NO, SHORT_WORDS):
        assert set(table) == set(FOLDERS)
    assert set(LAST_VERBS) <= set(FOLDERS)


@pytest.mark.parametrize("bad", ['"' * 50_000, "river " * 20_000, '"a" ' * 20_000, "a" * 100_000, "river and " * 9_000])
def test_long_answers_take_no_time(bad: str) -> None:
    facts = {**TWO, "distractors": ["sun"], "num_distractors": 1, "num_words": 5, "letter": "a", "word": "river"}
    begun = time.monotonic()
    for task in TASKS:
        verdict(task, facts, bad, "eu")
    assert time.monotonic() - begun < 1


def test_words_with_signs_of_regular_expressions_are_words() -> None:
    assert verdict("more_letters", {"answer": "(a+)+$", "distractor": "b"}, "(a+)+$", "en") is True


# The task -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", FOLDERS)
def test_requests_are_the_questions_of_the_data_set(language: str) -> None:
    """Read with json alone; each task, in the order of TASKS."""
    task = load(f"iberian_lmentry_{language}")
    asked = requests(task)
    assert sorted(text for text, *_ in asked) == sorted(row["input"] for row in rows(language))
    assert {(settings["do_sample"], tuple(settings["until"])) for _, settings, _ in asked} == {(False, ("\n\n\n",))}
    kinds = list(dict.fromkeys(doc["task"] for doc in task.eval_docs))
    assert kinds == [one for one in TASKS if language != "eu" or one != "homophones"]


@pytest.mark.parametrize("language", FOLDERS)
def test_the_samples_right_answers_are_right(language: str) -> None:
    """Also that they hold what the rules read; where the right answer is known by the metadata alone."""
    task = load(f"iberian_lmentry_{language}")
    for doc in task.eval_docs:
        facts = json.loads(doc["facts"])
        assert set(needed(doc["task"])) <= set(facts)
        if "answer" in facts:
            found = task.process_results(doc, [str(facts["answer"])])
            assert found == {"acc": (doc["task"], 1.0), doc["task"]: 1.0, "unreadable": 0.0}
            wrong = facts.get("distractor") or facts.get("query") or "9"
            assert task.process_results(doc, [str(wrong)])[doc["task"]] == 0.0
    assert task.process_results(task.eval_docs[0], ["?"])["unreadable"] == 1.0


def test_accuracy_is_the_mean_of_the_tasks() -> None:
    """However many questions each has."""
    aggregate = load("iberian_lmentry_en").aggregation()
    assert aggregate["acc"]([("a", 1.0), ("b", 0.0), ("b", 0.0), ("b", 1.0)]) == pytest.approx((1 + 1 / 3) / 2)
    assert aggregate["word_after"]([1.0, 0.0]) == 0.5
    assert set(aggregate) == {"acc", "unreadable", *TASKS}
    better = load("iberian_lmentry_en").higher_is_better()
    assert better == {**dict.fromkeys(TASKS, True), "acc": True, "unreadable": False}


def write(folder: Path, made: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False) for row in made]
    (folder / "test.jsonl").write_text("\n".join(lines), encoding="utf-8")


def test_a_hundred_of_each_task_are_drawn_and_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IBERIAN_DATA", str(tmp_path))
    made = [{**row, "id": f"{copy}", "input": f"{row['input']} {copy}"} for row in rows("gl") for copy in range(150)]
    analysis = [{**made[0], "task": "more_letters_length_diff_1"}]
    write(tmp_path / PATH / "gl", made + analysis)
    task = load("iberian_lmentry_gl")
    drawn = task.config.metadata["drawn"]
    assert len(task.eval_docs) == 25 * 100 and drawn["of"] == len(made)
    assert set(drawn["rows"]) == set(TASKS)
    assert drawn["rows"]["last_word"] == [doc["id"] for doc in task.eval_docs if doc["task"] == "last_word"]


def test_what_is_not_as_known_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IBERIAN_DATA", str(tmp_path))
    folder = tmp_path / PATH / "eu"
    write(folder, [row for row in rows("eu") if row["task"] != "word_after"])
    with pytest.raises(DocumentsError, match=r"\(eu\): no questions of word_after; there are all_words_from_category,"):
        load("iberian_lmentry_eu")
    write(folder, [{**row, "metadata": "{'letter': 'a'}"} for row in rows("eu")])
    with pytest.raises(DocumentsError, match=r"more_letters, question \d: its metadata lacks answer, .*holds letter\."):
        load("iberian_lmentry_eu")
    write(folder, [{**row, "metadata": "__import__('os')"} for row in rows("eu")])
    with pytest.raises(DocumentsError, match=r"its metadata lacks answer, distractor; it holds nothing\."):
        load("iberian_lmentry_eu")
    as_json = [{**row, "metadata": json.dumps(ast.literal_eval(row["metadata"]))} for row in rows("eu")]
    write(folder, as_json)
    assert len(load("iberian_lmentry_eu").eval_docs) == len(as_json)


def test_files_of_a_folder_are_one_split_that_says_which_is_which(tmp_path: Path, monkeypatch: Any) -> None:
    """As the Hub keeps it: a folder a language, a file a task."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    seen = []

    def snapshot_download(path: str, **options: Any) -> str:
        seen.append((path, options["revision"], options["allow_patterns"], options["repo_type"]))
        return str(tmp_path / commit)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    manifest = manifests()[PATH]
    folder = tmp_path / commit / "eu"
    folder.mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"no \.jsonl files in eu at main"):
        hub.read(PATH, "eu", manifest, Wanted())
    for one in ("word_after", "first_word"):
        lines = [{key: row[key] for key in ("id", "input", "metadata", "canary")} for row in rows("eu")
                 if row["task"] == one]  # fmt: skip
        (folder / f"{one}.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    found, read = hub.read(PATH, "eu", manifest, Wanted(commit))
    assert (list(found), read) == (["test"], commit)
    assert found["test"]["task"][:] == ["first_word"] * 2 + ["word_after"] * 2
    assert found["test"].to_list()[3] == next(
        {**row, "task": "word_after"} for row in rows("eu") if row["task"] == "word_after" and row["id"] == "2"
    )
    assert seen == [(PATH, "main", ["eu/*.jsonl"], "dataset"), (PATH, commit, ["eu/*.jsonl"], "dataset")]


def test_the_table_has_it_in_six_languages() -> None:
    found = [one for one in benchmarks() if one.name == "Multi-LMentry"]
    assert [one.language for one in found] == list(FOLDERS)
    assert {(one.metric, one.chance, one.shots, one.in_more, one.in_suite) for one in found} == {
        ("acc", 0.0, None, True, False)
    }
