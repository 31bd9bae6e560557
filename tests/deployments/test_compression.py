import lzma
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from deployments.compression import MOST, Ranges, pack, unpack
from deployments.errors import BadRequest

KEY = b"sha256:one"
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
counts = st.tuples(st.integers(1, 9), st.integers(1, 7))
latents = arrays.arrays(np.float32, counts, elements=finite)
KNOWN = Ranges.between(np.full(3, -4.0), np.full(3, 4.0))
NORMAL = np.random.default_rng(0).standard_normal((64, 3)).astype(np.float32)


def refused(data: bytes, size: int = 3, known: Ranges | None = KNOWN, key: bytes = KEY) -> None:
    with pytest.raises(BadRequest) as error:
        unpack(data, size, known, key)
    assert (error.value.param, error.value.code) == ("latents", "invalid_latents")


def signed(form: bytes) -> bytes:
    """A form as nobody wrote it, whose check is right."""
    return form + zlib.crc32(form, zlib.crc32(KEY)).to_bytes(4, "little")


@given(latents)
def test_no_number_moves_by_more_than_half_a_level(latents: Any) -> None:
    found = unpack(pack(latents, None, KEY), latents.shape[1], None, KEY)
    wide = latents.astype(np.float64)
    step = (wide.max(0) - wide.min(0)) / 255
    # float32's own rounding beside it
    assert (np.abs(found - wide) <= 0.501 * step + 1e-6 * np.abs(wide).max(0) + 1e-44).all()
    assert found.shape == latents.shape


@given(latents)
def test_what_is_found_again_stays_as_it_is(latents: Any) -> None:
    size = latents.shape[1]
    known = Ranges.between(np.full(size, -1e3), np.full(size, 1e3))
    latents = latents.clip(-999, 999)
    data = pack(latents, known, KEY)
    assert pack(unpack(data, size, known, KEY), known, KEY) == data


def test_known_ranges_take_no_room_and_hold_what_is_in_them() -> None:
    alone = pack(NORMAL[:1], KNOWN, KEY)
    assert len(alone) == 1 + 1 + 3 + 4
    assert np.abs(unpack(alone, 3, KNOWN, KEY) - NORMAL[:1]).max() <= 4 / 255 + 1e-6
    assert len(pack(NORMAL[:1], None, KEY)) > len(alone)


def test_what_is_beyond_known_ranges_has_its_own() -> None:
    far = NORMAL + np.array([0, 0, 1000], np.float32)
    found = unpack(pack(far, KNOWN, KEY), 3, KNOWN, KEY)
    assert np.abs(found - far).max() < 0.02
    assert np.array_equal(found, unpack(pack(far, None, KEY), 3, None, KEY))


def test_many_alike_are_coded() -> None:
    alike = np.tile(NORMAL[:1], (MOST, 1))
    data = pack(alike, KNOWN, KEY)
    assert len(data) < 40
    assert np.array_equal(
        unpack(data, 3, KNOWN, KEY), unpack(pack(alike[:1], KNOWN, KEY), 3, KNOWN, KEY)[[0] * MOST]
    )


@given(st.data(), st.sampled_from([None, KNOWN]), st.sampled_from([1, 5, 64]))
def test_damage_is_refused(data: Any, known: Ranges | None, count: int) -> None:
    whole = pack(NORMAL[:count], known, KEY)
    place, flip = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(1, 255))
    refused(whole[:place] + bytes([whole[place] ^ flip]) + whole[place + 1 :], known=known)
    refused(whole[:place], known=known)
    refused(whole + b"\0", known=known)


@given(st.binary(max_size=64))
def test_any_bytes_are_refused(data: bytes) -> None:
    refused(data)


@given(st.binary(max_size=3), st.binary(max_size=64))
def test_a_right_check_over_anything_does_no_harm(head: bytes, body: bytes) -> None:
    for known in (None, KNOWN):
        for form in (head + body, head + _lzma(body)):
            try:
                found = unpack(signed(form), 3, known, KEY)
            except BadRequest:
                continue
            assert found.shape == (form[1] + 1, 3)
            assert np.isfinite(found).all()


def _lzma(body: bytes) -> bytes:
    return lzma.compress(body, lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 16}])


def test_a_bomb_is_not_unpacked() -> None:
    refused(signed(b"\x12\x00" + _lzma(bytes(3_000_000))))


def test_another_models_is_refused() -> None:
    data = pack(NORMAL, KNOWN, KEY)
    refused(data, key=b"sha256:two")
    refused(data, size=4, known=Ranges.between(np.full(4, -4.0), np.full(4, 4.0)))
    refused(data, known=None)


def test_another_version_of_the_form_is_refused() -> None:
    data = pack(NORMAL[:1], KNOWN, KEY)
    for flags in (0x00, 0x20, 0x14):
        refused(signed(bytes([data[0] & 3 | flags]) + data[1:-4]))


def test_ranges_that_nobody_wrote_are_refused() -> None:
    for number in (np.nan, np.inf, 3e38):
        ranges = np.full((2, 3), number, np.float32).tobytes()
        refused(signed(b"\x11\x00" + ranges + b"\xff\xff\xff"))
