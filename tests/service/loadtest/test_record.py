import pytest

from service.loadtest.record import Record

STREAM = Record(due=1.0, sent=1.1, ended=2.0, outputs=(1.3, 1.5, 1.6, 2.0), output_tokens=4)


def test_definitions_are_those_of_vllm_bench() -> None:
    assert STREAM.first_token == pytest.approx(0.2)
    assert STREAM.latency == pytest.approx(0.9)
    assert STREAM.gaps == pytest.approx((0.2, 0.1, 0.4))
    assert STREAM.per_token == pytest.approx((0.9 - 0.2) / 3)


def test_a_late_sender_hides_nothing() -> None:
    assert STREAM.lag == pytest.approx(0.1)
    assert STREAM.latency_from_schedule == pytest.approx(1.0)


def test_events_of_several_tokens_share_their_time() -> None:
    speculative = Record(due=0, sent=0, ended=1.0, outputs=(0.5, 1.0), output_tokens=6)
    assert speculative.per_token == pytest.approx(0.1)
    assert speculative.gaps == pytest.approx((0.5,))


def test_one_token_has_no_time_per_token() -> None:
    assert Record(due=0, sent=0, ended=1, outputs=(1.0,), output_tokens=1).per_token is None


def test_what_is_not_streamed_has_no_token_times() -> None:
    plain = Record(due=0, sent=0, ended=1, output_tokens=10)
    assert plain.first_token is None
    assert plain.per_token is None
    assert plain.gaps == ()
