"""What a PEFT adapter's directory says of itself. Reads JSON, no tensors; imports no torch."""

from pathlib import Path
from typing import Any, Final

from model_store.export.errors import DraftError
from model_store.export.hf.directory import read_json

WEIGHTS: Final = "adapter_model.safetensors"
_UNKNOWN: Final = (
    "use_dora",
    "bias",
    "modules_to_save",
    "alpha_pattern",
    "rank_pattern",
    "layer_replication",
)
_NOTHING: Final[tuple[object, ...]] = (None, False, "none", [], {}, "")


def check_adapter(path: Path) -> dict[str, Any]:
    """Read the adapter's configuration. Raises DraftError for what is no plain LoRA."""
    if not (path / "adapter_config.json").is_file():
        raise DraftError(f"{path.name!r} is no adapter: it has no adapter_config.json")
    config = dict(read_json(path / "adapter_config.json"))
    if config.get("peft_type") != "LORA":
        raise DraftError(f"the adapter is {config.get('peft_type')!s:.20}, where only LORA can be merged")
    used = [name for name in _UNKNOWN if config.get(name) not in _NOTHING]
    if used:
        raise DraftError(f"the adapter uses {', '.join(used)}, which merging does not know")
    if not (path / WEIGHTS).is_file():
        raise DraftError(f"the adapter has no {WEIGHTS}; pickled adapters are never read")
    return config
