"""Why nothing was published, in one sentence each; `detail` holds the last lines of the cause, if there is one.

ExportError
|-- ToolsMissing    torch or another exporting tool is not installed
|-- DraftError      the draft contradicts itself or its examples
|-- GraphFailed     the subprocess could not make the graph
|-- ParityError     ONNX Runtime and torch disagree
`-- QualityLost     rounding the weights costs more than its limit
"""

from collections.abc import Sequence


class ExportError(Exception):
    """Base of everything that stops an export. `message` is one clear sentence."""

    def __init__(self, message: str, *, detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail


class ToolsMissing(ExportError):
    """What exporting needs is not installed."""


class DraftError(ExportError):
    """The draft contradicts itself: tensors, examples, or parts that do not fit together."""


class GraphFailed(ExportError):
    """A module could not be built, loaded, run or exported."""


class ParityError(ExportError):
    """The exported graph does not compute what torch does.

    `index` is the place of the worst element of `output`, `expected` what torch computes there, `found` what the graph
    does, and `error` the relative error. `index` is None where the shapes differ or the graph cannot run at all.
    """

    def __init__(
        self,
        message: str,
        *,
        graph: str,
        output: str = "",
        index: Sequence[int] | None = None,
        expected: float = float("nan"),
        found: float = float("nan"),
        error: float = float("inf"),
    ) -> None:
        super().__init__(message)
        self.graph = graph
        self.output = output
        self.index = None if index is None else tuple(index)
        self.expected = expected
        self.found = found
        self.error = error


class QualityLost(ExportError):
    """Rounding the weights costs more than its limit."""
