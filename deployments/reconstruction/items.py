"""Which program works on requests of a model's items: pictures and tensors, table rows, or series."""

from collections.abc import Callable

from deployments.reconstruction.features import Features
from deployments.reconstruction.series import Serial
from deployments.reconstruction.tables import Tables
from deployments.reconstruction.tasks import Autoencoding
from deployments.reconstruction.windows import Windows
from model_store.manifest import READERS, Manifest

Program = Autoencoding | Tables | Serial


def programs(manifest: Manifest, rows: Autoencoding, most_rows: int) -> Callable[[], Program]:
    """Makes the program of one request, which has at most so many rows at once."""
    taken = {
        name: {each.role: each.shape for each in manifest.graphs[name].inputs}
        for name in READERS
        if name in manifest.graphs
    }
    missing = any("known" in roles for roles in taken.values())
    if manifest.table:
        features = Features(manifest.table, missing=missing)
        noise = taken.get("reconstruct", {}).get("noise", (0,))[-1]
        return lambda: Tables(rows, features, int(noise))
    if manifest.series:
        windows = Windows(manifest.series, f"{manifest.name}:{manifest.version}", missing=missing)
        return lambda: Serial(rows, windows, most_rows)
    return lambda: rows
