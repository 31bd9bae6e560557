"""What can go wrong, in the domain's words. Status codes are the door's business (`service/errors.py`).

ServingError
|-- BadRequest            the request can never succeed as it stands; `param` names the field
|-- ModelNotFound         no such model or version here
|-- QueueFull             the waiting line is full; try again after `retry_after_seconds`
|-- Unavailable           nothing can answer now
|   `-- ReplicaLost       the process that worked on it died
|-- DeadlineExceeded      the request's or the server's time limit passed
|-- Cancelled             the client left
`-- ModelFault            the model failed in a step: a bug or a broken device
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


class QueueFull(ServingError):
    """The waiting line is full."""

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
    """A step of the model failed."""

    code = "internal"
