"""What the `.pth` hook costs at interpreter start. Run: python tests/benchmarks/startup.py

Times the import that the hook makes, in fresh interpreters, and whole starts with and without it, taken in turns.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time

REPEATS = 40
TIME_IMPORT = (
    "import time; start = time.perf_counter(); import lm_eval_iberian.autoload; print(time.perf_counter() - start)"
)


def start(command: str, autoload: str) -> tuple[float, str]:
    """Seconds of a whole start, and what it printed."""
    environment = os.environ | {"IBERIAN_AUTOLOAD": autoload, "PYTHONDONTWRITEBYTECODE": ""}
    before = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", command], env=environment, capture_output=True, text=True, check=True)
    return time.perf_counter() - before, done.stdout


def main() -> None:
    imports = [float(start(TIME_IMPORT, "0")[1]) * 1000 for _ in range(REPEATS)]
    whole = [(start("pass", "1")[0] * 1000, start("pass", "0")[0] * 1000) for _ in range(REPEATS)]
    figures = {
        "import of the hook, ms": [min(imports), statistics.median(imports), max(imports)],
        "whole start with the hook, ms": statistics.median(on for on, _ in whole),
        "whole start without, ms": statistics.median(off for _, off in whole),
        "python": sys.version.split()[0],
        "repeats": REPEATS,
    }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
