"""What a manifest says of pictures: how they are made in steps, asked for in words, and edited."""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from model_store.fields import Part, Positive, RelativePath

EditTask = Literal["inpaint", "colorize", "upscale", "denoise", "translate"]


class Betas(Part):
    """How a diffusion model was trained to add noise: variances from `start` to `end` at each of `trained` times.

    `scaled_linear`: their roots are evenly spaced. `zero_snr`: rescaled so that nothing is left at the last time.
    """

    schedule: Literal["linear", "scaled_linear"]
    start: Annotated[float, Field(gt=0, lt=1)]
    end: Annotated[float, Field(gt=0, lt=1)]
    trained: Annotated[int, Field(ge=1, le=100_000)] = 1000
    zero_snr: bool = False

    @model_validator(mode="after")
    def _grow(self) -> Self:
        if self.start > self.end:
            raise ValueError("noise grows with time: `start` is above `end`")
        return self


class Denoise(Part):
    """How the graph `denoise` makes pictures out of noise, in steps.

    Its inputs are `latent` f32 [batch, channels, height, width], `time` [batch] and conditions, each by its role; its
    output's role is the `prediction`. A flow's time runs from 0 (noise) to 1 (data) and `velocity` is the latent's change with
    it; a diffusion model's is a place among the trained times. Conditions are inputs of a request (`label` i64 [batch]: the place
    of a class, behind the last one: none), or what the graph `condition` makes of them once, by the same roles. Whichever graph
    takes them also gets `size` f32 [batch, 2], the picture's height and width, and `guidance` f32 [batch]: a `denoise` with that
    input guides itself, and a guided picture is one row of its run instead of two.
    The last latent is the picture, in [-1, 1]; or the graph `decode` makes `output` of it, in [0, 1].
    """

    prediction: Literal["velocity", "epsilon", "v_prediction"]
    # The first is the default.
    solvers: Annotated[tuple[Literal["euler", "heun", "ddim", "dpm"], ...], Field(min_length=1)]
    # `even`, `trained`: of a flow. The others: of a diffusion model.
    spacing: Literal["even", "trained", "leading", "trailing", "linspace"]
    shift: Annotated[float, Field(gt=0, le=100)] = 1.0  # of a flow's noise levels
    betas: Betas | None = None
    offset: Annotated[int, Field(ge=0, le=1000)] = 0  # of `leading` times
    to_clean: bool = True  # whether the last step of DDIM leaves no noise at all
    clip: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None  # of what DDIM foretells
    steps: Positive = 20
    most_steps: Positive = 100
    # 1: none. A model that was trained without "no condition" takes no other.
    guidance: Annotated[float, Field(ge=1, le=100)] = 1.0
    most_guidance: Annotated[float, Field(ge=1, le=100)] = 1.0
    # Sizes beside the picture's own, as width and height, where the graph's `height` and `width` vary.
    sizes: tuple[tuple[Positive, Positive], ...] = ()
    # Pixels a side for one place of the latent.
    reduction: Positive = 1

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        flow = self.prediction == "velocity"
        if flow != (self.betas is None):
            raise ValueError("a diffusion model has betas, a flow has none")
        if flow != (self.spacing in ("even", "trained")):
            raise ValueError(f"{self.spacing!r} is no spacing of a model that predicts {self.prediction}")
        others = set(self.solvers) - ({"euler", "heun"} if flow else {"euler", "ddim", "dpm"})
        if others or len(set(self.solvers)) < len(self.solvers):
            raise ValueError(f"not the solvers of a model that predicts {self.prediction}: {self.solvers}")
        if self.betas and self.betas.zero_snr and self.prediction == "epsilon":
            raise ValueError("where nothing but noise is left, noise foretells nothing: predict v")
        return self

    @model_validator(mode="after")
    def _defaults_are_in_range(self) -> Self:
        if self.steps > self.most_steps or self.guidance > self.most_guidance:
            raise ValueError("by default more than the most")
        if self.betas and self.most_steps >= self.betas.trained:
            raise ValueError("there are fewer steps than trained times")
        return self


class Prompt(Part):
    """How words reach the graph `condition`: as token ids `role` i64 [batch, length] of `tokenizer`, a tokenizer.json.

    They are padded with `pad`; a longer prompt is refused. `count`: the role of an input i32 [batch], how many ids are the prompt's.
    """

    tokenizer: RelativePath
    length: Positive
    pad: Annotated[int, Field(ge=0)]
    role: str = "text"
    count: str | None = None


class Edit(Part):
    """What the graph `edit` does to pictures in one run.

    Its inputs are `input` [batch, channels, height, width] in [0, 1], `task` i64 [batch], a place in `tasks`, and, to inpaint,
    `mask` f32 [batch, 1, height, width], 1 where the picture is to be made up. `output` has the picture's size. What is to be
    enlarged comes with each pixel repeated `scale` times in both directions.
    """

    tasks: Annotated[tuple[EditTask, ...], Field(min_length=1)]
    scale: Annotated[int, Field(ge=2, le=16)] = 2
    # Of the sides that go into the graph, where they vary.
    largest: Positive = 1024
    multiple: Positive = 1

    @model_validator(mode="after")
    def _tasks_differ(self) -> Self:
        if len(set(self.tasks)) < len(self.tasks):
            raise ValueError("a task is named twice")
        return self


class Style(Part):
    """A generator in two graphs: `mapping` makes a `style` [batch, ...] of the noise, the generator a picture of the style.

    A class is the mapping's input `class_id` i64 [batch]. Styles may be moved towards their mean, which gives up variety for pictures that look right: mean + truncation (style - mean).
    """

    mapping: str
    mean: RelativePath  # `.npy`, float32, of one row's shape or of its last dimensions
    truncation: Annotated[float, Field(gt=0, le=1)] = 1.0


class Resize(Part):
    """How pictures that are read reach a model where they have another size than its own.

    `stretch`: resampled to its width and height. `crop`, `pad`: in their own proportions, cut off at both ends or with black at
    both. `refuse`: not at all. `keep`: in their own size, to graphs whose `input` varies in height and width; what has a side
    above `largest` is made smaller in proportion, and sides become multiples of `multiple`.
    """

    mode: Literal["stretch", "crop", "pad", "refuse", "keep"] = "stretch"
    largest: Positive = 512
    multiple: Positive = 1

    @model_validator(mode="after")
    def _largest_is_allowed(self) -> Self:
        if self.largest % self.multiple:
            raise ValueError("the largest side is no multiple of what sides are multiples of")
        return self

    def sides(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of a picture that is kept."""
        scale = min(1.0, self.largest / max(height, width)) / self.multiple
        height, width = (max(1, round(side * scale)) * self.multiple for side in (height, width))
        return height, width

    def allows(self, sides: Sequence[int]) -> bool:
        """Whether pictures of these sides are kept as they are."""
        return all(0 < side <= self.largest and side % self.multiple == 0 for side in sides)


class Image(Part):
    """What pictures go in and come out: values in [0, 1], channels first."""

    channels: Literal[1, 3, 4]
    height: Positive
    width: Positive
    resize: Resize = Resize()
    classes: tuple[str, ...] = ()
    # The graph that draws pictures, and the role of its noise input (standard normal, one vector a row).
    generator: str | None = None
    noise: str | None = None
    # With it, the noise is an input of its `mapping`.
    style: Style | None = None
    denoise: Denoise | None = None
    # One for each tokenizer: what a prompt is to models that read words. Without: a class's name, or nothing.
    prompt: tuple[Prompt, ...] = ()
    edit: Edit | None = None

    @model_validator(mode="after")
    def _style_is_drawn(self) -> Self:
        if self.style and not (self.generator and self.noise):
            raise ValueError("a style needs a generator and the role of its noise")
        return self

    @model_validator(mode="after")
    def _latent_fits(self) -> Self:
        if self.denoise:
            each = self.denoise.reduction
            for width, height in ((self.width, self.height), *self.denoise.sizes):
                if width % each or height % each:
                    raise ValueError(f"{width}x{height} is no multiple of {each} pixels")
        return self
