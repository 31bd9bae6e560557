"""Documents that cannot drift: what is generated equals what the code and the packages say now."""

import re
from pathlib import Path

from service.errors import BUG, CODES, ROUTING
from tests import reference

README = Path(__file__).parent.parent / "README.md"
CODE = [README.parent / "service", README.parent / "deployments"]


def test_reference_page_is_what_the_code_says() -> None:
    assert reference.PAGE.read_text(encoding="utf-8") == reference.page(), "run `python -m tests.reference`"


def test_every_code_of_an_error_is_explained() -> None:
    said = {code for codes in reference.ERRORS.values() for code in codes}
    source = "".join(path.read_text(encoding="utf-8") for part in CODE for path in part.rglob("*.py"))
    given = set(re.findall(r'\bcode ?= ?"([a-z_]+)"', source)) | set(CODES.values())
    given |= {code for _, code, _ in ROUTING.values()} | {BUG.code, "queue_full", "queue_too_long"}
    unseen = {"cancelled"}  # the client has left
    assert given - unseen - {"invalid_type", "invalid_value"} == said - {"invalid_type", "invalid_value"}


def test_the_readme_shows_the_packages_own_figures() -> None:
    assert reference.shipped_packages() in README.read_text(encoding="utf-8")


def test_the_shipped_packages_stay_small() -> None:
    files = [path for path in (README.parent / "model_store" / "packages").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 60e6
