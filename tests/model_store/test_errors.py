"""The tree in the docstring is the tree of the classes, and every leaf is raised somewhere."""

import inspect
import pickle
import re
from pathlib import Path

import pytest

from model_store import errors
from model_store.errors import PackageError

CLASSES = {name: kind for name, kind in vars(errors).items() if inspect.isclass(kind)}


def drawn() -> dict[str, str]:
    """Class -> parent, as the module's docstring draws them."""
    parents, path = {}, ["Exception"]
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^([|` -]*)([A-Z]\w+)(?:  |$)", line)
        if match:
            depth = len(match[1]) // 4
            path[depth + 1 :] = [match[2]]
            parents[match[2]] = path[depth]
    return parents


def test_the_docstring_draws_the_tree() -> None:
    assert drawn() == {name: kind.__bases__[0].__name__ for name, kind in CLASSES.items()}


@pytest.mark.parametrize("kind", CLASSES.values(), ids=CLASSES)
def test_every_error_is_a_package_error_that_survives_a_process_boundary(kind: type[PackageError]) -> None:
    error = pickle.loads(pickle.dumps(kind("one sentence")))  # noqa: S301 - made a moment ago
    assert isinstance(error, PackageError)
    assert type(error) is kind
    assert str(error) == "one sentence"
    assert kind.__doc__


def test_every_refusal_is_raised_somewhere() -> None:
    source = "".join(path.read_text() for path in Path(errors.__file__).parent.glob("*.py"))
    families = {kind.__bases__[0].__name__ for kind in CLASSES.values()}
    silent = {name for name in CLASSES if f"raise {name}(" not in source and f"return {name}(" not in source}
    assert silent <= families
