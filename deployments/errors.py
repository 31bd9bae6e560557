"""What can go wrong, in the domain's words. Status codes are the door's business (`service/errors.py`).

ServingError
|-- BadRequest            the request can never succeed as it stands; `param` names the field
|-- ModelNotFound         no such model or version here
|   `-- CalibrationNotFound  no such calibration of the model
|-- QueueFull             no room in the waiting line, or no time for it; try again after `retry_after_seconds`
|-- Unavailable           nothing can answer now
|   `-- ReplicaLost       the process that worked on it died
|-- DeadlineExceeded      the request's or the server's time limit passed
|-- Cancelled             the client left
`-- ModelFault            the model made what cannot be sent: a bug
    `-- StepFailed        a step of the model failed, and took its rows with it
"""


class ServingError(Exception):
    """Base of everything the service answers with an error body. `message` is safe to show to a client."""

    code = "internal"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.param = param
        self.retry_after_seconds = retry_after_seconds

    def __reduce__(self) -> tuple[object, ...]:
        """Keyword arguments survive the way between processes."""
        return _rebuild, (type(self), self.message, self.code, self.param, self.retry_after_seconds)


def _rebuild(
    kind: type[ServingError], message: str, code: str, param: str | None, retry_after_seconds: float | None
) -> ServingError:
    return kind(message, code=code, param=param, retry_after_seconds=retry_after_seconds)


class BadRequest(ServingError):
    """The request can never succeed as it stands."""

    code = "invalid_value"


class ModelNotFound(ServingError):
    """No such model or version is served here."""

    code = "model_not_found"


class CalibrationNotFound(ModelNotFound):
    """The model has no such calibration."""

    code = "calibration_not_found"


class QueueFull(ServingError):
    """The waiting line has no room, or (`queue_too_long`) is so long that the request's time limit would pass in it."""

    code = "queue_full"


class Unavailable(ServingError):
    """Nothing can answer now: starting, draining, or every replica gone."""

    code = "unavailable"


class ReplicaLost(Unavailable):
    """The replica died while it worked on the request."""

    code = "replica_lost"


class DeadlineExceeded(ServingError):
    """The time limit passed before the answer was complete."""

    code = "deadline_exceeded"


class Cancelled(ServingError):
    """The client left; nobody reads this."""

    code = "cancelled"


class ModelFault(ServingError):
    """The model made what cannot be sent."""

    code = "internal"


class StepFailed(ModelFault):
    """A step of the model failed: its rows are lost, others and later ones are not."""

    code = "step_failed"
