"""`atelier export`: options in, a published package and its comparison with what it was made from out."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final, TypeAlias

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from model_store.export import graph_process
from model_store.export.draft import Draft
from model_store.export.errors import DraftError
from model_store.export.hf.options import Cache, Precision, Target
from model_store.export.hf.options import Options as DirectoryOptions
from model_store.export.options import NOT_STATED, Options, complete, graph_draft
from model_store.manifest import Family, Manifest, Task
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

GRAPH: Final = "The graph"
PACKAGE: Final = "The package"
ORIGIN: Final = "Where the weights come from"
PRECISION: Final = "Precision"

Factory: TypeAlias = Annotated[
    str, typer.Argument(metavar="MODULE:FACTORY", help="What returns the torch.nn.Module, without arguments.")
]
Example: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        rich_help_panel=GRAPH,
        help="An input, in the module's order: input=float32\\[batch,1,28,28], with its range as "
        "ids=int64\\[batch,time]:0..99 (both ends included). Named dimensions may vary.",
    ),
]
Weights: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        rich_help_panel=GRAPH, help="safetensors, or a state dict. Without: as the factory made it."
    ),
]
Method: TypeAlias = Annotated[str, typer.Option(rich_help_panel=GRAPH, help="Method that becomes the graph.")]
Input: TypeAlias = Annotated[
    list[str] | None, typer.Option("--input", rich_help_panel=GRAPH, help="Role of an input, as name:role.")
]
OutputOption: TypeAlias = Annotated[
    list[str] | None, typer.Option("--output", rich_help_panel=GRAPH, help="Role of an output, as name:role.")
]
Size: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(rich_help_panel=GRAPH, help="Two sizes of a named dimension to compare at: time=16,32."),
]
Cases: TypeAlias = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=GRAPH, help="module:function that returns the inputs to compare on, as dicts."
    ),
]
Oracle: TypeAlias = Annotated[
    str | None,
    typer.Option(rich_help_panel=GRAPH, help="module:factory of another module that says what is right."),
]
Name: TypeAlias = Annotated[str, typer.Option(rich_help_panel=PACKAGE, help="Name to publish under.")]
TaskOption: TypeAlias = Annotated[
    Task, typer.Option("--task", rich_help_panel=PACKAGE, help="What the model does.")
]
FamilyOption: TypeAlias = Annotated[
    Family, typer.Option("--family", rich_help_panel=PACKAGE, help="What kind of model it is.")
]
StoreOption: TypeAlias = Annotated[
    str | None, typer.Option("--store", rich_help_panel=PACKAGE, help="Folder or any fsspec URL.")
]
ClassName: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(rich_help_panel=PACKAGE, help="Name of a class, in the order of their numbers."),
]
Tokenizer: TypeAlias = Annotated[
    Path | None, typer.Option(rich_help_panel=PACKAGE, help="tokenizer.json of a text model.")
]
Context: TypeAlias = Annotated[
    int | None, typer.Option(min=1, rich_help_panel=PACKAGE, help="Most tokens of prompt and answer.")
]
Description: TypeAlias = Annotated[
    str, typer.Option(rich_help_panel=PACKAGE, help="One sentence for the model card.")
]
Licence: TypeAlias = Annotated[str, typer.Option(rich_help_panel=PACKAGE, help="Licence of the weights.")]
Data: TypeAlias = Annotated[str, typer.Option(rich_help_panel=ORIGIN, help="Data it was trained on.")]
DataLicence: TypeAlias = Annotated[str, typer.Option(rich_help_panel=ORIGIN, help="Licence of the data.")]
Attribution: TypeAlias = Annotated[str, typer.Option(rich_help_panel=ORIGIN, help="Who is to be named.")]
Home: TypeAlias = Annotated[str, typer.Option(rich_help_panel=ORIGIN, help="Where the data is published.")]

DirectoryArgument: TypeAlias = Annotated[
    Path,
    typer.Argument(
        metavar="DIR", help="A model's local directory: config.json, safetensors, tokenizer.json."
    ),
]
PrecisionOption: TypeAlias = Annotated[
    Precision,
    typer.Option(
        "--precision",
        rich_help_panel=PRECISION,
        help="int8 and int4 round weights in blocks; fp16 and bf16 keep them in 16 bits. For CUDA fp16, int8 and int4 compute in "
        "float16 (decoders only); bf16 is for the CPU.",
    ),
]
TargetOption: TypeAlias = Annotated[
    Target, typer.Option("--device", rich_help_panel=PRECISION, help="Where the package will run.")
]
Block: TypeAlias = Annotated[
    int, typer.Option(rich_help_panel=PRECISION, help="Weights that share a scale: 16, 32, 64, 128 or 256.")
]
MaxKl: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--max-kl",
        min=0,
        rich_help_panel=PRECISION,
        help="Most that rounding may cost, in nats a token (KL from float32). "
        "Without: 0.01 (fp16), 0.02 (bf16), 0.05 (int8, and an int8 cache), 0.5 (int4). "
        "For embeddings 1 - cosine: 0.001, 0.002, 0.01, 0.05.",
    ),
]
CalibrationText: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--calibration",
        rich_help_panel=PRECISION,
        help="Text to measure that on. Without: texts that the model itself writes; for encoders random ones.",
    ),
]
KvCache: TypeAlias = Annotated[
    Cache,
    typer.Option(
        "--kv-cache",
        rich_help_panel=PRECISION,
        help="Keys and values of a decoder as it computes them, or in 8 bits: a quarter of the memory, at a cost that is measured.",
    ),
]
Adapter: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        rich_help_panel=GRAPH,
        metavar="[NAME=]DIR",
        help="PEFT directory of a LoRA: merged into the weights, or with a name chosen by requests for model:name. May be repeated.",
    ),
]

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
        factory, name, task, family, tuple(example or ()),
        weights=weights, method=method, inputs=tuple(input_roles or ()), outputs=tuple(output_roles or ()),
        sizes=tuple(size or ()), cases=cases, oracle=oracle, class_names=tuple(class_name or ()),
        tokenizer=tokenizer, context=context, description=description, licence=licence,
        data=data, data_licence=data_licence, attribution=attribution, home=home,
    )  # fmt: skip

    def work(address: str, steps: Steps) -> Manifest:
        return publish(describe(options, steps), address, steps)

    run(store, work, "ONNX Runtime beside torch", "relative error")


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

    run(store, work, "The package beside transformers")


@app.command()
def onnx(  # noqa: PLR0917 - each argument is one option of the command
    file: Annotated[
        Path, typer.Argument(metavar="FILE.onnx", help="A graph made elsewhere, its weights beside it.")
    ],
    name: Name,
    task: TaskOption,
    mapping: Annotated[
        list[str] | None,
        typer.Option("--map", rich_help_panel=GRAPH, help="Role of an input or output, as name:role."),
    ] = None,
    tokenizer: Tokenizer = None,
    context: Context = None,
    store: StoreOption = None,
    description: Description = "",
    licence: Licence = NOT_STATED,
    data: Data = NOT_STATED,
    data_licence: DataLicence = NOT_STATED,
    attribution: Attribution = NOT_STATED,
    home: Home = NOT_STATED,
) -> None:
    """Publish an ONNX graph that was made elsewhere, if it runs and its rows do not depend on each other.

    Roles are guessed from names, types and shapes and shown; where one cannot be guessed, the command says what to add.
    """
    console = Console(highlight=False)

    def work(address: str, steps: Steps) -> Manifest:
        set_environment({"ORT_DISABLE_TELEMETRY": "1"})  # before the import
        from model_store.export.foreign import Options as ForeignOptions
        from model_store.export.foreign import export_graph

        options = ForeignOptions(
            name, task, tuple(mapping or ()), tokenizer, context,
            description=description, licence=licence, data=data, data_licence=data_licence, attribution=attribution, home=home,
        )  # fmt: skip
        return export_graph(
            file, address, options, steps.witness, lambda roles: console.print(roles_table(roles))
        )

    run(store, work, "Rows together beside rows alone")


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


def run(store: str | None, work: Callable[[str, Steps], Manifest], title: str, error: str = "error") -> None:
    """Do the work with its steps in view, then print its figures, what is measured of the package, and where it went."""
    console, errors = Console(highlight=False), Console(stderr=True, highlight=False)
    with clear_errors(errors):
        address = store_address(store)
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
