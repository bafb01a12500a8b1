"""IFEval in any language: one check an instruction type, one file a language.

    from ifeval_multi import check, load_pack
    check("startend:quotation", "«Kaixo»", {}, load_pack("eu"))   # Verdict(followed=True, ...)

README.md says how it differs from the published checkers and how a language is added.
"""

from ifeval_multi import documents
from ifeval_multi.errors import PackError
from ifeval_multi.evaluate import check, evaluate_response, strip_reasoning
from ifeval_multi.lint import Finding, lint
from ifeval_multi.pack import Pack, languages, load_pack
from ifeval_multi.score import Report, score
from ifeval_multi.verdict import Verdict

__all__ = [
    "Finding",
    "Pack",
    "PackError",
    "Report",
    "Verdict",
    "check",
    "documents",
    "evaluate_response",
    "languages",
    "lint",
    "load_pack",
    "score",
    "strip_reasoning",
]
