from lm_eval_iberian.errors import DocumentsError as DocumentsError
from lm_eval_iberian.models import Merged as Merged
from lm_eval_iberian.pictures.write import write_report as write_report
from lm_eval_iberian.plugin import activate as activate
from lm_eval_iberian.runs.errors import SweepError as SweepError
from lm_eval_iberian.runs.run import read_sweep_run as read_sweep_run
from lm_eval_iberian.scores.results import SuiteError as SuiteError
from lm_eval_iberian.scores.results import read_run as read_run
from lm_eval_iberian.scores.significance import align as align
from lm_eval_iberian.scores.significance import paired_bootstrap as paired_bootstrap
from lm_eval_iberian.scores.suite import gather as gather

__version__: str
PUBLIC: dict[str, str]
__all__ = [
    "DocumentsError", "Merged", "SuiteError", "SweepError", "activate", "align", "gather", "paired_bootstrap", "read_run",
    "read_sweep_run", "write_report",
]  # fmt: skip
