"""The one table of what the suite measures: benchmark -> language, metric, chance level, leaf tasks.

Averages (`suite`), the groups of tasks/_groups (tested against this), `prefetch` and `doctor` all read it.
Source: "Merge and Conquer" (LREC 2026), section 4, and its authors' evaluation scripts; chance levels of the
Basque sets from the Latxa paper (arXiv 2403.20266, table 3).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

LANGUAGES = ("eu", "gl", "ca", "es", "en")
LANGUAGE_NAMES = {
    "eu": "Basque", "gl": "Galician", "ca": "Catalan", "es": "Spanish", "en": "English", "pt": "Portuguese",
}  # fmt: skip

CHOICE, TRANSLATION, INSTRUCTIONS, PAIRS = "bench", "mt", "ifeval", "blimp"
# The toy tasks (tasks/toy) have kinds of their own, so that no average of a benchmark can hold one.
TOY_CHOICE, TOY_TRANSLATION, TOY_INSTRUCTIONS = "toybench", "toymt", "toyifeval"
KINDS = {
    CHOICE: "Benchmark average (accuracy)",
    TRANSLATION: "Machine translation (FLORES devtest, BLEU)",
    INSTRUCTIONS: "Instruction following (IFEval, strict, instruction level)",
    PAIRS: "Minimal pairs (MultiBLiMP, accuracy)",
    TOY_CHOICE: "TOYS, not the benchmarks: pairs, stories and questions of the toy world (accuracy)",
    TOY_TRANSLATION: "TOYS, not FLORES: translation in the toy world (BLEU)",
    TOY_INSTRUCTIONS: "TOYS, not IFEval's prompts: instruction following in the toy world (strict, instruction level)",
}


@dataclass(frozen=True)
class Benchmark:
    """One benchmark in one language: one number, whatever the number of its tasks.

    Args:
        name: as the paper prints it; a direction ("es-eu") for translation.
        language: of the average it belongs to; the target language for translation.
        kind: CHOICE, TRANSLATION, INSTRUCTIONS or PAIRS; those of the toys.
        tasks: our leaf tasks; the benchmark's score is the plain mean over them.
        upstream: lm_eval's own leaf tasks of the same benchmark, read where ours are not in a results file.
        metric: its key in lm_eval's results.
        chance: what guessing scores, in percent.
        shots: as the authors ran it; None where shots make no sense.
        percent: what a full score of lm_eval's metric is: 1 for accuracies, 100 for BLEU.
        averaged: whether the paper's average of its language counts it.
    """

    name: str
    language: str
    kind: str
    tasks: tuple[str, ...]
    upstream: tuple[str, ...] = ()
    metric: str = "acc"
    chance: float = 25.0
    shots: int | None = 5
    percent: float = 1.0
    averaged: bool = True

    @property
    def column(self) -> str:
        """The average it counts in, as a column of the paper's tables: "bench_eu", "mt_es"."""
        return f"{self.kind}_{self.language}"

    @property
    def title(self) -> str:
        """The benchmark with its language, for messages: "Belebele (eu)"; a direction speaks for itself."""
        return f"FLORES {self.name}" if self.kind == TRANSLATION else f"{self.name} ({self.language})"


EXAMS_EU = (
    "ejadministrari", "ejlaguntza", "ejlaguntzaile", "ejteknikari", "opebilbaoeu", "opeehuadmineu", "opeehuauxeu",
    "opeehubiblioeu", "opeehuderechoeu", "opeehueconomicaseu", "opeehuempresarialeseu", "opeehusubalternoeu",
    "opeehutecnicoeu", "opeehuteknikarib", "opegasteizkoudala", "opeosakiadmineu", "opeosakiauxenfeu",
    "opeosakiauxeu", "opeosakiceladoreu", "opeosakienfeu", "opeosakioperarioeu", "opeosakitecnicoeu",
    "opeosakivarioseu", "osakidetza1e", "osakidetza2e", "osakidetza3e", "osakidetza5e", "osakidetza6e",
    "osakidetza7e",
)  # fmt: skip
EXAMS_ES = (
    "ejadministrativo", "ejauxiliar", "ejsubalterno", "ejtecnico", "opeayuntamientovitoria", "opebilbao",
    "opeehuadmin", "opeehuaux", "opeehubiblio", "opeehuderecho", "opeehueconomicas", "opeehuempresariales",
    "opeehusubalterno", "opeehutecnico", "opeehutecnicob", "opeosakiadmin", "opeosakiaux", "opeosakiauxenf",
    "opeosakicelador", "opeosakienf", "opeosakijuridico", "opeosakioperario", "opeosakitecnico",
    "opeosakivarios", "osakidetza1c", "osakidetza2c", "osakidetza3c", "osakidetza4c", "osakidetza5c",
    "osakidetza6c", "osakidetza7c", "osakidetza8c", "osakidetza9c",
)  # fmt: skip

PAPER_DIRECTIONS = (
    "es-eu", "en-eu", "es-gl", "en-gl", "es-ca", "en-ca",
    "eu-es", "gl-es", "ca-es", "en-es", "eu-en", "gl-en", "ca-en", "es-en",
)  # fmt: skip

_ISO3 = {"eu": "eus", "gl": "glg", "ca": "cat", "es": "spa", "en": "eng"}


def _everywhere() -> Iterable[Benchmark]:
    """Belebele and XStoryCloze, which every language has."""
    for language in LANGUAGES:
        yield Benchmark(
            "Belebele",
            language,
            CHOICE,
            (f"iberian_belebele_{language}",),
            (f"belebele_{_ISO3[language]}_Latn",),
        )
        yield Benchmark(
            "XStoryCloze", language, CHOICE, (f"iberian_xstorycloze_{language}",), (f"xstorycloze_{language}",),
            chance=50.0, shots=0,
        )  # fmt: skip


def _exams(language: str, subjects: tuple[str, ...], averaged: bool) -> Benchmark:
    tasks = tuple(f"eus_exams_{language}_{subject}" for subject in subjects)
    ours = tuple(f"iberian_{task}" for task in tasks)
    return Benchmark("EusExams", language, CHOICE, ours, tasks, averaged=averaged)


def _bertaqa(language: str, averaged: bool) -> Benchmark:
    tasks = tuple(f"iberian_bertaqa_{language}_{part}" for part in ("global", "local"))
    return Benchmark("BertaQA", language, CHOICE, tasks, (f"bertaqa_{language}",), chance=100 / 3, averaged=averaged)


def _acceptability(name: str, language: str, upstream: str, averaged: bool = True) -> Benchmark:
    return Benchmark(name, language, CHOICE, (f"iberian_cola_{language}",), (upstream,), chance=50.0, averaged=averaged)


def _openbookqa(language: str, averaged: bool = True) -> Benchmark:
    upstream = "openbookqa" if language == "en" else f"openbookqa_{language}"
    return Benchmark(
        "OpenBookQA", language, CHOICE, (f"iberian_openbookqa_{language}",), (upstream,), averaged=averaged
    )


def _basque() -> Iterable[Benchmark]:
    yield Benchmark("EusReading", "eu", CHOICE, ("iberian_eus_reading",), ("eus_reading",), chance=25.83)
    yield Benchmark("EusProficiency", "eu", CHOICE, ("iberian_eus_proficiency",), ("eus_proficiency",))
    yield _bertaqa("eu", averaged=True)
    yield Benchmark("EusTrivia", "eu", CHOICE, ("iberian_eus_trivia",), ("eus_trivia",), chance=26.55)
    yield _exams("eu", EXAMS_EU, averaged=True)


def _others() -> Iterable[Benchmark]:
    yield _acceptability("GalCoLA", "gl", "galcola")
    yield _openbookqa("gl")
    yield Benchmark("Parafrases", "gl", CHOICE, ("iberian_parafrases_gl",), ("parafrases_gl",), chance=50.0)
    yield _acceptability("CatCoLA", "ca", "catcola")
    yield _openbookqa("ca")
    yield _acceptability("EsCoLA", "es", "escola")
    yield _openbookqa("es")
    # Beside the average: the paper's text counts two English benchmarks, and no Spanish exams.
    yield _exams("es", EXAMS_ES, averaged=False)
    yield _bertaqa("en", averaged=False)
    yield _openbookqa("en", averaged=False)
    yield _acceptability("CoLA", "en", "cola", averaged=False)


def _bench_of(direction: str) -> str:
    """The lm_eval bench whose FLORES folder has a direction of the paper."""
    for language, bench in (("eu", "basque"), ("gl", "galician"), ("ca", "catalan")):
        if language in direction.split("-"):
            return f"{bench}_bench_flores_{direction}"
    return f"spanish_bench_flores_{direction}"


def _translations() -> Iterable[Benchmark]:
    for direction in PAPER_DIRECTIONS:
        yield Benchmark(
            direction, direction[-2:], TRANSLATION, (f"iberian_flores_{direction}",), (_bench_of(direction),),
            metric="bleu", chance=0.0, percent=100.0,
        )  # fmt: skip


def _instructions() -> Iterable[Benchmark]:
    for language in ("eu", "gl", "ca", "es"):
        # lm_eval has names ifeval_es and ifeval_ca already, for checks of its own.
        upstream = (f"ifeval_{language}",) if language in ("ca", "es") else ()
        ours = f"ifeval_{language}_multi" if upstream else f"ifeval_{language}"
        yield Benchmark(
            "IFEval", language, INSTRUCTIONS, (ours,), upstream,
            metric="inst_level_strict_acc", chance=0.0, shots=None,
        )  # fmt: skip


def _pairs() -> Iterable[Benchmark]:
    for language in LANGUAGES:
        yield Benchmark(
            "MultiBLiMP", language, PAIRS, (f"iberian_blimp_{language}",), (f"multiblimp_{_ISO3[language]}",),
            chance=50.0, shots=None,
        )  # fmt: skip


def _toys() -> Iterable[Benchmark]:
    """The toy tasks: every name says TOY."""
    for language in LANGUAGES:
        for name, task, chance in (("pairs", "pairs", 50.0), ("stories", "story", 50.0), ("questions", "exam", 25.0)):
            yield Benchmark(
                f"TOY {name}", language, TOY_CHOICE, (f"toy_{task}_{language}",), chance=chance, shots=None,
            )  # fmt: skip
        yield Benchmark(
            "TOY instructions", language, TOY_INSTRUCTIONS, (f"toy_ifeval_{language}",),
            metric="inst_level_strict_acc", chance=0.0, shots=None,
        )  # fmt: skip
    for direction in PAPER_DIRECTIONS:
        yield Benchmark(
            f"TOY {direction}", direction[-2:], TOY_TRANSLATION, (f"toy_mt_{direction}",),
            metric="bleu", chance=0.0, shots=None, percent=100.0,
        )  # fmt: skip


BENCHMARKS: tuple[Benchmark, ...] = (
    *_everywhere(), *_basque(), *_others(), *_translations(), *_instructions(), *_pairs(), *_toys(),
)  # fmt: skip


def of_column(column: str) -> list[Benchmark]:
    """The benchmarks that count in an average, e.g. "bench_eu"."""
    return [benchmark for benchmark in BENCHMARKS if benchmark.column == column and benchmark.averaged]


def columns(kind: str) -> list[str]:
    """The averages of a kind, in the order of the paper's tables."""
    return [f"{kind}_{language}" for language in LANGUAGES if of_column(f"{kind}_{language}")]
