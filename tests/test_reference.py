"""Documents that cannot drift: what is generated equals what the code says now."""

from tests import reference


def test_reference_page_is_what_the_code_says() -> None:
    assert reference.PAGE.read_text(encoding="utf-8") == reference.page(), "run `python -m tests.reference`"
