"""`atelier export`: options in, a published package and its comparison with torch out."""

import tempfile
from pathlib import Path
from typing import Annotated, Final, TypeAlias

import typer
from rich.console import Console

from model_store.export import graph_process
from model_store.export.draft import Draft
from model_store.export.options import NOT_STATED, Options, complete, graph_draft
from model_store.manifest import Family, Task
from service.commands.publishing import Steps, clear_errors, parity_table, publish, published, store_address

GRAPH: Final = "The graph"
PACKAGE: Final = "The package"
ORIGIN: Final = "Where the weights come from"

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
    console, errors = Console(highlight=False), Console(stderr=True, highlight=False)
    with clear_errors(errors):
        address = store_address(store)
        options = Options(
            factory, name, task, family, tuple(example or ()),
            weights=weights, method=method, inputs=tuple(input_roles or ()), outputs=tuple(output_roles or ()),
            sizes=tuple(size or ()), cases=cases, oracle=oracle, class_names=tuple(class_name or ()),
            tokenizer=tokenizer, context=context, description=description, licence=licence,
            data=data, data_licence=data_licence, attribution=attribution, home=home,
        )  # fmt: skip
        with Steps(console) as steps:
            manifest = publish(describe(options, steps), address, steps)
        console.print(parity_table(steps.figures))
        console.print(published(manifest, address), soft_wrap=True)


def describe(options: Options, steps: Steps) -> Draft:
    """Run the module once to see what it returns, and make the draft. Raises ExportError."""
    graph = graph_draft(options)
    graph_process.check_tools()
    steps.step("run the module in torch")
    with tempfile.TemporaryDirectory(prefix="atelier-export-") as work:
        run = graph_process.run_torch(graph, Path(work), only_run=True, on_stage=steps.stage)
        return complete(options, graph, run)
