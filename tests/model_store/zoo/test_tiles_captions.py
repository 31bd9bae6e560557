import pytest

from model_store.zoo.tiles_captions import Caption, caption


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("Nov-2015/mon/undead/spectrals/spectral_ant2.png", "spectral ant, undead monster"),
        ("Ancient/Oct-5-2010/dc-mon/animals/jackal.png", "jackal, animal monster"),
        ("Nov-2015/dngn/wall/brick_brown_3.png", "brick brown, wall"),
        ("Nov-2015/item/potion/i-decay.png", "decay symbol, potion item"),
        ("Nov-2015/player/base/draconian_m.png", "draconian male, person"),
        ("Nov-2015/player/hand1/bow_three.png", "bow three, held worn"),
        ("Nov-2015/gui/spells/ice/bolt_of_cold.png", "bolt of cold, ice spell icon"),
        ("Nov-2015/dngn/floor/grass/grass_nw.png", "grass north west, floor"),
        ("Nov-2015/item/book/light_green.png", "light green, book item"),
        ("Nov-2015/item/book/lightgreen.png", "light green, book item"),
        ("Nov-2015/misc/numbers/7.png", "7, number"),
        ("Nov-2015/misc/todo.png", "todo"),
        ("Nov-2015/gui/spells/earth/leda's_liquefaction.png", "leda liquefaction, earth spell icon"),
    ],
)
def test_a_path_says_what_is_shown(path: str, text: str) -> None:
    assert str(caption(path)) == text


def test_no_word_is_said_twice() -> None:
    words = str(caption("Nov-2015/dngn/altars/altar_zin.png")).replace(",", "").split()
    assert words == ["altar", "zin"]


@pytest.mark.parametrize(
    ("path", "mirrors"), [("mon/rat.png", True), ("dngn/door_left.png", False), ("a/x_e.png", False)]
)
def test_what_names_a_side_is_not_mirrored(path: str, mirrors: bool) -> None:
    assert caption(path).mirrors is mirrors


def test_variants_have_one_theme_wherever_they_point() -> None:
    north, south = (
        caption("Nov-2015/dngn/water/wave_n.png"),
        caption("Ancient/Oct-5-2010/dc-dngn/water/wave_s2.png"),
    )
    assert north.theme == south.theme == {"wave"}
    assert caption("mon/red_rat.png").theme != caption("mon/rat.png").theme


def test_a_theme_is_never_empty() -> None:
    assert Caption(("north",), ("wall",)).theme == {"wall"}
    assert Caption((), ("wall",)).theme == {"wall"}
