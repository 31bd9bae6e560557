"""The options of `atelier export`, as typer declares them."""

from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

import typer

from model_store.export.diffusers.options import Precision as PicturePrecision
from model_store.export.hf.options import Cache, Precision, Target
from model_store.manifest import Family, Task

GRAPH: Final = "The graph"
PACKAGE: Final = "The package"
ORIGIN: Final = "Where the weights come from"
PRECISION: Final = "Precision"
PICTURES: Final = "Pictures"

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
TaskWord: TypeAlias = Literal[Task, "anomaly-score"]
TaskOption: TypeAlias = Annotated[
    TaskWord,
    typer.Option(
        "--task",
        rich_help_panel=PACKAGE,
        help="What the model does; anomaly-score is another word for anomaly-detection.",
    ),
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
PictureSize: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--size",
        metavar="WxH",
        rich_help_panel=PICTURES,
        help="A size beside the model's own, in pixels: 768x512. May be repeated. A graph whose own size varies needs it.",
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
DirectoryPipeline: TypeAlias = Annotated[
    Path, typer.Argument(metavar="DIR", help="A pipeline's local directory: model_index.json and its parts.")
]
PicturePrecisionOption: TypeAlias = Annotated[
    PicturePrecision,
    typer.Option(
        "--precision",
        rich_help_panel=PRECISION,
        help="fp16 keeps weights in 16 bits; everything is computed in 32.",
    ),
]
GraphFile: TypeAlias = Annotated[
    Path, typer.Argument(metavar="FILE.onnx", help="A graph made elsewhere, its weights beside it.")
]
Roles: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--map", rich_help_panel=GRAPH, help="Role of an input or output, as name:role."),
]
BetasOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--betas",
        rich_help_panel=PICTURES,
        help="What a diffusion model was trained with: schedule:first:last.",
    ),
]
Guidance: TypeAlias = Annotated[
    float,
    typer.Option(
        min=1,
        max=20,
        rich_help_panel=PICTURES,
        help="Scale of guidance by default. Above 1 the graph must know the class behind the last one: none.",
    ),
]
StepCount: TypeAlias = Annotated[
    int,
    typer.Option("--steps", min=1, max=100, rich_help_panel=PICTURES, help="Steps of a picture by default."),
]
Adapter: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        rich_help_panel=GRAPH,
        metavar="[NAME=]DIR",
        help="PEFT directory of a LoRA: merged into the weights, or with a name chosen by requests for model:name. May be repeated.",
    ),
]
Decoder: TypeAlias = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=GRAPH,
        help="Decoder of an autoencoder whose --method encodes: another method, or MODULE:FACTORY.",
    ),
]
DecoderWeights: TypeAlias = Annotated[
    Path | None, typer.Option(rich_help_panel=GRAPH, help="Weights of a decoder that has its own factory.")
]
DecoderFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--decoder",
        rich_help_panel=GRAPH,
        metavar="FILE.onnx",
        help="Decoder of an autoencoder of which FILE is the encoder.",
    ),
]
CalibrationItems: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--calibration",
        rich_help_panel=PACKAGE,
        metavar="DATA.npz",
        help="Items X that the model was not trained on, normal ones or with labels y (0 normal, 1 anomaly): the package scores "
        "anomalies, by errors of reconstruction where it has no score of its own.",
    ),
]


def task_of(word: TaskWord) -> Task:
    """The manifest's word for a task."""
    return "anomaly-detection" if word == "anomaly-score" else word
