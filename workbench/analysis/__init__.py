"""Numbers about checkpoints, and what they say. No picture of a model is drawn here, and no file but the checkpoints' own is read."""

from workbench.analysis.advising import Advised, advise
from workbench.analysis.comparing_methods import MethodsCompared, methods_compared
from workbench.analysis.comparison import compare
from workbench.analysis.conflicts import Interference, interference
from workbench.analysis.difference_result import Difference
from workbench.analysis.differences import diff
from workbench.analysis.explaining import Explanation, explain
from workbench.analysis.provenance.family_tree import lineage
from workbench.analysis.provenance.lineage_result import Lineage
from workbench.analysis.purposes import purpose, purpose_of
from workbench.analysis.recovery import Recovery, recover
from workbench.analysis.similarities import Similarity, similarity
from workbench.analysis.singular import SingularValues, singular_values
from workbench.analysis.spectra import spectrum
from workbench.analysis.spectrum_result import Spectrum

__all__ = [
    "Advised",
    "Difference",
    "Explanation",
    "Interference",
    "Lineage",
    "MethodsCompared",
    "Recovery",
    "Similarity",
    "SingularValues",
    "Spectrum",
    "advise",
    "compare",
    "diff",
    "explain",
    "interference",
    "lineage",
    "methods_compared",
    "purpose",
    "purpose_of",
    "recover",
    "similarity",
    "singular_values",
    "spectrum",
]
