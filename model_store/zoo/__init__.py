"""Reference models: one file each, with configuration, module and training recipe.

What `atelier train` finds in each (`shakespeare-gpt` is `shakespeare_gpt.py`):
`Recipe`, a frozen dataclass of what the training depends on, `seed` among it;
`train(data, progress, recipe)` returns what was learned; `data` is the folder with one folder per data set in it;
`draft(trained, data, work, progress, recipe)` measures it on held-out data, writes its weights into the folder `work`
and returns the `Draft` to publish (the command fills in how long the training took).
"""

from typing import Final

NAMES: Final = (
    "fashion-ae",
    "fashion-vae",
    "fashion-gan",
    "fashion-flow",
    "tiles-flow",
    "tiles-edit",
    "textures-ae",
    "fashion-realism",
    "table-ae",
    "series-ae",
    "shakespeare-lstm",
    "shakespeare-gpt",
    "tldr-gpt",
    "eng-fra",
)
