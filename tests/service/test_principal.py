import hashlib

import pytest

from service.principal import principal_of

DIGEST = hashlib.sha256(b"key").hexdigest()[:16]


@pytest.mark.parametrize(
    ("fields", "principal"),
    [
        ({}, ""),
        ({b"authorization": b"Bearer key"}, DIGEST),
        ({b"authorization": b"bearer   key "}, DIGEST),
        ({b"api-key": b"key"}, DIGEST),
        ({b"authorization": b"Bearer ", b"api-key": b"key"}, DIGEST),
        ({b"authorization": b"Bearer key", b"api-key": b"other"}, DIGEST),
        ({b"authorization": b"Basic a2V5"}, ""),
        ({b"authorization": b"Bearer"}, ""),
        ({b"authorization": b""}, ""),
    ],
)
def test_a_key_is_told_from_others_and_not_kept(fields: dict[bytes, bytes], principal: str) -> None:
    assert principal_of(fields) == principal


def test_keys_of_any_bytes_and_length() -> None:
    many = [b"\xff\xfe", b"x" * 100_000, *(b"%d" % i for i in range(1000))]
    digests = {principal_of({b"api-key": key}) for key in many}
    assert len(digests) == len(many)
    assert {len(digest) for digest in digests} == {16}
