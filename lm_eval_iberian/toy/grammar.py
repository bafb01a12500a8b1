"""Says a sentence of the toy world in English, Spanish, Galician, Catalan or Basque; right, or with one mistake.

Forms are never made by rule. They are read from words/*.yaml, where each is written by hand. This file holds word order
and agreement. A mistake (for acceptability pairs) is one feature that does not agree, or one pronoun or contraction in
the wrong place; it is never only a matter of style.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import yaml

from lm_eval_iberian.toy.world import MOTIONS, Noun, Sentence

LANGUAGES = ("en", "es", "eu", "gl", "ca")
_WRONG_ARTICLES = {
    "es": {"el": "la", "la": "el", "los": "las", "las": "los"},
    "gl": {"o": "a", "a": "o", "os": "as", "as": "os"},
    "ca": {"el": "la", "la": "el", "els": "les", "les": "els"},
}
# With the other article these are words, too: "la médico", "la metge", "els mestres", "el clau" (a nail).
_TWO_GENDERS = {("es", "doctor"), ("gl", "doctor"), ("ca", "doctor"), ("ca", "teacher"), ("ca", "key")}


@functools.cache
def words(language: str) -> dict[str, Any]:
    """The word list of a language."""
    path = Path(__file__).parent / "words" / f"{language}.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def say(sentence: Sentence, language: str, mistake: str = "") -> str:
    """The sentence, with a capital and a full stop.

    Args:
        mistake: one of `mistakes(sentence, language)`, or "" for a right sentence.
    """
    lexicon = words(language)
    opener = lexicon["openers"]["past" if sentence.past else "present"] if sentence.opener else ""
    text = opener + _SPEAKERS[language](sentence, language, mistake) + "."
    return text[0].upper() + text[1:]


def mistakes(sentence: Sentence, language: str) -> list[str]:
    """The mistakes that can be made in this sentence, each of which changes it."""
    right = say(sentence, language)
    return [mistake for mistake in _MISTAKES[language] if say(sentence, language, mistake) != right]


# English ------------------------------------------------------------------------------------------------------------


def _english(sentence: Sentence, language: str, mistake: str) -> str:
    lexicon = words("en")
    subject = _english_noun(sentence.subject)
    many = sentence.subject.many != (mistake == "number of the verb")
    if sentence.kind == "copula":
        return f"{subject} {lexicon['be'][_tense(sentence)][many]} {lexicon['adjectives'][sentence.adjective]}"
    verb = _english_verb(sentence.verb, many, sentence.past)
    if sentence.kind == "motion":
        return f"{subject} {verb} {lexicon['places'][sentence.place][MOTIONS[sentence.verb]]}"
    assert sentence.object is not None
    thing = _english_noun(sentence.object)
    if sentence.kind in ("chain", "denial"):
        pronoun = "them" if sentence.object.many else "it"
        # "looked for it", but "bought it": the pronoun follows the whole verb either way.
        first = f"{subject} {_english_verb(sentence.before, many, True)} {thing}"
        if sentence.kind == "denial":
            return f"{first} but did not {_english_verb(sentence.verb, True, mistake == 'form of the verb')} {pronoun}"
        return f"{first} and {verb} {pronoun}"
    if sentence.kind == "gift":
        assert sentence.recipient is not None
        return f"{subject} {verb} {thing} to {_english_noun(sentence.recipient)}"
    return f"{subject} {verb} {thing}"


def _english_noun(noun: Noun) -> str:
    lexicon = words("en")
    forms = lexicon["people"].get(noun.concept) or lexicon["things"][noun.concept]
    adjective = f"{lexicon['adjectives'][noun.adjective]} " if noun.adjective else ""
    return f"the {adjective}{forms[noun.many]}"


def _english_verb(verb: str, many: bool, past: bool) -> str:
    return words("en")["verbs"][verb][2 if past else int(many)]


# Spanish, Galician, Catalan -----------------------------------------------------------------------------------------


def _romance(sentence: Sentence, language: str, mistake: str) -> str:
    lexicon = words(language)
    many = sentence.subject.many != (mistake == "number of the verb")
    subject = _romance_noun(sentence.subject, language, mistake)
    if sentence.kind == "copula":
        forms = lexicon["adjectives"][sentence.adjective]
        flip = mistake == "gender of the predicate", mistake == "number of the predicate"
        adjective = forms[
            2 * (_is_feminine(sentence.subject, language) != flip[0]) + (sentence.subject.many != flip[1])
        ]
        return f"{subject} {lexicon['be'][_tense(sentence)][many]} {adjective}"
    if sentence.kind == "motion":
        place = lexicon["places"][sentence.place][MOTIONS[sentence.verb]]
        if mistake == "contraction":
            place = _uncontracted(place, language)
        return f"{subject} {_romance_verb(sentence, language, many)} {place}"
    assert sentence.object is not None
    thing = _romance_noun(sentence.object, language, mistake)
    if sentence.kind in ("chain", "denial"):
        first = f"{subject} {lexicon['verbs'][sentence.before][2 + many]} {thing}"
        return first + _again(sentence, language, many, mistake == "place of the pronoun")
    if sentence.kind == "gift":
        assert sentence.recipient is not None
        to = _romance_noun(sentence.recipient, language, "", to=True)
        if mistake == "contraction":
            to = _uncontracted(to, language)
        return f"{subject} {_give(sentence, language, many)} {thing} {to}"
    return f"{subject} {_romance_verb(sentence, language, many)} {thing}"


def _romance_verb(sentence: Sentence, language: str, many: bool) -> str:
    return words(language)["verbs"][sentence.verb][2 * sentence.past + many]


def _give(sentence: Sentence, language: str, many: bool) -> str:
    """Spanish and Galician name the recipient twice ("le", "lle"); Catalan need not."""
    assert sentence.recipient is not None
    if language == "gl":
        return words("gl")["gifts"][sentence.verb][2 * sentence.past + many][sentence.recipient.many]
    pronoun = ("les " if sentence.recipient.many else "le ") if language == "es" else ""
    return pronoun + _romance_verb(sentence, language, many)


def _again(sentence: Sentence, language: str, many: bool, misplaced: bool) -> str:
    """ " and bought it", ", but did not buy it": where each language puts the pronoun."""
    assert sentence.object is not None
    lexicon = words(language)
    gender = "f" if _is_feminine(sentence.object, language) else "m"
    pronoun = lexicon["clitics"][gender][sentence.object.many]
    verb = lexicon["verbs"][sentence.verb][2 + many]
    denied = sentence.kind == "denial"
    before, after = f"{pronoun} {verb}", f"{verb} {pronoun}"
    if language == "gl":
        after = lexicon["enclitic"][sentence.verb][many] + pronoun
        text = after if denied == misplaced else before
    elif language == "ca" and misplaced:  # "va la comprar"
        text = verb.replace(" ", f" {pronoun} ", 1)
    else:
        text = after if misplaced else before
    return f", {lexicon['but']} {lexicon['not']} {text}" if denied else f" {lexicon['and']} {text}"


def _romance_noun(noun: Noun, language: str, mistake: str = "", to: bool = False) -> str:
    lexicon = words(language)
    _, *forms = lexicon["people"].get(noun.concept) or lexicon["things"][noun.concept]
    text = forms[2 * to + noun.many]
    if mistake == "gender of the article" and (language, noun.concept) not in _TWO_GENDERS:
        article, _, rest = text.partition(" ")
        text = f"{_WRONG_ARTICLES[language][article]} {rest}" if rest else text
    if not noun.adjective:
        return text
    feminine = _is_feminine(noun, language) != (mistake == "gender of the adjective")
    many = noun.many != (mistake == "number of the adjective")
    return f"{text} {lexicon['adjectives'][noun.adjective][2 * feminine + many]}"


def _is_feminine(noun: Noun, language: str) -> bool:
    lexicon = words(language)
    return (lexicon["people"].get(noun.concept) or lexicon["things"][noun.concept])[0] == "f"


def _uncontracted(text: str, language: str) -> str:
    for right, wrong in words(language).get("uncontracted", {}).items():
        whole = right if right.endswith("'") else f"{right} "
        if text.startswith(whole):
            return (wrong if right.endswith("'") else f"{wrong} ") + text.removeprefix(whole)
    return text


# Basque -------------------------------------------------------------------------------------------------------------

_CASES = {"absolutive": 0, "ergative": 1, "dative": 2}


def _basque(sentence: Sentence, language: str, mistake: str) -> str:
    lexicon = words("eu")
    many = sentence.subject.many != (mistake == "number of the verb" and _has_wrong_number(sentence))
    right_case = "absolutive" if sentence.kind in ("copula", "motion") else "ergative"
    case = right_case
    if mistake == "case of the subject" and _has_wrong_case(sentence):
        case = "ergative" if right_case == "absolutive" else "absolutive"
    subject = _basque_noun(sentence.subject, case)
    if sentence.kind == "copula":
        agrees = sentence.subject.many != (mistake == "number of the predicate")
        adjective = lexicon["adjectives"][sentence.adjective][0][agrees]
        return f"{subject} {adjective} {lexicon['be'][_tense(sentence)][many]}"
    participle = lexicon["verbs"][sentence.verb][sentence.past]
    if sentence.kind == "motion":
        place = lexicon["places"][sentence.place][MOTIONS[sentence.verb]]
        return f"{subject} {place} {participle} {lexicon['be'][_tense(sentence)][many]}"
    assert sentence.object is not None
    thing = _basque_noun(sentence.object, "absolutive")
    things = sentence.object.many != (mistake == "number of the object")
    if sentence.kind == "gift":
        assert sentence.recipient is not None
        recipients = sentence.recipient.many != (mistake == "number of the recipient")
        auxiliary = lexicon["have_to"][_tense(sentence)][many][recipients][things]
        return f"{subject} {_basque_noun(sentence.recipient, 'dative')} {thing} {participle} {auxiliary}"
    auxiliary = lexicon["have"][_tense(sentence)][many][things]
    if sentence.kind == "transitive":
        return f"{subject} {thing} {participle} {auxiliary}"
    first = f"{subject} {thing} {lexicon['verbs'][sentence.before][1]}"
    if sentence.kind == "chain":
        return f"{first} {lexicon['and']} {participle} {auxiliary}"
    denied = f"{lexicon['not']} {auxiliary} {participle}"
    if mistake == "place of the auxiliary":  # "ez erosi zuen"
        denied = f"{lexicon['not']} {participle} {auxiliary}"
    # A wrong auxiliary is wrong both times: "sagarra ikusi zuen, baina ez zituen erosi" is right, of other things.
    return f"{first} {auxiliary}, {lexicon['but']} {denied}"


def _basque_noun(noun: Noun, case: str) -> str:
    """The last word of the phrase carries case and number."""
    lexicon = words("eu")
    stem, *forms = lexicon["people"].get(noun.concept) or lexicon["things"][noun.concept]
    if noun.adjective:
        return f"{stem} {lexicon['adjectives'][noun.adjective][_CASES[case]][noun.many]}"
    return forms[_CASES[case]][noun.many]


def _has_wrong_case(sentence: Sentence) -> bool:
    """Whether a mistake of case is possible: not where speech has that form too (the plural "neskak" for "neskek").

    Things do nothing, so they have no such mistake either.
    """
    return sentence.kind == "motion" or (sentence.kind != "copula" and not sentence.subject.many)


def _has_wrong_number(sentence: Sentence) -> bool:
    """Whether a number mistake is possible: not if it reads as speech's plural ("neskak erosi zuten" for "neskek")."""
    return sentence.kind in ("copula", "motion") or sentence.subject.many


def _tense(sentence: Sentence) -> str:
    return "past" if sentence.past else "present"


_SPEAKERS = {"en": _english, "es": _romance, "gl": _romance, "ca": _romance, "eu": _basque}
_ROMANCE_MISTAKES = (
    "number of the verb", "gender of the article", "gender of the adjective", "number of the adjective",
    "gender of the predicate", "number of the predicate", "contraction", "place of the pronoun",
)  # fmt: skip
_MISTAKES = {
    "en": ("number of the verb", "form of the verb"),
    "es": _ROMANCE_MISTAKES,
    "gl": _ROMANCE_MISTAKES,
    "ca": _ROMANCE_MISTAKES,
    "eu": ("number of the verb", "case of the subject", "number of the object", "number of the recipient",
           "number of the predicate", "place of the auxiliary"),
}  # fmt: skip
