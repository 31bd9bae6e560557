"""A pipeline's graphs and what the manifest says of its pictures. Reads configuration only; the modules are in `modules`."""

from collections.abc import Mapping
from typing import Final

from pydantic import ValidationError

from model_store.export.diffusers.directory import VAE, Pipeline
from model_store.export.diffusers.options import Options, Size, parse_size
from model_store.export.diffusers.scheduler import TRAINED, Solving
from model_store.export.diffusers.words import Words
from model_store.export.draft import Draft, GraphDraft, Range, tensor
from model_store.export.errors import DraftError
from model_store.imaging import Denoise, Image
from model_store.manifest import Tensor

MODULES: Final = "model_store.export.diffusers.modules"
MOST_GUIDANCE: Final = 20.0
# Of a Flux that was distilled to a few steps and is not guided.
_FEW_STEPS: Final = 4
_FLUX_SIDE: Final = 128
_SIDES: Final = ("height", "width")


def sizes_of(pipeline: Pipeline, options: Options) -> list[Size]:
    """The model's own size, then the others. Raises DraftError for one that it cannot make."""
    side = pipeline.denoiser.get("sample_size") or _FLUX_SIDE
    height, width = (side, side) if isinstance(side, int) else side
    own = (width * pipeline.reduction, height * pipeline.reduction)
    sizes = list(dict.fromkeys([own, *map(parse_size, options.sizes)]))
    for size in sizes[1:]:
        if any(each % pipeline.multiple for each in size):
            raise DraftError(
                f"--size {size[0]}x{size[1]}: width and height must be multiples of {pipeline.multiple}"
            )
    most = int(pipeline.denoiser.get("pos_embed_max_size") or 0) * pipeline.multiple
    for size in sizes:
        if most and max(size) > most:
            raise DraftError(f"--size {size[0]}x{size[1]}: the model knows places up to {most}")
    return sizes


def make_draft(
    pipeline: Pipeline, words: Words, solving: Solving, sizes: list[Size], options: Options
) -> Draft:
    """Everything the manifest says. Raises DraftError."""
    layout = pipeline.layout
    latents = VAE in pipeline.configs
    return Draft(
        name=options.name,
        task="image-generation",
        family="flow" if layout.flow else "diffusion",
        capabilities=(
            "generate_image",
            "edit_image",
            *(("encode", "decode", "interpolate") if layout.flow else ()),
        ),
        description=options.description
        or f"{layout.title}, exported from a diffusers directory: pictures {'of a text' if words.prompts else 'of noise'}.",
        licence=options.licence,
        provenance=options.provenance("made elsewhere, exported from a diffusers directory"),
        graphs={
            "denoise": _denoise(pipeline, words, sizes, options),
            **({"condition": _condition(pipeline, words, options)} if words.prompts else {}),
            **(_pictures(pipeline, options) if latents else {}),
        },
        files=words.files,
        image=_image(pipeline, words, solving, sizes),
    )


def guided(pipeline: Pipeline) -> bool:
    """Whether the denoiser takes how much it is to be guided."""
    return bool(pipeline.denoiser.get("guidance_embeds"))


def _image(pipeline: Pipeline, words: Words, solving: Solving, sizes: list[Size]) -> Image:
    layout, most = pipeline.layout, int(solving.fields["most_steps"])
    distilled = layout.name == "flux" and not guided(pipeline)
    unguided = distilled or not words.prompts
    try:
        denoise = Denoise(
            **solving.fields,
            steps=min(_FEW_STEPS if distilled else layout.steps, most),
            guidance=1.0 if unguided else layout.guidance,
            most_guidance=1.0 if unguided else MOST_GUIDANCE,
            sizes=tuple(sizes[1:]),
            reduction=pipeline.reduction,
        )
        channels = int(
            pipeline.configs[VAE]["out_channels"] if VAE in pipeline.configs else pipeline.channels
        )
        return Image(
            channels=channels,  # type: ignore[arg-type]  # checked by it
            width=sizes[0][0],
            height=sizes[0][1],
            classes=tuple(map(str, range(pipeline.denoiser.get("num_class_embeds") or 0))),
            denoise=denoise,
            prompt=words.prompts,
        )
    except ValidationError as error:
        raise DraftError(f"this cannot be said of pictures: {error.errors()[0]['msg']}") from error


def _denoise(pipeline: Pipeline, words: Words, sizes: list[Size], options: Options) -> GraphDraft:
    sides: list[int | str] = [sizes[0][1] // pipeline.reduction, sizes[0][0] // pipeline.reduction]
    varying = _varying(pipeline) if len(sizes) > 1 else {}
    latent = ("batch", pipeline.channels, *(varying or sides))
    flow = pipeline.layout.flow
    conditions = {each.role: each for each in _conditions(pipeline, words)}
    takes = [conditions[role] for role in pipeline.layout.takes if role in conditions]
    if "size" in pipeline.layout.takes:
        takes.append(tensor("size", "float32", "batch", 2))
    if guided(pipeline):
        takes.append(tensor("guidance", "float32", "batch"))
    classes = pipeline.denoiser.get("num_class_embeds") or 0
    if classes:
        takes.append(tensor("label", "int64", "batch"))
    trained = 1.0 if flow else float(pipeline.configs["scheduler"].get("num_train_timesteps", TRAINED) - 1)
    ranges: dict[str, Range] = {
        "time": (0.0, trained), "size": (64.0, 1024.0), "guidance": (1.0, 8.0), "label": (0, classes - 1),
    }  # fmt: skip
    prediction = "velocity" if flow else str(pipeline.configs["scheduler"].get("prediction_type", "epsilon"))
    inputs = (tensor("latent", "float32", *latent), tensor("time", "float32", "batch"), *takes)
    return _graph(
        pipeline, "denoise", options, inputs, (tensor(prediction, "float32", *latent),),
        ranges={name: each for name, each in ranges.items() if name in {one.name for one in inputs}}, sizes=varying,
    )  # fmt: skip


def _varying(pipeline: Pipeline) -> dict[str, tuple[int, int]]:
    """Two small sizes of each side to compare at; no axis has those of another."""
    step = pipeline.multiple // pipeline.reduction
    return {"height": (2 * step, 4 * step), "width": (4 * step, 6 * step)}


def _conditions(pipeline: Pipeline, words: Words) -> list[Tensor]:
    """What the graph `condition` gives."""
    if not words.prompts:
        return []
    config, lengths = pipeline.denoiser, [each.length for each in words.prompts]
    width = int(config.get("joint_attention_dim") or config["cross_attention_dim"])
    encoders = [pipeline.configs[folder] for folder, _ in pipeline.encoders]
    match pipeline.layout.name:
        case "sd":
            return [tensor("context", "float32", "batch", lengths[0], width)]
        case "sdxl":
            tokens, pooled = lengths[0], int(encoders[1]["projection_dim"])
        case "sd3":
            # Without its third encoder the model reads as many zeros.
            tokens = lengths[0] + (pipeline.layout.lengths[2] or 0)
            pooled = sum(int(each["projection_dim"]) for each in encoders[:2])
        case _:
            tokens, pooled = lengths[1], int(encoders[0]["hidden_size"])
    return [
        tensor("context", "float32", "batch", tokens, width),
        tensor("pooled", "float32", "batch", pooled),
    ]


def _condition(pipeline: Pipeline, words: Words, options: Options) -> GraphDraft:
    inputs = tuple(tensor(each.role, "int64", "batch", each.length) for each in words.prompts)
    vocabularies = [int(pipeline.configs[folder]["vocab_size"]) for folder, _ in pipeline.encoders]
    ranges: dict[str, Range] = {
        each.name: (0, size - 1) for each, size in zip(inputs, vocabularies, strict=True)
    }
    return _graph(pipeline, "condition", options, inputs, tuple(_conditions(pipeline, words)), ranges=ranges)


def _pictures(pipeline: Pipeline, options: Options) -> dict[str, GraphDraft]:
    """From latents to pictures and back, of any size."""
    channels, colours = pipeline.channels, int(pipeline.configs[VAE]["out_channels"])
    small = tensor("latent", "float32", "batch", channels, *_SIDES)
    large = [f"picture_{side}" for side in _SIDES]
    each = pipeline.reduction
    return {
        "decode": _graph(
            pipeline, "decode", options, (small,), (tensor("output", "float32", "batch", colours, *large),),
            sizes={"height": (4, 6), "width": (6, 8)},
        ),
        "encode": _graph(
            pipeline, "encode", options, (tensor("input", "float32", "batch", colours, *large),), (small,),
            ranges={"input": (0.0, 1.0)}, sizes={large[0]: (4 * each, 6 * each), large[1]: (6 * each, 8 * each)},
        ),
    }  # fmt: skip


def _graph(
    pipeline: Pipeline,
    name: str,
    options: Options,
    inputs: tuple[Tensor, ...],
    outputs: tuple[Tensor, ...],
    ranges: Mapping[str, Range] | None = None,
    sizes: Mapping[str, tuple[int, int]] | None = None,
) -> GraphDraft:
    return GraphDraft(
        factory=f"{MODULES}:{name}",
        inputs=inputs,
        outputs=outputs,
        source=pipeline.path,
        ranges=ranges or {},
        sizes=sizes or {},
        stored="float16" if options.precision == "fp16" else "float32",
    )
