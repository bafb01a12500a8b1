"""Writes the YAMLs of the EusExams tasks, one an exam and a group a language: python tasks/eus_exams/make_yamls.py"""

from __future__ import annotations

from pathlib import Path

from lm_eval_iberian.documents.manifests import manifests

HERE = Path(__file__).parent
DATA_SET = "HiTZ/EusExams"
REMARKS = {
    "eu": "One benchmark of {} exams. Its score is the mean over the exams (lm_eval_iberian.scores.suite).",
    "es": "{} exams in Spanish; in no average of the paper. Its score is the mean over the exams.",
}


def files() -> dict[Path, str]:
    """Every file with its text."""
    made = {}
    for language, remark in REMARKS.items():
        configs = [config for config in manifests()[DATA_SET].configs if config.startswith(f"{language}_")]
        subjects = [config.removeprefix(f"{language}_") for config in configs]
        group = f"iberian_eus_exams_{language}"
        for subject in subjects:
            text = f"task: {group}_{subject}\ndataset_name: {language}_{subject}\ninclude: _eus_exams_{language}_yaml\n"
            made[HERE / f"{group}_{subject}.yaml"] = text
        tasks = "".join(f"  - {group}_{subject}\n" for subject in subjects)
        made[HERE / f"{group}.yaml"] = (
            f"# {remark.format(len(subjects))}\ngroup: {group}\ntask:\n{tasks}metadata:\n  version: 1.0\n"
        )
    return made


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")
