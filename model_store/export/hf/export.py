"""Any supported directory becomes a package: reads what kind of model it holds and hands it to that kind's exporter."""

from pathlib import Path

from model_store.export.draft import Draft
from model_store.export.hf.decoder import export_decoder
from model_store.export.hf.directory import Directory, kind_of, read_directory
from model_store.export.hf.encoder import GRAPH, draft, exclusive
from model_store.export.hf.encoder_decoder import export_encoder_decoder
from model_store.export.hf.encoder_rounding import round_encoder
from model_store.export.hf.options import Options
from model_store.export.publish import Runs, publish
from model_store.export.witness import NOBODY, Witness
from model_store.manifest import Manifest


def export_directory(path: Path, store_url: str, options: Options, witness: Witness = NOBODY) -> Manifest:
    """Export a local Hugging Face directory and publish it as the next version of `options.name`.

    Raises ExportError (see its tree), or PackageError from the store.
    """
    directory = read_directory(path)
    kind = kind_of(directory)
    if kind == "decoder":
        return export_decoder(path, store_url, options, witness)
    if kind == "encoder-decoder":
        return export_encoder_decoder(path, store_url, options, witness)
    return _export_encoder(directory, store_url, options, witness)


def _export_encoder(directory: Directory, store_url: str, options: Options, witness: Witness) -> Manifest:
    def refine(made: Draft, runs: Runs) -> tuple[Draft, Runs]:
        made, run = round_encoder(made, runs[GRAPH], options, witness, exclusive=exclusive(directory))
        return made, {GRAPH: run}

    return publish(draft(directory, options), store_url, witness, refine if options.rounds else None)
