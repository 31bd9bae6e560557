"""Roles of what scores or redraws items: taken from names, Anomalib's among them, said by the user, or guessed."""

from collections.abc import Mapping, Sequence
from typing import Final

from model_store.export.calibration import PREFIX
from model_store.export.errors import DraftError
from model_store.imaging import Image
from model_store.manifest import Capability, Task, Tensor

TASKS: Final[tuple[Task, ...]] = ("reconstruction", "anomaly-detection")
SCORE: Final = "score.anomaly"
ANOMALIB: Final[Mapping[str, str]] = {"pred_score": SCORE, "anomaly_map": "error_map"}
"""Outputs of Anomalib 2's exports that are served. Both are normalised in the graph: 0.5 is its own threshold.

Its `pred_label` and `pred_mask` say which are above that, which a server finds from the calibration. Anomalib 1 exports a map
alone, which it calls `output`.
"""

_ONE: Final[frozenset[tuple[int | str, ...]]] = frozenset({("batch",), ("batch", 1)})
"""Shapes of a number an item."""

SERVED: Final = ("reconstruction", "latent", "spread", "error_map", "contribution")
"""Roles of outputs beside scores."""

ADVICE: Final = "anomaly scores need a calibration: --calibration data.npz, an array X of normal items that the model was not trained on"


def guess_outputs(
    inputs: Sequence[Tensor], outputs: Sequence[Tensor], said: Mapping[str, str], option: str = "--map"
) -> dict[str, str]:
    """Roles by name of what scores or redraws items: as said, Anomalib's, by name, or where only one guess is possible.

    Raises DraftError, showing all inputs and outputs and what to say in `option`, where nothing is found that a server could answer
    with. A map is enough: its greatest value is a score.
    """
    roles = {each.name: said.get(each.name) or ANOMALIB.get(each.name, each.name) for each in outputs}
    shape = next((each.shape for each in inputs if each.role == "input"), ())
    possible = {
        SCORE: _ONE - {shape},
        "reconstruction": {shape},
        "error_map": {("batch", 1, *shape[2:]), ("batch", *shape[2:])} if len(shape) == 4 else set(),
    }
    ends = "\n".join([f"in  {_shown(each)}" for each in inputs] + [f"out {_shown(each)}" for each in outputs])
    for each in outputs:
        role = roles[each.name]
        shapes = _ONE if role.startswith(PREFIX) else {shape} if role == "reconstruction" else {each.shape}
        if each.shape not in shapes:
            raise DraftError(f"{each.name} has not the shape of what is called {role}", detail=ends)
    fitting = {
        role: [each.name for each in outputs if each.dtype == "float32" and each.shape in shapes]
        for role, shapes in possible.items()
    }
    for role, names in fitting.items():
        free = [name for name in names if name not in said and not served(roles[name])]
        if len(free) == 1 and role not in roles.values() and not _answers(roles):
            roles[free[0]] = role
    if not _answers(roles) and "error_map" not in roles.values():
        raise DraftError(_ask(fitting, option), detail=ends)
    return roles


def _ask(fitting: Mapping[str, Sequence[str]], option: str) -> str:
    """What to say, of the outputs that could be something."""
    choices = [f"{option} {name}:{role}" for role, names in fitting.items() for name in names]
    if not choices:
        return (
            "no output has the shape of a score, one number an item, or of a reconstruction, the input's own"
        )
    return f"it cannot be guessed which output is a score or a reconstruction: say {' or '.join(choices)}"


def _answers(roles: Mapping[str, str]) -> bool:
    return any(each == "reconstruction" or each.startswith(PREFIX) for each in roles.values())


def served(role: str) -> bool:
    """Whether a server knows what to do with an output of this role."""
    return role in SERVED or role.startswith(PREFIX)


def _shown(tensor: Tensor) -> str:
    return f"{tensor.name} {tensor.dtype}[{', '.join(map(str, tensor.shape))}]"


def able(roles: Sequence[str], *, decodes: bool = False) -> tuple[Capability, ...]:
    """What a package whose graphs have these roles can do."""
    found: list[Capability] = ["reconstruct"] if "reconstruction" in roles else []
    found += ["score"] if any(each.startswith(PREFIX) for each in roles) else []
    found += ["encode", "embed"] if "latent" in roles else []
    return (*found, "decode", "interpolate") if decodes else tuple(found)


def picture_of(shape: tuple[int | str, ...]) -> Image | None:
    """What a manifest says of items that are pictures: one, three or four channels first, of fixed size."""
    if len(shape) != 3 or shape[0] not in {1, 3, 4} or not all(isinstance(size, int) for size in shape):
        return None
    return Image(channels=shape[0], height=int(shape[1]), width=int(shape[2]))  # type: ignore[arg-type]  # checked above
