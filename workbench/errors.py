"""Every exception and warning of the package; each message names file, tensor, value, what is allowed, and the next step."""

import sys
import warnings


class WorkbenchError(Exception):
    """Base of every error this package raises on purpose."""


class CheckpointError(WorkbenchError):
    """A file that is damaged, unsafe, or no checkpoint."""


class MissingTensorError(WorkbenchError, KeyError):
    """A tensor that was asked for and is not there."""

    __str__ = Exception.__str__  # KeyError would print the message quoted


class OptionError(WorkbenchError, ValueError):
    """An option that is unknown, of the wrong type, out of range, or of the wrong length."""


class UnknownOperatorError(WorkbenchError, AttributeError):
    """An operator name that is not in the registry."""


class InputError(WorkbenchError):
    """Inputs that do not fit an operator: wrong number, wrong kind, or a rule that points nowhere."""


class MergeError(WorkbenchError):
    """Models that do not fit together: found at preflight, before a weight is read."""


class RecipeError(WorkbenchError):
    """A recipe file that is malformed, or whose files are missing or changed."""


class ExportError(WorkbenchError):
    """An output that cannot be written; nothing is left behind."""


class NonFiniteError(WorkbenchError):
    """NaN or infinity in an input (`strict=True`)."""


class RenderError(WorkbenchError):
    """A checkpoint that the pipeline cannot hold, or a picture that cannot be made."""


class TextEncoderError(WorkbenchError):
    """A text encoder that is not there or not whole, or a prompt that it cannot read."""


class HypernetworkError(WorkbenchError):
    """A hypernetwork that is not whole or of another shape than what it is given, or a fit that cannot be begun."""


class SweepError(WorkbenchError):
    """A sweep that cannot be begun or kept, or a question about one that has no answer."""


class SearchError(WorkbenchError):
    """A search that cannot be done: of a space that is empty, or an objective that gives no number."""


class PreferenceError(WorkbenchError):
    """Choices by eye that cannot be made, kept or read, or a question about them that has no answer yet."""


class NotInCloneError(WorkbenchError):
    """Embedded models or notebooks, asked of a package that was installed without the clone they come with."""


class Cancelled(WorkbenchError):
    """Work that was given up because its result is not wanted any more."""


class NonFiniteWarning(UserWarning):
    """NaN or infinity in an input, or values beyond the output's range."""


class PluginWarning(UserWarning):
    """Something that another package adds to Workbench and that cannot be loaded."""


class MergeWarning(UserWarning):
    """Something in a merge that its author would want to know."""


def warn(text: str, category: type[Warning]) -> None:
    """Warn whoever called into this package, however deep below the warning arises."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == __name__.partition(".")[0]:
        frame, level = frame.f_back, level + 1
    warnings.warn(text, category, stacklevel=level)
