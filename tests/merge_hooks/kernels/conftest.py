"""Lets the tests in this folder import `golden`, which is no package of ours."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
