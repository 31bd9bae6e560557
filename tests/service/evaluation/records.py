"""Small evaluations, made by hand."""

from datetime import UTC, datetime
from typing import Any

from deployments.evaluation.record import Curve, Data, Evaluation, Figure, Model, Plot


def figure(value: float, *, better: bool | None = True, spread: float = 0.01, sampling: str = "s") -> Figure:
    return Figure(
        value=value,
        low=value - spread,
        high=value + spread,
        higher_is_better=better,
        about="how <well>",
        sampling=sampling,
        replicates=tuple(value + spread * step / 10 for step in range(-10, 11)),
    )


def record(
    figures: dict[str, Figure], *, version: str = "1", digest: str = "0", data: str = "0", **fields: Any
) -> Evaluation:
    seal = "sha256:" + digest * 64
    curve = Curve(name="a<b", x=(0.0, 0.5, 1.0), y=(0.0, 0.8, 1.0))
    return Evaluation(
        created=datetime(2026, 1, 1, tzinfo=UTC),
        seconds=1.5,
        model=Model(
            name="tiny",
            version=version,
            digest=seal,
            task="reconstruction",
            family="autoencoder",
            description="A <b>tiny</b> one",
        ),
        data=Data(name="items", digest="sha256:" + data * 64, items=7, groups={"good": 7}),
        settings={"seed": "0"},
        environment={"cores": "2"},
        figures=figures,
        plots=(
            Plot(title="ROC", x="x", y="y", curves=(curve, curve), unit_square=True, diagonal=True),
            Plot(title="Scores", x="x", y="y", curves=(curve,), kind="area", marks={"threshold": 0.9}),
        ),
        **fields,
    )
