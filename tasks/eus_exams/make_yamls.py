"""Writes the YAMLs of the EusExams tasks, one an exam and a group a language: python tasks/eus_exams/make_yamls.py"""

from __future__ import annotations

from pathlib import Path

from lm_eval_iberian.scores.benchmarks import EXAMS_ES, EXAMS_EU

HERE = Path(__file__).parent
REMARKS = {
    "eu": f"One benchmark of {len(EXAMS_EU)} exams. Its score is the mean over the exams (lm_eval_iberian.scores.suite).",
    "es": f"{len(EXAMS_ES)} exams in Spanish; in no average of the paper. Its score is the mean over the exams.",
}


def files() -> dict[Path, str]:
    """Every file with its text."""
    made = {}
    for language, subjects in (("eu", EXAMS_EU), ("es", EXAMS_ES)):
        group = f"iberian_eus_exams_{language}"
        for subject in subjects:
            text = f"task: {group}_{subject}\ndataset_name: {language}_{subject}\ninclude: _eus_exams_{language}_yaml\n"
            made[HERE / f"{group}_{subject}.yaml"] = text
        tasks = "".join(f"  - {group}_{subject}\n" for subject in subjects)
        made[HERE / f"{group}.yaml"] = (
            f"# {REMARKS[language]}\ngroup: {group}\ntask:\n{tasks}metadata:\n  version: 1.0\n"
        )
    return made


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")
