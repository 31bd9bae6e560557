"""Documents that cannot drift: what is generated equals what the code and the packages say now."""

from pathlib import Path

from tests import reference

README = Path(__file__).parent.parent / "README.md"


def test_reference_page_is_what_the_code_says() -> None:
    assert reference.PAGE.read_text(encoding="utf-8") == reference.page(), "run `python -m tests.reference`"


def test_the_readme_shows_the_packages_own_figures() -> None:
    assert reference.shipped_packages() in README.read_text(encoding="utf-8")


def test_the_shipped_packages_stay_small() -> None:
    files = [path for path in (README.parent / "model_store" / "packages").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 40e6
