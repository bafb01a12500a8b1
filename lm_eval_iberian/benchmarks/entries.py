"""The benchmarks that a manifest names, one for each language or direction; tasks/README.md has the keys."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lm_eval_iberian.benchmarks.benchmark import ALL, CHOICE, COUNTED, KINDS, OF_HUNDRED, PAPER_COLUMNS, Benchmark
from lm_eval_iberian.benchmarks.files import BENCHMARKS, Types, checked, fault, read
from lm_eval_iberian.benchmarks.languages import languages

KEYS: Types = {
    "name": str, "kind": str, "languages": list, "directions": list, "task": str, "upstream": str, "metric": str,
    "chance": (int, float), "shots": (int, type(None)), "average": str, "suite": bool, "more": bool,
}  # fmt: skip
_AVERAGE = re.compile("[a-z][a-z0-9]*")
# What `average` may say beside a name.
NONE, OWN = "none", "own"
_GROUP = re.compile("^group:", re.MULTILINE)


def benchmarks_of(file: Path) -> list[Benchmark]:
    """The benchmarks of a folder: language by language, then directions."""
    entries = read(file).get(BENCHMARKS) or []
    if not isinstance(entries, list):
        raise fault(file, BENCHMARKS, "should be a list, each item a benchmark")
    order = list(languages())
    found: list[tuple[bool, int, Benchmark]] = []
    for number, entry in enumerate(entries, 1):
        reader = _Entry(file, f"{BENCHMARKS}, number {number}", entry)
        found += [(reader.has_directions, order.index(one.language), one) for one in reader.benchmarks()]
    return [benchmark for *_, benchmark in sorted(found, key=lambda one: one[:2])]


class _Entry:
    """One entry under `benchmarks`, read for each of its languages or directions.

    Args:
        file, key: where it stands.
        entry: as YAML has it.
    Raises:
        ManifestError: names the file and the key.
    """

    def __init__(self, file: Path, key: str, entry: Any) -> None:
        named = entry.get("name") if isinstance(entry, dict) else None
        self.file, self.key = file, f"{key} ({named})" if named else key
        self.entry = checked(entry, KEYS, ("name", "kind"), file, self.key)
        if not self.entry.get("task") and not self.entry.get("upstream"):
            raise fault(
                file, self.key, "it lacks the key task (or upstream, where lm_eval's own task is to measure it)"
            )
        words = {kind.word: key for key, kind in KINDS.items()}
        if self.entry["kind"] not in words:
            raise self.fault("kind", f"{self.entry['kind']!r} is none of {', '.join(words)}")
        self.kind = words[self.entry["kind"]]
        self.has_directions = "directions" in self.entry
        if self.has_directions == ("languages" in self.entry):
            raise fault(file, self.key, "it needs one of the keys languages and directions")

    def fault(self, key: str, what: str) -> Exception:
        return fault(self.file, f"{self.key}: {key}", what)

    def benchmarks(self) -> Iterator[Benchmark]:
        """A benchmark for each language, or each direction."""
        key = "directions" if self.has_directions else "languages"
        for one in self.entry[key]:
            language = str(one).rpartition("-")[2]
            if any(part not in languages() for part in str(one).split("-")):
                known = ", ".join(languages())
                raise self.fault(key, f"{one}: not in languages.yml, which has {known}; add it there")
            yield self._benchmark(language, str(one))

    def _benchmark(self, language: str, direction: str) -> Benchmark:
        known = languages()[language]

        def filled(key: str) -> str:
            try:
                return str(self.entry.get(key, "")).format(
                    language=language, direction=direction, code=known.code, iso3=known.iso3
                )
            except (KeyError, IndexError, ValueError):
                raise self.fault(key, "only {language}, {code}, {iso3} and {direction} may stand in it") from None

        name, listed, upstream = filled("name"), filled("task"), filled("upstream")
        tasks = tuple(self._leaves(listed)) if listed else ()
        if "*" in upstream:  # the star: what a leaf is called beyond its group
            theirs = tuple(upstream.replace("*", task.removeprefix(f"{listed}_")) for task in tasks)
        else:
            theirs = (upstream,) if upstream else ()
        metric = self.entry.get("metric", KINDS[self.kind].metric)
        average = self._average(language, name)
        in_more = self.entry.get("more", not listed)
        return Benchmark(
            name, language, self.kind, tasks, theirs, metric, self._chance(), self._shots(),
            percent=100.0 if metric in OF_HUNDRED else 1.0, averaged=average is not None, average=average or "",
            listed=listed or upstream, in_suite=self.entry.get("suite", not in_more), in_more=in_more,
        )  # fmt: skip

    def _average(self, language: str, name: str) -> str | None:
        """The average that counts it, "" for its kind's; None for none."""
        asked = self.entry.get("average", "")
        if asked == NONE:
            return None
        column = f"{self.kind}_{language}"
        if (column, name) in COUNTED or (not asked and column not in PAPER_COLUMNS):
            return ""
        if asked == self.kind and column in PAPER_COLUMNS:
            raise self.fault("average", f"{column} is the paper's average and frozen; name another, or leave it out")
        if asked in (self.kind, ALL):
            if asked == ALL and self.kind != CHOICE:
                raise self.fault("average", f"only benchmarks of the kind choice count in {ALL}")
            return "" if asked == self.kind else asked
        average = self._own() if asked in ("", OWN) else asked
        if not _AVERAGE.fullmatch(average) or average in (*KINDS, ALL, NONE, OWN):
            raise self.fault("average", f"{average!r} cannot name it; write another word in small letters")
        return average

    def _own(self) -> str:
        """The key of an average that only this entry counts in."""
        plain = unicodedata.normalize("NFKD", re.sub(r"{\w+}", "", self.entry["name"])).encode("ascii", "ignore")
        return re.sub("[^a-z0-9]", "", plain.decode().lower())

    def _chance(self) -> float:
        chance = self.entry.get("chance", KINDS[self.kind].chance)
        if chance is None:
            raise fault(self.file, self.key, "it lacks the key chance: what guessing scores, in percent")
        if not 0 <= chance < 100:
            raise self.fault("chance", f"{chance} is no percentage below 100")
        return float(chance)

    def _shots(self) -> int | None:
        if "shots" not in self.entry:
            raise fault(self.file, self.key, "it lacks the key shots: how many, or null where they make no sense")
        shots: int | None = self.entry["shots"]
        if shots is not None and shots < 0:
            raise self.fault("shots", f"{shots} is less than none")
        return shots

    def _leaves(self, task: str) -> Iterable[str]:
        """The leaf tasks of a task or group of this folder. Raises ManifestError where there is no such YAML."""
        file = self.file.parent / f"{task}.yaml"
        if not file.is_file():
            raise self.fault("task", f"there is no {file.name} beside this manifest")
        if not _GROUP.search(file.read_text(encoding="utf-8")):
            return [task]
        return [leaf for part in read(file)["task"] for leaf in self._leaves(str(part))]
