"""Where the recipes' data comes from, as manifests name it. Knows no model and reads no file."""

from dataclasses import dataclass

from torch import nn

from model_store.manifest import Provenance


@dataclass(frozen=True)
class DataSource:
    """Public data: what it is, its licence, who is to be named, and where it is published."""

    data: str
    licence: str
    attribution: str
    home: str

    def provenance(self, model: nn.Module, recipe: str, *, seed: int, steps: int) -> Provenance:
        """Name the data's source and the recipe, `module` of the zoo, that a model comes from."""
        return Provenance(
            data=self.data,
            data_licence=self.licence,
            attribution=self.attribution,
            home=self.home,
            recipe=recipe,
            seed=seed,
            steps=steps,
            parameters=sum(each.numel() for each in model.parameters()),
        )
