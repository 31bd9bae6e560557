from model_store.zoo.nearest import Nearest

TEXTS = ["the cat sleeps", "the dog sleeps", "the dog eats the bone", "a fish"]


def test_a_known_text_is_found() -> None:
    nearest = Nearest(TEXTS)
    assert [nearest(text) for text in TEXTS] == [0, 1, 2, 3]


def test_rare_words_weigh_more() -> None:
    assert Nearest(TEXTS)("the dog found a bone") == 2


def test_case_does_not_matter_and_more_words_do_not_help() -> None:
    nearest = Nearest(TEXTS)
    assert nearest("THE CAT SLEEPS") == 0
    assert nearest("cat cat cat") == 0
    assert nearest("dog sleeps") == 1


def test_nothing_in_common_is_the_first() -> None:
    assert Nearest(TEXTS)("?") == 0
    assert Nearest(["same", "same"])("same") == 0
