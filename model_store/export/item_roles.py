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

SERVED: Final = ("reconstruction", "latent", "spread", "error_map", "contribution")
"""Roles of outputs beside scores."""

ADVICE: Final = "anomaly scores need a calibration: --calibration data.npz, an array X of normal items that the model was not trained on"


def guess_outputs(
    inputs: Sequence[Tensor], outputs: Sequence[Tensor], said: Mapping[str, str]
) -> dict[str, str]:
    """Roles by name of what scores or redraws items: as said, Anomalib's, by name, or where only one guess is possible.

    Raises DraftError, showing all inputs and outputs, where nothing is found that a server could answer with. A map is enough: its
    greatest value is a score.
    """
    roles = {each.name: said.get(each.name) or ANOMALIB.get(each.name, each.name) for each in outputs}
    shape = next((each.shape for each in inputs if each.role == "input"), ())
    guesses = {
        SCORE: {("batch",), ("batch", 1)} - {shape},
        "reconstruction": {shape},
        "error_map": {("batch", 1, *shape[2:]), ("batch", *shape[2:])} if len(shape) == 4 else set(),
    }
    for role, shapes in guesses.items():
        free = [each for each in outputs if each.name not in said and not served(roles[each.name])]
        fitting = [each.name for each in free if each.dtype == "float32" and each.shape in shapes]
        if len(fitting) == 1 and role not in roles.values() and not _answers(roles):
            roles[fitting[0]] = role
    if not _answers(roles) and "error_map" not in roles.values():
        ends = [f"in {_shown(each)}" for each in inputs] + [f"out {_shown(each)}" for each in outputs]
        raise DraftError(
            f"nothing is known to be a score or a reconstruction among {'; '.join(ends)}: say which it is, as "
            f"{outputs[0].name}:{SCORE} or {outputs[0].name}:reconstruction"
        )
    return roles


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
    found += ["encode"] if "latent" in roles else []
    return (*found, "decode", "interpolate") if decodes else tuple(found)


def picture_of(shape: tuple[int | str, ...]) -> Image | None:
    """What a manifest says of items that are pictures: one, three or four channels first, of fixed size."""
    if len(shape) != 3 or shape[0] not in {1, 3, 4} or not all(isinstance(size, int) for size in shape):
        return None
    return Image(channels=shape[0], height=int(shape[1]), width=int(shape[2]))  # type: ignore[arg-type]  # checked above
