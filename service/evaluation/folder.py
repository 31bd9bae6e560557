"""Where evaluations lie: `<folder>/<name>/<version>/evaluation.json`, beside no package, as packages never change."""

from pathlib import Path

from deployments.evaluation.errors import EvaluationError
from deployments.evaluation.record import FILE, Evaluation, read
from model_store.shelf import is_name, is_version


def find(folder: Path, name: str, version: str | None) -> Evaluation:
    """The evaluation of a version, or of the latest that has one. Raises EvaluationError."""
    place = folder / name
    versions = (
        sorted((each.parent.name for each in place.glob(f"*/{FILE}")), key=_order) if is_name(name) else []
    )
    if not versions or version not in (None, *versions):
        what = f"{name}:{version}" if version else name
        raise EvaluationError(
            f"there is no evaluation of {what} in {folder}: run `atelier evaluate {what} --data ...`"
        )
    found = read(place / (version or versions[-1]) / FILE)
    if found.model.name != name or found.model.version != (version or versions[-1]):
        raise EvaluationError(f"{place} holds an evaluation of {found.model.name}:{found.model.version}")
    return found


def _order(version: str) -> int:
    return int(version) if is_version(version) else 0
