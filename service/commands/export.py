"""`atelier export`: options in, a published package and its comparison with what it was made from out."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from model_store.export import graph_process
from model_store.export.diffusers.options import Options as PipelineOptions
from model_store.export.draft import Draft
from model_store.export.errors import DraftError
from model_store.export.hf.options import Options as DirectoryOptions
from model_store.export.options import NOT_STATED, Options, complete, graph_draft
from model_store.manifest import Manifest
from service.commands.export_options import (
    Adapter,
    Attribution,
    BetasOption,
    Block,
    CalibrationItems,
    CalibrationText,
    Cases,
    ClassName,
    Context,
    Data,
    DataLicence,
    Decoder,
    DecoderFile,
    DecoderWeights,
    Description,
    DirectoryArgument,
    DirectoryPipeline,
    Example,
    Factory,
    FamilyOption,
    GraphFile,
    Guidance,
    Home,
    Input,
    KvCache,
    Licence,
    MaxKl,
    Method,
    Name,
    Oracle,
    OutputOption,
    PicturePrecisionOption,
    PictureSize,
    PrecisionOption,
    Roles,
    Size,
    StepCount,
    StoreOption,
    TargetOption,
    TaskOption,
    Tokenizer,
    Weights,
    task_of,
)
from service.commands.publishing import (
    Steps,
    clear_errors,
    parity_table,
    publish,
    published,
    quality_table,
    store_address,
)
from service.settings import set_environment

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def _group() -> None:
    """Turn a trained model into a package."""


@app.command()
def torch(  # noqa: PLR0917 - each argument is one option of the command
    factory: Factory,
    name: Name,
    task: TaskOption,
    family: FamilyOption,
    example: Example = None,
    weights: Weights = None,
    store: StoreOption = None,
    method: Method = "forward",
    input_roles: Input = None,
    output_roles: OutputOption = None,
    size: Size = None,
    cases: Cases = None,
    oracle: Oracle = None,
    class_name: ClassName = None,
    tokenizer: Tokenizer = None,
    context: Context = None,
    decoder: Decoder = None,
    decoder_weights: DecoderWeights = None,
    calibration: CalibrationItems = None,
    description: Description = "",
    licence: Licence = NOT_STATED,
    data: Data = NOT_STATED,
    data_licence: DataLicence = NOT_STATED,
    attribution: Attribution = NOT_STATED,
    home: Home = NOT_STATED,
) -> None:
    """Export any torch.nn.Module to ONNX, prove that it computes the same, and publish it.

    Roles are taken from the tensors' names, or guessed where only one guess is possible; else the command says what to add.
    """
    options = Options(
        factory, name, task_of(task), family, tuple(example or ()),
        weights=weights, method=method, inputs=tuple(input_roles or ()), outputs=tuple(output_roles or ()),
        sizes=tuple(size or ()), cases=cases, oracle=oracle, class_names=tuple(class_name or ()),
        tokenizer=tokenizer, context=context, decoder=decoder, decoder_weights=decoder_weights, calibration=calibration,
        description=description, licence=licence, data=data, data_licence=data_licence, attribution=attribution, home=home,
    )  # fmt: skip

    def work(address: str, steps: Steps) -> Manifest:
        return publish(describe(options, steps), address, steps, calibration=calibration)

    run(store, name, work, "ONNX Runtime beside torch", "relative error")


@app.command()
def hf(  # noqa: PLR0917 - each argument is one option of the command
    directory: DirectoryArgument,
    name: Name,
    precision: PrecisionOption = "fp32",
    device: TargetOption = "cpu",
    context: Context = None,
    adapter: Adapter = None,
    block: Block = 128,
    max_kl: MaxKl = None,
    calibration: CalibrationText = None,
    kv_cache: KvCache = "float",
    store: StoreOption = None,
    description: Description = "",
    licence: Licence = NOT_STATED,
    data: Data = NOT_STATED,
    data_licence: DataLicence = NOT_STATED,
    attribution: Attribution = NOT_STATED,
    home: Home = NOT_STATED,
) -> None:
    """Export a local Hugging Face directory, prove that it computes what transformers does, and publish it.

    Decoders (Llama, Qwen, Mistral, Phi, Gemma, GPT-2, ...), encoder-decoders (T5, Marian, BART), encoders (BERT, MiniLM).

    Nothing is downloaded, no code of the directory runs, and no pickle is read.
    """
    with clear_errors(Console(stderr=True, highlight=False)):
        merged, adapters = split_adapters(adapter or ())
    options = DirectoryOptions(
        name, precision, device, context, merged, block, max_kl, calibration, kv_cache, adapters=adapters,
        description=description, licence=licence, data=data, data_licence=data_licence, attribution=attribution, home=home,
    )  # fmt: skip

    def work(address: str, steps: Steps) -> Manifest:
        set_environment({"ORT_DISABLE_TELEMETRY": "1"})  # before the import
        from model_store.export.hf.export import export_directory

        return export_directory(directory, address, options, steps.witness)

    run(store, name, work, "The package beside transformers")


@app.command()
def diffusers(  # noqa: PLR0917 - each argument is one option of the command
    directory: DirectoryPipeline,
    name: Name,
    precision: PicturePrecisionOption = "fp32",
    size: PictureSize = None,
    store: StoreOption = None,
    description: Description = "",
    licence: Licence = NOT_STATED,
    data: Data = NOT_STATED,
    data_licence: DataLicence = NOT_STATED,
    attribution: Attribution = NOT_STATED,
    home: Home = NOT_STATED,
) -> None:
    """Export a local diffusers directory, prove that it draws what diffusers does, and publish it.

    Stable Diffusion 1 and 2, Stable Diffusion XL, Stable Diffusion 3, Flux, and unconditional DDPM pipelines.

    Nothing is downloaded, no code of the directory runs, and no pickle is read.
    """
    console = Console(highlight=False)
    options = PipelineOptions(
        name, precision, tuple(size or ()),
        description=description, licence=licence, data=data, data_licence=data_licence, attribution=attribution, home=home,
    )  # fmt: skip

    def work(address: str, steps: Steps) -> Manifest:
        set_environment({"ORT_DISABLE_TELEMETRY": "1"})  # before the import
        from model_store.export.diffusers.export import export_pipeline

        def tell(note: str) -> None:
            console.print(f"[yellow]![/] {escape(note)}", soft_wrap=True)

        return export_pipeline(directory, address, options, steps.witness, tell)

    run(store, name, work, "The package beside diffusers")


@app.command()
def onnx(  # noqa: PLR0917 - each argument is one option of the command
    file: GraphFile,
    name: Name,
    task: TaskOption,
    mapping: Roles = None,
    tokenizer: Tokenizer = None,
    context: Context = None,
    class_name: ClassName = None,
    size: PictureSize = None,
    betas: BetasOption = "linear:0.0001:0.02",
    guidance: Guidance = 1.0,
    step_count: StepCount = 20,
    decoder: DecoderFile = None,
    calibration: CalibrationItems = None,
    store: StoreOption = None,
    description: Description = "",
    licence: Licence = NOT_STATED,
    data: Data = NOT_STATED,
    data_licence: DataLicence = NOT_STATED,
    attribution: Attribution = NOT_STATED,
    home: Home = NOT_STATED,
) -> None:
    """Publish an ONNX graph that was made elsewhere, if it runs and its rows do not depend on each other.

    For text-generation a decoder; for image-generation a denoiser, or what draws a picture of noise in one step; for
    reconstruction an autoencoder, or its encoder with --decoder; for anomaly-detection what gives scores or a map.

    Roles are guessed from names, types and shapes and shown; where one cannot be guessed, the command says what to add.
    """
    console = Console(highlight=False)

    def work(address: str, steps: Steps) -> Manifest:
        set_environment({"ORT_DISABLE_TELEMETRY": "1"})  # before the import
        from model_store.export.foreign import Options as ForeignOptions
        from model_store.export.foreign import export_graph
        from model_store.export.foreign_pictures import Pictures

        options = ForeignOptions(
            name, task_of(task), tuple(mapping or ()), tokenizer, context,
            Pictures(tuple(class_name or ()), tuple(size or ()), betas, guidance, step_count),
            calibration, decoder,
            description=description, licence=licence, data=data, data_licence=data_licence, attribution=attribution, home=home,
        )  # fmt: skip
        return export_graph(
            file, address, options, steps.witness, lambda roles: console.print(roles_table(roles))
        )

    run(store, name, work, "Rows together beside rows alone")


def split_adapters(given: Sequence[str]) -> tuple[Path | None, dict[str, Path]]:
    """The adapter to merge, and those that have names. Raises DraftError."""
    merged: list[Path] = []
    named: dict[str, Path] = {}
    for each in given:
        name, equals, path = each.partition("=")
        if not equals:
            merged.append(Path(each))
        elif name in named:
            raise DraftError(f"--adapter {name}: the name is given twice")
        else:
            named[name] = Path(path)
    if len(merged) > 1:
        raise DraftError("only one adapter is merged: give the others names, --adapter NAME=DIR")
    return next(iter(merged), None), named


def run(
    store: str | None, name: str, work: Callable[[str, Steps], Manifest], title: str, error: str = "error"
) -> None:
    """Do the work with its steps in view, then print its figures, what is measured of the package, and where it went."""
    console, errors = Console(highlight=False), Console(stderr=True, highlight=False)
    with clear_errors(errors):
        address = store_address(store, name)
        with Steps(console) as steps:
            manifest = work(address, steps)
        console.print(parity_table(steps.figures, title, error))
        if manifest.quality:
            console.print(quality_table(manifest.quality))
        console.print(published(manifest, address), soft_wrap=True)


def roles_table(roles: Mapping[str, tuple[str, str]]) -> Table:
    """Each tensor's name, its type and shape, and the role it has been given; of the layers' states the first one's."""
    table = Table(
        "tensor", "type", "role", title="Roles (change one with --map name:role)", title_justify="left"
    )
    for tensor, (kind, role) in roles.items():
        if not role.startswith(("past_key_values.", "present.")) or ".0." in role:
            table.add_row(escape(tensor), escape(kind), escape(role))
    return table


def describe(options: Options, steps: Steps) -> Draft:
    """Run the module once to see what it returns, and make the draft. Raises ExportError."""
    graph = graph_draft(options)
    graph_process.check_tools()
    steps.step("run the module in torch")
    with tempfile.TemporaryDirectory(prefix="atelier-export-") as work:
        run = graph_process.run_torch(graph, Path(work), only_run=True, on_stage=steps.stage)
        return complete(options, graph, run)
