"""How sure must the identifier be before an answer counts as one in another language?

Run:  python tests/benchmarks/language_thresholds.py [samples]      (about four minutes with 1,000)
Right answers are cut from this project's own prompts, which are in the right language by hand: running text, the same
without function words (as titles and slogans are), and lists of names and places. Printed by language, length and
case: how many of 1,000 right ones are refused, how many of 1,000 in the four other languages, and how many right ones
the identifier alone would refuse. RESULTS.md has the table; the thresholds are in ifeval_multi/language_id.py.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import regex

import ifeval_multi
from ifeval_multi import load_pack
from ifeval_multi.language_id import has_words_of, identify, is_language, ranking

LANGUAGES = ("eu", "gl", "ca", "es", "en")
LENGTHS = (20, 30, 40, 60, 90, 150)
NAMES = {
    "eu": "Miren Jon Aitor Garazi Unai Leire Amaia Mikel Ane Iker Nerea Gorka Itziar Xabier Maialen Ander Irati "
    "Eneko Uxue Julen Oihana Beñat Ainhoa Haritz Izaro Asier Lide Kepa Nahia Urko Maddi Peru Elene Markel "
    "Saioa Bilbo Donostia Gasteiz Iruñea Baiona Zarautz Hondarribia Oñati Tolosa Gernika Durango Azpeitia "
    "Elorrio Lekeitio Bergara Arrasate Eibar Agirre Etxeberria Goikoetxea Mendizabal Arrieta Zubizarreta "
    "Ibarra Lasa Olaizola Urrutia",
    "gl": "Uxía Brais Antía Xoán Sabela Iago Noa Breixo Icía Roi Lúa Anxo Xiana Martiño Aldara Nuno Carme Xosé "
    "Rosalía Manuel Iria Paulo Branca Telmo Sira Xurxo Catuxa Suso Ledicia Bieito Vigo Lugo Ourense "
    "Pontevedra Santiago Ferrol Betanzos Ribadeo Viveiro Cambados Muros Noia Allariz Monforte Sarria Lalín "
    "Padrón Tui Castro Pereira Rodríguez Otero Seoane Vilariño Lamas Piñeiro Souto Ferreiro",
    "ca": "Mireia Jordi Núria Pau Laia Oriol Montserrat Guillem Aina Arnau Queralt Biel Júlia Martí Neus Ferran "
    "Roser Marçal Gemma Bernat Carla Roc Meritxell Ot Clàudia Jaume Eulàlia Vicenç Anna Xavier Girona Lleida "
    "Tarragona Reus Manresa Vic Figueres Olot Sabadell Terrassa Mataró Igualada Palma Maó Alcoi Puigcerdà "
    "Puig Soler Ferrer Vidal Serra Roca Casals Pujol Torrent Camps",
    "es": "María Carlos Lucía Javier Carmen Pablo Elena Diego Sofía Álvaro Marta Sergio Paula Adrián Laura Hugo "
    "Irene Rubén Alba Mario Julia Óscar Andrea Iván Claudia Raúl Sara Víctor Nuria Gonzalo Madrid Sevilla "
    "Toledo Cáceres Burgos Soria Zaragoza Salamanca Granada Cádiz Murcia Albacete Segovia León Huelva Jaén "
    "García Fernández Martínez Sánchez Romero Navarro Ramírez Molina Ortega Delgado",
    "en": "Emily Jack Olivia Harry Amelia George Isla Noah Ava Oliver Grace Leo Sophie Arthur Lily Oscar Chloe "
    "Charlie Ruby Thomas Ella Henry Alice Samuel Daisy Daniel Hannah Joseph Megan Edward London Bristol Leeds "
    "York Oxford Dover Boston Dallas Denver Portland Seattle Austin Chicago Memphis Smith Johnson Brown "
    "Taylor Walker Wright Thompson Harris Clarke Robinson Baker Mitchell Foster Bennett",
}
_WORD = regex.compile(r"[\p{L}\p{M}'’·-]+")


@lru_cache
def prompts(code: str) -> list[list[str]]:
    """The words of each prompt."""
    file = Path(ifeval_multi.__file__).parent / "prompts" / f"{code}.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [_WORD.findall(row["prompt"]) for row in rows]


def running(code: str, draw: random.Random) -> Iterator[str]:
    found = prompts(code)
    while True:
        words = draw.choice(found)
        yield from words[draw.randrange(len(words)) :]


def content(code: str, draw: random.Random) -> Iterator[str]:
    functions = load_pack(code).function_words
    return (word for word in running(code, draw) if word.lower() not in functions)


def names(code: str, draw: random.Random) -> Iterator[str]:
    listed = NAMES[code].split()
    while True:
        yield draw.choice(listed)


GENRES: dict[str, Callable[[str, random.Random], Iterator[str]]] = {
    "text": running,
    "content words": content,
    "names": names,
}


def sample(genre: str, code: str, letters: int, draw: random.Random) -> str:
    """Words of a genre until there are as many letters as asked."""
    taken, count = [], 0
    for word in GENRES[genre](code, draw):
        taken.append(word)
        count += sum(map(str.isalpha, word))
        if count >= letters:
            return " ".join(taken)
    raise AssertionError("the genres never end")


def leads(code: str, letters: int, samples: int) -> None:
    """The lead of another language over the right one, with and without its function words: quantiles."""
    draw = random.Random(letters)
    found: dict[bool, list[float]] = {True: [], False: []}
    for genre in GENRES:
        for _ in range(samples):
            text = sample(genre, code, letters, draw)
            values = ranking(text)
            best = identify(text)
            found[has_words_of(text, best, code, letters)].append(values[best] - values[code])
    for foreign, listed in found.items():
        top = sorted(listed)[-max(1, len(listed) // 500) :] if listed else [0.0]
        print(
            f"  {code} {letters:>3} letters, {'with' if foreign else 'without'} words of the other: {len(listed)} texts, 99.8 % lead under {top[0]:.1f}, all under {top[-1]:.1f}"
        )


def refused(code: str, letters: int, samples: int, change: Callable[[str], str]) -> str:
    draw = random.Random(f"{code} {letters}")
    right = [change(sample(genre, code, letters, draw)) for genre in GENRES for _ in range(samples // 3)]
    others = [other for other in LANGUAGES if other != code]
    wrong = [change(sample("text", draw.choice(others), letters, draw)) for _ in range(samples)]
    wrongly = sum(not is_language(text, code) for text in right) / len(right)
    rightly = sum(not is_language(text, code) for text in wrong) / len(wrong)
    alone = sum(identify(text) != code for text in right) / len(right)
    return f"{100 * wrongly:.1f} / {100 * rightly:.0f} ({100 * alone:.0f})"


def main(samples: int) -> None:
    """Per cent of right answers refused / of wrong ones refused (right ones that the label alone would refuse)."""
    print("| letters | case | " + " | ".join(LANGUAGES) + " |")
    print("|---" * (len(LANGUAGES) + 2) + "|")
    for letters in LENGTHS:
        for name, change in (("lower", str.lower), ("CAPITALS", str.upper)):
            row = [refused(code, letters, samples, change) for code in LANGUAGES]
            print(f"| {letters} | {name} | " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    number = int(sys.argv[1]) if len(sys.argv) > 1 and sys.argv[1].isdigit() else 1000
    if "--leads" in sys.argv:
        for language in LANGUAGES:
            for length in LENGTHS:
                leads(language, length, number)
    else:
        main(number)
