"""A local diffusers directory becomes a package: read, exported graph by graph, compared picture by picture, published."""

from collections.abc import Callable
from pathlib import Path

from model_store.export.diffusers.directory import read_pipeline
from model_store.export.diffusers.draft import make_draft, sizes_of
from model_store.export.diffusers.options import Options
from model_store.export.diffusers.proof import prove
from model_store.export.diffusers.scheduler import read_solving, shifts_by_size
from model_store.export.diffusers.words import read_words
from model_store.export.draft import check_name
from model_store.export.publish import publish
from model_store.export.witness import NOBODY, Witness
from model_store.manifest import Manifest
from model_store.store import Package


def export_pipeline(
    path: Path,
    store_url: str,
    options: Options,
    witness: Witness = NOBODY,
    tell: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Publish the pipeline as the next version of `options.name`; `tell` gets what is not served as the directory says, in sentences.

    Nothing is published unless every graph gives torch's numbers, and all of them together the picture that diffusers makes of the
    same noise. Raises ExportError (see its tree), or PackageError from the store.
    """
    check_name(options.name)
    pipeline = read_pipeline(path)
    sizes = sizes_of(pipeline, options)
    solving = read_solving(pipeline, sizes[0])
    for note in solving.notes:
        tell(note)
    if shifts_by_size(pipeline) and len(sizes) > 1:
        tell(f"pictures of every size are shifted towards noise as those of {sizes[0][0]}x{sizes[0][1]} are")
    draft = make_draft(pipeline, read_words(pipeline), solving, sizes, options)

    def check(package: Package) -> None:
        witness.step("compare a picture with diffusers")
        prove(path, package, witness, exact=solving.exact, rounded=options.precision != "fp32")

    return publish(draft, store_url, witness, check=check)
