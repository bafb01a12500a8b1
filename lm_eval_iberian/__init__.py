"""lm_eval_iberian: score language-model merges with lm-evaluation-harness, without writing them to disk.

Nothing is imported here: this module is read at every start of the interpreter (see autoload.py).
"""

__version__ = "0.1.0"
