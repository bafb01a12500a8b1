"""Small answers that were judged wrongly once, and siblings of each kind in other words and languages.

The shared cases are read where they are; the rest stands here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ifeval_multi import check, load_pack

SHARED = Path("/work/shared/cases/ifeval/cases.jsonl")
if not SHARED.is_file():
    SHARED = Path(__file__).resolve().parents[3] / "shared/cases/ifeval/cases.jsonl"


def shared() -> list[dict[str, Any]]:
    return [json.loads(line) for line in SHARED.read_text(encoding="utf-8").splitlines()] if SHARED.is_file() else []


@pytest.mark.parametrize("case", shared(), ids=lambda case: case["fault"][:40])
def test_shared_case(case: dict[str, Any]) -> None:
    pack = load_pack(case["language"])
    verdict = check(case["instruction"], case["answer"], case["kwargs"], pack, prompt=case["prompt"])
    assert verdict.followed == case["expected"], verdict.reason


# (language, keyword, text, how often)
WORDS = [
("en", "her", "Her, hers.", 1), ("es", "esta", "Esta y estas.", 1), ("gl", "este", "Este e estes.", 1), ("ca", "aquest", "Aquest i aquests.", 1),
    ("eu", "bai", "Baia, baiak.", 0), ("eu", "oto", "Otoi eta otoa.", 1), ("gl", "o", "O gato e os cans.", 1), ("gl", "a", "A casa e as leiras.", 1), ("gl", "do", "O can do rei e os dos condes.", 1),
    ("es", "la", "La luna y las olas.", 1), ("es", "un", "Un perro y unos gatos.", 1), ("es", "te", "Te digo que bebas tés.", 1),
    ("ca", "al", "Va al port i als camps.", 1), ("ca", "la", "La mar, les ones i el lagot.", 1), ("en", "a", "As a cat.", 1),
    ("en", "it", "Its tail, it wags.", 1), ("en", "he", "He is hes.", 1), ("en", "I", "I is in.", 1), ("pt", "o", "O gato e os cães.", 1),
    ("fr", "la", "La mer et las.", 1), ("ast", "la", "La casa y les cases.", 1),
    ("es", "luz", "Luz y luces.", 2), ("es", "papel", "Papel y papeles.", 2), ("es", "canción", "Una canción, dos canciones.", 2),
    ("es", "lápiz", "Lápices.", 1), ("es", "rey", "Los reyes.", 1), ("es", "jardín", "Jardines.", 1), ("es", "imagen", "Imágenes.", 1),
    ("es", "mes", "Dos meses.", 1), ("es", "casa", "Casado y casero.", 0), ("es", "autobús", "Autobuses.", 1), ("es", "país", "Países.", 1),
    ("gl", "animal", "Animais.", 1), ("gl", "papel", "Papeis.", 1), ("gl", "can", "Cans.", 1), ("gl", "muller", "Mulleres.", 1),
    ("gl", "rapaz", "Rapaces.", 1), ("gl", "fácil", "Fáciles.", 1), ("gl", "barril", "Barrís.", 1), ("gl", "sol", "Soles.", 1),
    ("gl", "país", "Países.", 1), ("gl", "inglés", "Ingleses.", 1), ("gl", "español", "Españois.", 1), ("gl", "camión", "Camións.", 1),
    ("ca", "casa", "Cases.", 1), ("ca", "vaca", "Vaques.", 1), ("ca", "amiga", "Amigues.", 1), ("ca", "pluja", "Pluges.", 1),
    ("ca", "plaça", "Places.", 1), ("ca", "llengua", "Llengües.", 1), ("ca", "germà", "Germans.", 1), ("ca", "camió", "Camions.", 1),
    ("ca", "gos", "Gossos.", 1), ("ca", "peix", "Peixos.", 1), ("ca", "text", "Textos.", 1), ("ca", "bosc", "Boscos.", 1),
    ("ca", "país", "Països.", 1), ("ca", "francès", "Francesos.", 1), ("ca", "desig", "Desitjos.", 1), ("ca", "cafè", "Cafès.", 1),
    ("en", "story", "Story, stories.", 2), ("en", "day", "Days.", 1), ("en", "box", "Boxes.", 1), ("en", "church", "Churches.", 1),
    ("en", "knife", "Knives.", 1), ("en", "leaf", "Leaves.", 1), ("en", "child", "Children.", 1), ("en", "woman", "Women.", 1),
    ("en", "foot", "Feet.", 1), ("en", "hero", "Heroes.", 1), ("en", "analysis", "Analyses.", 1), ("en", "cat", "Category.", 0),
    ("en", "people", "Person.", 0), ("en", "dog", "The dog's bone.", 1), ("en", "stories", "A story.", 0),
    ("pt", "animal", "Animais.", 1), ("pt", "coração", "Corações.", 1), ("pt", "homem", "Homens.", 1),
    ("es", "casa blanca", "Casas blancas y casa blanca.", 2),
    ("eu", "ur", "Urra, urrea, urtea.", 0), ("eu", "ur", "Ura, uretan, urik, urez, urek.", 5), ("eu", "egun", "Egunon, egunkaria, eguneroko.", 0),
    ("eu", "egun", "Egunean, egunak, egunetik, egunerako.", 4), ("eu", "gau", "Gabon, gauza.", 0), ("eu", "gau", "Gauean, gauetan, gauko.", 3),
    ("eu", "lan", "Langilea, landa.", 0), ("eu", "lan", "Lana, lanean, lanerako, lanik.", 4), ("eu", "etxe", "Etxera, etxetik, etxeko, etxerako.", 4),
    ("eu", "etxe", "Etxekoandrea.", 0), ("eu", "lur", "Lurra, lurrean, lurrari, lurreko.", 4), ("eu", "lur", "Lura.", 0),
    ("eu", "neska", "Neskak, neskek, neskaren, nesken, neskei.", 5), ("eu", "mendi", "Mendira, mendian, mendietan, mendirik.", 4),
    ("eu", "su", "Suak, suaren, sutan.", 3), ("eu", "su", "Suge, surra.", 0), ("eu", "lo", "Lotan, lorik.", 2), ("eu", "lo", "Lorea, lortu.", 0),
    ("eu", "haur", "Haurrak, haurrekin, haurrentzat.", 3), ("eu", "paper", "Papera, paperean.", 2), ("eu", "eta", "Etaren, betazal.", 0),
    ("eu", "Bilbo", "Bilbon, Bilbora, Bilbotik, Bilboko.", 4), ("eu", "Irun", "Irunen, Irungo, Irundik, Irunera.", 4),
    ("eu", "arratsalde", "Arratsaldeon!", 0), ("eu", "zakur", "Zakurrak.", 1), ("eu", "jai", "Jaiak, jaietan.", 2),
    ("eu", "etxe", "Etxeez ari gara.", 1), ("eu", "ama", "Amek, amei, amentzat, amagana.", 4), ("eu", "ama", "Amets, amaitu.", 0), ("eu", "Miren", "Mirengana, Mirenengana.", 2),
    ("gl", "fin de semana", "Fin de semana, fins de semana.", 2), ("ca", "cap de setmana", "Caps de setmana.", 1), ("es", "punto de vista", "Puntos de vista.", 1), ("es", "de la casa", "Des la casa.", 0),
    ("ca", "pa", "Pans i pa.", 2), ("ca", "mà", "Mans.", 1), ("gl", "bo", "Bos.", 1), ("pt", "pé", "Pés.", 1), ("fr", "œil", "Les yeux.", 1),
    ("ca", "col·legi", "El coŀlegi.", 1), ("ca", "lleig", "Lletjos.", 1), ("es", "jersey", "Jerséis.", 1), ("fr", "madame", "Mesdames.", 1),
    ("eu", "EITB", "EITBn, EITBko, EITBra, EITBren.", 4), ("eu", "lan", "Lanra, lanren.", 0), ("eu", "Bizkaia", "Bizkaiko, Bizkaira, Bizkaian.", 3),
]  # fmt: skip


@pytest.mark.parametrize(("language", "keyword", "text", "times"), WORDS)
def test_words_and_their_forms(language: str, keyword: str, text: str, times: int) -> None:
    asked = {"keyword": keyword, "frequency": times, "relation": "exactly"}
    verdict = check("keywords:frequency", text, asked, load_pack(language))
    assert verdict.followed, verdict.reason
    assert check("keywords:existence", text, {"keywords": [keyword]}, load_pack(language)).followed is bool(times)


@pytest.mark.parametrize(
    ("language", "word", "text", "followed"),
    [
        ("es", "casa", "Las casas.", True), ("en", "story", "Stories.", True), ("gl", "animal", "Animais.", True), ("ca", "casa", "Les cases.", True),
        ("eu", "arazo", "Arazoak.", False), ("eu", "ur", "Urra.", True), ("eu", "lur", "Lurrean.", False), ("eu", "neska", "Neskek.", False), ("eu", "Bizkaia", "Bizkaiko.", False), ("en", "child", "Children.", True),
        ("es", "casa", "La CASA.", False),
    ],
)  # fmt: skip
def test_a_ban_is_on_the_word_in_its_cases_not_on_its_plural(
    language: str, word: str, text: str, followed: bool
) -> None:
    asked = {"forbidden_words": [word]}
    assert check("keywords:forbidden_words", text, asked, load_pack(language)).followed is followed


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ("Quoi d'autre ?", "Oui. Quoi d’autre?"),
        ("Et après?", "Et après\u00a0?"),
        ("Voilà... — dit-il.", "Voilà… – dit-il."),
    ],
)
def test_the_space_before_a_mark_is_free(asked: str, answer: str) -> None:
    pack = load_pack("fr")
    assert check("startend:end_checker", answer, {"end_phrase": asked}, pack)
    repeated = f"{answer.removeprefix('Oui. ')}\n\nBien."
    assert check("combination:repeat_prompt", repeated, {"prompt_to_repeat": asked}, pack)
    assert not check("startend:end_checker", f"{answer}!", {"end_phrase": asked}, pack)


def test_json_may_hold_a_number_of_any_length() -> None:
    assert check("detectable_format:json_format", f'{{"a": {"9" * 5000}}}', {}, load_pack("en"))


# (answer, how many)
HIGHLIGHTS = [
    ("*1. **Sea***", 1), ("*_x_*", 1), ("_*x*_", 1), ("**_x_**", 1), ("__*x*__", 1), ("***x***", 1), ("**a *b* c**", 1), ("*a **b** c*", 1),
    ("*a* **b** _c_ __d__", 4), ("*a*b*c*", 2), ("**Note:**text", 1), ("**Note: *x*", 1), ("\\*no\\*", 0), ("`*code*` *x*", 1), ("2*3*4", 0),
    ("snake_case_name", 0), ("* bullet *x*", 1), ("*", 0), ("** **", 0), ("****", 0), ("*a", 0), ("a*", 0), ("*one* and *two*.", 2),
    ("**«Kaixo»**, *“hola”*", 2), ("**a** **b**\n*c*", 3), ("*a\nb*", 0), ("***a** b*", 1), ("**1. _A_** and **2. _B_**", 2),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "count"), HIGHLIGHTS)
def test_emphasis_within_emphasis_is_one(answer: str, count: int) -> None:
    for language in ("en", "eu"):
        for number, followed in ((count, True), (count + 1, False)):
            verdict = check(
                "detectable_format:number_highlighted_sections", answer, {"num_highlights": number}, load_pack(language)
            )
            assert verdict.followed is followed, verdict.reason


def test_an_answer_all_in_italics_highlights_what_stands_out_in_it() -> None:
    text = "*Come and see *the sea* and *the hill* and *the wood* with us on a long and quiet walk through the whole of the valley.*"
    for number, followed in ((3, True), (4, False)):
        found = check(
            "detectable_format:number_highlighted_sections", text, {"num_highlights": number}, load_pack("en")
        )
        assert found.followed is followed, found.reason


# (answer, paragraphs)
DIVIDED = [
    ("First. ***Second.", 2), ("First.*** Second.", 2), ("First.***Second.", 2), ("First.***Second.***Third.", 3), ("a *** b *** c", 3),
    ("***bold italic*** text", 1), ("Text with ***bold italic*** in it. ***Next.", 2), ("a\n***\nb", 2), ("a\n\n* * *\n\nb", 2), ("a\n*****\nb", 2),
    ("***[part 1]\n***[part 2]", 2), ("*1. **X*** and more", 1), ("a\n---\nb", 1), ("**a** *** **b**", 2), ("«A.» ***«B.»", 2), ("***", 0),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "count"), DIVIDED)
def test_dividers_that_touch_one_side_divide(answer: str, count: int) -> None:
    asked = {"num_paragraphs": count}
    verdict = check("length_constraints:number_paragraphs", answer, asked, load_pack("gl"))
    assert verdict.followed, verdict.reason


# (language, word, answer, sections)
SECTIONS = [
    ("gl", "Parte", "Parte 1ª\na\nParte 2.ª\nb", 2), ("es", "Día", "Día 1º: a\nDía 2º: b", 2), ("gl", "Sección", "Sección 1an", 0),
    ("gl", "Sección", "Sección X: Ola", 0), ("en", "Section", "Section X\na\nSection X\nb", 0), ("ca", "Secció", "Secció N", 0), ("es", "Parte", "Parte Y: a", 0),
    ("eu", "ATALA", "X. ATALA\na", 0), ("en", "Section", "Section V", 0), ("en", "Section", "Section #\na", 0), ("en", "Section", "Section [X]", 0),
    ("en", "Section", "Section I\na\nSection II\nb\nSection X\nc", 3), ("en", "Section", "Section A\na\nSection B\nb", 2), ("en", "Section", "Section 10", 1),
    ("en", "SECTION", "(Spring, SECTION 1)\na\n(Summer, SECTION 2)\nb", 2), ("en", "SECTION", "The start (SECTION 1)", 1), ("en", "SECTION", "Introduction – SECTION 1:\na", 1),
    ("gl", "SECCIÓN", "(Primavera, SECCIÓN 1) chove.", 1), ("ca", "Secció", "Primavera, Secció 1\na", 1), ("en", "section", "See section 2 of the report (and section 3).", 0),
    ("en", "Section", "See Section 2 of the report.", 0), ("eu", "Atala", "(Udaberria, 1. Atala)\na", 1), ("eu", "ATALA", "1. ATALA\na\n2. ATALA\nb", 2),
]  # fmt: skip


@pytest.mark.parametrize(("language", "word", "answer", "count"), SECTIONS)
def test_what_is_a_section(language: str, word: str, answer: str, count: int) -> None:
    for number, followed in ((count, True), (count + 1, False)):
        asked = {"section_spliter": word, "num_sections": number}
        verdict = check("detectable_format:multiple_sections", answer, asked, load_pack(language))
        assert verdict.followed is followed, verdict.reason


# (language, marker, answer, followed)
POSTSCRIPTS = [
    ("gl", "PD", "PD", False), ("gl", "PD", "A PD vai abaixo.\n\nPD", False), ("gl", "PD", "PD: saúdos.\n\nPD:", False), ("eu", "PD", "Kaixo.\n\nPD: Agur.", True),
    ("en", "P.S.", "See P.S. for more.\n\nP.S. ...", False), ("en", "P.S.", "Bye. P.S. I miss you.", True), ("en", "P.S.", "P.S.\n\nI miss you.", True),
    ("en", "P.P.S", "P.S. a\n\nP.P.S. b", True), ("en", "P.P.S", "P.S. a\n\nP.P.S.", False), ("es", "Nota", "Nota: llueve.", True), ("es", "Nota", "Nota:", False),
    ("ca", "PD", "**PD:** 😊", False), ("ca", "PD", "P. D.: Fins aviat", True),
]  # fmt: skip


@pytest.mark.parametrize(("language", "marker", "answer", "followed"), POSTSCRIPTS)
def test_a_postscript_has_text_behind_it(language: str, marker: str, answer: str, followed: bool) -> None:
    verdict = check("detectable_content:postscript", answer, {"postscript_marker": marker}, load_pack(language))
    assert verdict.followed is followed, verdict.reason


# (language, answer, words)
COUNTED = [
    ("es", "1. Abre.\n2. Entra.", 2), ("es", "1.- Abre.\n2.- Entra.", 2), ("es", "1) Abre.\n2) Entra.", 2), ("es", "(1) Abre.\n(2) Entra.", 2), ("es", "a) Abre.\nb) Entra.", 2),
    ("en", "a. Open it.\nb. Go in.", 4), ("en", "**1.** Open.\n**2.** Go.", 2), ("en", "**1. Open** it.\n**2. Go** in.", 4), ("en", "### 1. Open\n### 2. Go", 2),
    ("en", "- 1. Open.\n- 2. Go.", 2), ("en", "1️⃣ Open.\n2️⃣ Go.", 2), ("en", "① Open.\n② Go.", 2), ("en", "  1. Open.\n     1.1. Go.", 2), ("en", "> 1. Open.", 1),
    ("en", "1.Open.\n2.Go.", 2), ("en", "ii) Open.\niv) Go.", 2), ("en", "12 apples", 2), ("en", "3.5 litres", 2), ("en", "1984 was a year.\n2001 was too.", 7), ("en", "10. Ten", 1),
    ("gl", "1. Pan\n2. Viño", 2), ("ca", "1. Pa\n2. Vi", 2), ("eu", "1. Ogia\n2. Ardoa\n3. Gazta", 3), ("eu", "72. Zinemaldia hasi da", 4), ("eu", "2. mendean jaio zen", 4),
    ("eu", "1. atala erraza da", 4), ("en", "E. coli is small.", 4), ("es", "Hay 2 casas.", 3), ("en", "I. II.", 2), ("en", "Mail me@example.org or jo.b-c@a.example.org", 4),
    ("en", "The U.S.A. won at 5 p.m.", 6), ("gl", "p.ex. o n.º dous", 4), ("es", "EE.UU. ganó", 2), ("en", "I saw a. B. saw it.", 6), ("eu", "K.a. 300. urtean", 3),
]  # fmt: skip


@pytest.mark.parametrize(("language", "answer", "count"), COUNTED)
def test_the_numbers_of_a_list_are_no_words(language: str, answer: str, count: int) -> None:
    assert_counts("words", language, answer, count)


def assert_counts(what: str, language: str, answer: str, count: int) -> None:
    """So many words or sentences, and no other number."""
    asked = {f"num_{what}": count, "relation": "exactly"}
    verdict = check(f"length_constraints:number_{what}", answer, asked, load_pack(language))
    assert verdict.followed, verdict.reason


# (language, sentences, answer)
SENTENCES = [
    ("en", 1, "**1. Why this matters:**\n\nBees pollinate crops."), ("en", 1, "***My Plan***\n\nWe go."), ("en", 1, "**Title**\nSubtitle here\n\nOne sentence."),
    ("en", 2, "Roses are red,\nviolets are blue,\nsugar is sweet.\n\nAnd so are you."), ("en", 1, "It happened in 300 B. C. near Athens."),
    ("en", 1, "He works for the U. S. government."), ("en", 1, "“Who is there?” the old man asked."), ("en", 2, "\"Help!\" she cried. He ran."),
    ("en", 1, "Dear Mr. Smith:\n\nI resign.\n\nSincerely,\n\n[Your Name]\n[Your Title]\n[Company]"), ("en", 1, "To whom it may concern,\n\nI resign.\n\nRespectfully yours,\nJ. Smith"),
    ("en", 3, "Ingredients:\n- 2 eggs\n- 1 cup of milk\n\nMethod:\n1. Mix.\n2. Bake."), ("en", 2, "What?! No way!!"), ("en", 1, "Wait... what?"),
    ("en", 2, "> To be or not to be.\n\nHamlet said it."), ("en", 3, "```xml\n<note>\n  The sea is calm today. The boats are out.\n</note>\n```\n\nThat is the note."),
    ("es", 1, "Reinó en el s. XVI a. de C. en Tebas."), ("es", 1, "Nació en el 300 a. de J. C. en Tebas."), ("es", 1, "SS. AA. RR. asistieron."),
    ("es", 1, "La empresa, p. ej., S. A. de C. V., es mexicana."), ("es", 1, "El Excmo. Sr. D. Juan Pérez vive en c. Mayor."), ("es", 2, "—Sí —dijo—. Ya voy."),
    ("es", 1, "—¿Y tú quién eres? —quiso saber el guardia, y añadió—: no te conozco."), ("es", 2, "Estudió en la Univ. de Salamanca. Fue feliz."),
    ("es", 1, "Estimado Sr. López:\n\nLe escribo para pedir trabajo.\n\nReciba un cordial saludo,\n\nAna Ruiz"), ("es", 2, "Nació en el siglo I d. C. Murió joven."),
    ("gl", 1, "A batalla foi no 137 a.C. preto do Miño."), ("gl", 1, "Vive na r. do Vilar, n.º 5, 2.º B, en Santiago."), ("gl", 2, "Naceu no séc. XX. Morreu en Vigo."),
    ("gl", 1, "— Boas! — saudou Brais."), ("gl", 2, "P.D.: Chámame. Bicos."), ("ca", 1, "Va néixer al s. XV a València."), ("ca", 1, "El Molt Hble. Sr. Jordi Pujol va venir."),
    ("ca", 1, "Viu al c. de Balmes, núm. 5, 2n 1a, de Barcelona."), ("ca", 2, "Va néixer el 27 a. C. Després va morir."), ("ca", 1, "—Qui hi ha? —va fer ella."),
    ("eu", 1, "XXI. Mendeko 5. Biltzarra egin zuten."), ("eu", 1, "Gipuzkoako 12. Bertsolari Txapelketa Nagusia izan zen."), ("eu", 1, "1.000. Bisitaria iritsi da."),
    ("eu", 1, "K.a. III. mendean."), ("eu", 1, "Lorategia, baratzea eta abar. eder daude."), ("eu", 2, "Gaur 25 urte bete ditu. Pozik dago."), ("eu", 1, "—Nor da? —galdetu zuen."),
    ("en", 2, "It rained.Then it stopped."), ("en", 1, "Read example.org/About.Then or a.b.C."), ("en", 2, "It is old.[1] Nobody knows how old.[2][3]"),
    ("en", 1, "Subject: a complaint about the noise from your bakery\n\nIt is too loud."), ("en", 1, "We won!\n\n#cup #final #team #victory #song #night"),
    ("gl", 1, "Vigo, 3 de maio de 2024\n\nAsunto: queixa polo ruído da súa panadaría\n\nEstimada señora:\n\nNon durmo."),
    ("eu", 1, "Donostia, 2024ko maiatzaren 3a\n\nGaia: zure okindegiko zarata dela eta\n\nAgirre andrea:\n\nEzin dut lorik egin."),
    ("ca", 2, "1. Introducció\n\nLes abelles són petites.\n\n2. Conclusió\n\nLes necessitem."), ("es", 2, "Dijo: «Ven. Come.»"),
    ("es", 2, "Llegaron 25. Carmen ganó."), ("en", 2, "It was 1945. Paris was free."), ("gl", 2, "Sobreviviron 7. Ninguén o cría."),
    ("en", 2, "To do:\n- buy apples, pears etc.\n- sleep more."), ("en", 1, "We need the following\n\n* Eggs\n\n* Milk\n\n* Bread"),
    ("fr", 1, "—Viens ! —cria Anne."), ("pt", 1, "—Vem cá! —gritou a Ana."), ("pt", 1, "**O plano:**\n\nVamos à serra."),
    ("gl", 3, "Chove. Fai frío.\n---\nImos á casa."), ("es", 2, "- Come.\n- Bebe.\n---"), ("ca", 2, "Plou molt i avui no sortirem de casa ni jo ni la mare ni el pare ni ningú\n---\nFa fred."),
    ("en", 1, "My plan\n---\nWe go."), ("en", 1, "Why?\n===\nBees matter."), ("en", 3, "Yes!\nWe go.\n---\nBye."),
    ("en", 1, "J.K. Rowling wrote it."), ("en", 1, "We read J.R.R. Tolkien."), ("es", 2, "Vive en EE.UU. Luego vuelve."), ("en", 2, "It is in the U.S. It is big."),
    ("en", 3, "1. Wash it. 2. Dry it. 3. Fold it."), ("es", 3, "Hay 1. Lávalo. 2. Sécalo."), ("en", 3, "How old is he? 25. Good."), ("es", 3, "Los pasos para lavar la ropa en casa son estos: 1. Lava. 2. Seca. 3. Dobla."), ("en", 2, "My score: 1. Not bad."), ("fr", 2, "Il mesure 1,80 m. Il pèse 80 kg."),
    ("en", 4, "How many moons has Mars? 2. How many has Earth? One."), ("es", 4, "¿Cuántos hijos tienes? 2. Son mayores. Vivo bien."), ("en", 2, "1. Is it wet? 2. Dry it."), ("en", 4, "Are you ready? 1. Is it wet? 2. Dry it. 3. Fold it."),
    ("es", 2, "Duró 10 s. Luego paró."), ("gl", 3, "Será na sala 2.º B. Trae a acta. Ola, D.ª M. Pérez."), ("eu", 1, "Kale Nagusia, 3. ezk. aldean."),
    ("gl", 1, "A temp. máx. foi de 25 °C o 5 de xan. de 2020."), ("ca", 1, "La temp. màx. va ser el 5 de gen. de 2020."), ("es", 1, "La temp. máx. fue el 5 de ene. de 2020."),
    ("eu", 1, "Gehienezko tenp. 25 °C izan zen."), ("es", 2, "Vino en nov. Luego se fue."), ("pt", 1, "Nasceu no séc. XX, ver pp. 3-5 e fig. 2."), ("pt", 1, "V. Exa. decide."), ("fr", 1, "Voir fig. 2, max. 10 kg, et J.-P. Sartre."), ("fr", 2, "En 300 av. J.-C. Le roi meurt."),
    ("pt", 1, "Vou amanhã.\n\nUm abraço\nRui"), ("fr", 1, "Je viens demain.\n\nBien cordialement\nAnne"), ("ast", 1, "Voi mañana.\n\nUn abrazu\nXuan"),
    ("eu", 2, "gaur herriko 3. tabernara joan gara. ondo jan dugu."), ("eu", 2, "HERRIKO 3. TABERNARA JOAN GARA. ONDO."), ("eu", 2, "guztira 25. gero etxera joan gara."),
    ("gl", 2, "É bo.😀 É mao.👍"), ("en", 2, "Great!🎉 Let us go."), ("en", 1, "Great!🎉 said Ana."),
]  # fmt: skip


@pytest.mark.parametrize(("language", "count", "answer"), SENTENCES)
def test_sentences(language: str, count: int, answer: str) -> None:
    assert_counts("sentences", language, answer, count)
