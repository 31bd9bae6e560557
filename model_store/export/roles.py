"""Roles of a graph's tensors by task: taken from their names, said by the user, or guessed where only one guess is possible."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, TypeAlias

from model_store.export.errors import DraftError
from model_store.manifest import Capability, Task, Tensor

Guess: TypeAlias = Callable[[Tensor], bool]
"""Whether a tensor could play a role."""

GRAPH_NAMES: Final[Mapping[Task, str]] = {
    "reconstruction": "reconstruct",
    "anomaly-detection": "score",
    "image-generation": "generate",
    "text-generation": "step",
}
"""The graph that a task's programs look for; other tasks have one called `forward`."""

NEEDED_INPUTS: Final[Mapping[Task, tuple[str, ...]]] = {
    "reconstruction": ("input",),
    "anomaly-detection": ("input",),
    "image-generation": ("noise",),
    "text-generation": ("input_ids", "select"),
}
NEEDED_OUTPUTS: Final[Mapping[Task, tuple[str, ...]]] = {
    "reconstruction": ("reconstruction",),
    "image-generation": ("output",),
    "text-generation": ("logits",),
}
_CAPABILITIES: Final[Mapping[Task, Capability]] = {
    "text-generation": "complete",
    "text2text-generation": "complete",
    "feature-extraction": "embed",
    "text-classification": "classify",
    "image-generation": "generate_image",
    "image-to-image": "edit_image",
    "reconstruction": "reconstruct",
    "anomaly-detection": "score",
}


def said_roles(option: str, texts: Sequence[str]) -> dict[str, str]:
    """The roles that an option's texts, `name:role`, give to tensors by name. Raises DraftError."""
    roles = {}
    for text in texts:
        name, colon, role = text.rpartition(":")
        if not (name and colon and role):
            raise DraftError(f"{option} {text!r} is not like name:role")
        roles[name] = role
    return roles


def _floating(tensor: Tensor) -> bool:
    return tensor.dtype in {"float32", "float16"}


def _vector(tensor: Tensor) -> bool:
    return _floating(tensor) and len(tensor.shape) == 2


def _label(tensor: Tensor) -> bool:
    return tensor.dtype == "int64" and tensor.shape == ("batch",)


def _never(_: Tensor) -> bool:
    return False


_INPUT_GUESSES: Final[Mapping[Task, Mapping[str, Guess]]] = {
    "reconstruction": {"input": _floating, "noise": _never},
    "anomaly-detection": {"input": _floating, "noise": _never},
    "image-generation": {"noise": _vector, "class_id": _label},
}


DENOISER: Final = ("latent", "time", "label", "size", "guidance")
"""What a server gives a denoiser that reads no text."""

PREDICTIONS: Final = ("velocity", "epsilon", "v_prediction")
_NAMED: Final[Mapping[str, tuple[str, ...]]] = {
    "latent": ("latent", "latents", "sample", "x", "x_t", "noisy"),
    "time": ("time", "t", "timestep", "timesteps"),
    "label": ("label", "labels", "class", "class_id", "class_label", "class_labels", "y"),
    "size": ("size",),
    "guidance": ("guidance", "guidance_scale"),
    "velocity": ("velocity", "flow"),
    "epsilon": ("epsilon", "eps", "noise", "noise_pred"),
    "v_prediction": ("v_prediction", "v_pred"),
}
"""What exporters call the tensors of a denoiser. `v` may be either of two."""


def assign_denoiser(
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    said_in: Mapping[str, str],
    said_out: Mapping[str, str],
) -> tuple[list[Tensor], list[Tensor]]:
    """Give a denoiser's tensors their roles. Raises DraftError, with what to say, where one cannot be guessed, or is none that a server gives."""
    guesses: dict[str, Guess] = {
        "latent": lambda each: _floating(each) and len(each.shape) == 4,
        "time": lambda each: _floating(each) and each.shape == ("batch",),
        "label": lambda each: each.dtype in {"int64", "int32"} and each.shape == ("batch",),
        "size": _never,
        "guidance": _never,
    }
    done = _assign("--map", inputs, {**_named(inputs, DENOISER), **said_in}, ("latent", "time"), guesses)
    foreign = [each for each in done if each.role not in DENOISER]
    if foreign:
        raise DraftError(
            f"{', '.join(each.name for each in foreign)}: a denoiser is given {', '.join(DENOISER)}; one that reads a text is "
            "exported from its diffusers directory"
        )
    nothing = dict.fromkeys(PREDICTIONS, _never)
    made = _assign("--map", outputs, {**_named(outputs, PREDICTIONS), **said_out}, (), nothing)
    if sum(each.role in PREDICTIONS for each in made) != 1:
        names = ", ".join(each.name for each in made)
        raise DraftError(
            f"say what the model predicts: --map {made[0].name}:ROLE, one of {', '.join(PREDICTIONS)} (outputs: {names})"
        )
    return done, made


def _named(tensors: Sequence[Tensor], roles: Collection[str]) -> dict[str, str]:
    """Roles that the tensors' names tell."""
    known = {name: role for role in roles for name in _NAMED[role]}
    return {each.name: known[each.name.casefold()] for each in tensors if each.name.casefold() in known}


def assign_inputs(
    task: Task, tensors: Sequence[Tensor], said: Mapping[str, str], option: str = "--input"
) -> list[Tensor]:
    """Give every input its role. Raises DraftError, with what to say in `option`, where a needed role cannot be guessed."""
    if not tensors:
        example = "--example input=float32[batch,1,28,28]"
        raise DraftError(f"say what goes in: {example}, once per input of the module")
    done = _assign(option, tensors, said, NEEDED_INPUTS.get(task, ()), _INPUT_GUESSES.get(task, {}))
    unbatched = ", ".join(each.name for each in done if each.shape[:1] != ("batch",))
    if task in {"reconstruction", "anomaly-detection", "image-generation"} and unbatched:
        raise DraftError(f"rows are served together: the first dimension of {unbatched} must be `batch`")
    return done


def assign_outputs(
    task: Task,
    inputs: Sequence[Tensor],
    tensors: Sequence[Tensor],
    said: Mapping[str, str],
    option: str = "--output",
) -> list[Tensor]:
    """Give every output its role; one that nobody needs keeps its name. Raises DraftError as `assign_inputs` does."""
    shapes = {each.role: each.shape for each in inputs}
    guesses: dict[Task, dict[str, Guess]] = {
        "reconstruction": {
            "reconstruction": lambda tensor: _floating(tensor) and tensor.shape == shapes.get("input"),
            **dict.fromkeys(("latent", "spread", "error_map"), _never),
        },
        "image-generation": {"output": _floating},
        "text-generation": {"logits": lambda tensor: tensor.shape[:2] == ("batch", "selected")},
    }
    return _assign(option, tensors, said, NEEDED_OUTPUTS.get(task, ()), guesses.get(task, {}))


def capabilities(task: Task, roles: Collection[str]) -> tuple[Capability, ...]:
    """What a package of one graph with these roles can do."""
    if task == "reconstruction" and "latent" in roles:
        return "reconstruct", "encode", "embed"
    return (_CAPABILITIES[task],)


def _assign(
    option: str,
    tensors: Sequence[Tensor],
    said: Mapping[str, str],
    needed: Sequence[str],
    guesses: Mapping[str, Guess],
) -> list[Tensor]:
    """Roles as said, else by name, else by the guesses, tried in order; the keys of `guesses` are roles a name may be."""
    names = [each.name for each in tensors]
    unknown = sorted(said.keys() - set(names))
    if unknown or len(set(names)) < len(names):
        raise DraftError(f"{option} names {', '.join(unknown) or 'one twice'}; there are {', '.join(names)}")
    roles = {name: said.get(name, name) for name in names}
    for role, fits in guesses.items():
        free = [each for each in tensors if each.name not in said and roles[each.name] not in guesses]
        fitting = [each.name for each in free if fits(each)]
        if role not in roles.values() and len(fitting) == 1:
            roles[fitting[0]] = role
    missing = [role for role in needed if role not in roles.values()]
    if missing:
        raise DraftError(_ask(option, tensors, missing))
    if len(set(roles.values())) < len(roles):
        pairs = ", ".join(f"{name}:{role}" for name, role in roles.items())
        raise DraftError(f"two tensors have the same role: {pairs}")
    return [each.model_copy(update={"role": roles[each.name]}) for each in tensors]


def _ask(option: str, tensors: Sequence[Tensor], missing: Sequence[str]) -> str:
    found = "; ".join(f"{each.name} {each.dtype}[{', '.join(map(str, each.shape))}]" for each in tensors)
    return (
        f"this task needs a tensor with the role {', '.join(missing)}, and it cannot be guessed among {found}: "
        f"say which it is with {option} {tensors[0].name}:{missing[0]}"
    )
