"""Writes the YAMLs of the BLiMP tasks, one a set of pairs and a group of them: python tasks/blimp/make_yamls.py"""

from __future__ import annotations

from pathlib import Path

from lm_eval_iberian.documents.manifests import manifests

HERE = Path(__file__).parent
DATA_SET, GROUP = "nyu-mll/blimp", "iberian_blimp_english"


def files() -> dict[Path, str]:
    """Every file with its text."""
    configs = list(manifests()[DATA_SET].configs)
    text = "task: {0}_{1}\ndataset_name: {1}\ninclude: _blimp_english_yaml\n"
    made = {HERE / f"{GROUP}_{config}.yaml": text.format(GROUP, config) for config in configs}
    tasks = "".join(f"  - {GROUP}_{config}\n" for config in configs)
    remark = f"BLiMP: one benchmark of {len(configs)} sets of pairs. Its score is their mean."
    made[HERE / f"{GROUP}.yaml"] = f"# {remark}\ngroup: {GROUP}\ntask:\n{tasks}metadata:\n  version: 1.0\n"
    return made


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")
