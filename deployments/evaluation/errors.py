"""Why something cannot be evaluated. The message is one sentence for the person at the terminal."""


class EvaluationError(Exception):
    """The data, the package or an earlier evaluation is not what is needed."""
