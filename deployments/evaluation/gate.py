"""What a version must reach to follow another one: rules for figures, and who breaks them. Knows no store."""

from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from deployments.evaluation.errors import EvaluationError
from deployments.evaluation.record import Evaluation, Figure
from model_store.fields import Finite


class Rule(BaseModel):
    """For one figure: bounds of its own, and how much worse than the current version's it may be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at_least: Finite | None = None
    at_most: Finite | None = None
    tolerance: Annotated[Finite, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> "Rule":
        if not self.model_fields_set:
            raise ValueError("say at_least, at_most or tolerance")
        return self


class Gate(BaseModel):
    """Rules by the names of figures."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    figures: Annotated[dict[str, Rule], Field(min_length=1)]


def read_gate(path: Path) -> Gate:
    """Read a gate's YAML file. Raises EvaluationError."""
    try:
        return parse_gate(path.read_bytes(), str(path))
    except OSError as error:
        raise EvaluationError(f"the gate {path} cannot be read: {error.strerror}") from error


def parse_gate(raw: bytes, where: str) -> Gate:
    """A gate from its YAML. Raises EvaluationError, which says `where` it is."""
    try:
        return Gate.model_validate(yaml.safe_load(raw))
    except yaml.YAMLError as error:
        raise EvaluationError(f"the gate {where} is not valid YAML") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "its top level"
        raise EvaluationError(f"the gate {where} is wrong at {place}: {first['msg']}") from error


def broken(gate: Gate, new: Evaluation, current: Evaluation | None) -> list[str]:
    """A sentence for every rule that `new` breaks. Without a current version there is nothing to be worse than."""
    compared = current is not None and any(rule.tolerance is not None for rule in gate.figures.values())
    if compared and current and current.data.digest != new.data.digest:
        return [f"measured on other data than version {current.model.version}"]
    found = []
    for name, rule in gate.figures.items():
        if name not in new.figures:
            found.append(f"{name} was not measured")
            continue
        found += _out_of_bounds(name, rule, new.figures[name].value)
        if current is not None and rule.tolerance is not None:
            found += _worse(name, rule.tolerance, new.figures[name], current)
    return found


def _out_of_bounds(name: str, rule: Rule, value: float) -> list[str]:
    found = []
    if rule.at_least is not None and value < rule.at_least:
        found.append(f"{name} is {value:.4g}, and must be at least {rule.at_least:g}")
    if rule.at_most is not None and value > rule.at_most:
        found.append(f"{name} is {value:.4g}, and must be at most {rule.at_most:g}")
    return found


def _worse(name: str, tolerance: float, new: Figure, current: Evaluation) -> list[str]:
    version = current.model.version
    old = current.figures.get(name)
    if old is None:
        return [f"{name} was not measured for version {version}"]
    if new.higher_is_better is None:
        return [f"{name} has no better and no worse"]
    loss = old.value - new.value if new.higher_is_better else new.value - old.value
    if loss <= tolerance:
        return []
    return [
        f"{name} is {new.value:.4g}, worse than the {old.value:.4g} of version {version} by more than {tolerance:g}"
    ]
