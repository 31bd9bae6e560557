import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.loadtest.record import Record
from service.loadtest.report import goodput, is_good, parse_bounds, series, statistics, summarize, totals


def answered(latency: float, *, due: float = 0.0, lag: float = 0.0, tokens: int = 0) -> Record:
    sent = due + lag
    return Record(due=due, sent=sent, ended=sent + latency, output_tokens=tokens, input_tokens=2 * tokens)


def failed(error: str, ended: float = 1.0) -> Record:
    return Record(due=0, sent=0, ended=ended, error=error)


def test_failures_are_counted_by_cause_and_have_no_latency() -> None:
    records = [answered(0.1), failed("timeout"), failed("429 queue_full"), failed("timeout")]
    figures = totals(records)
    assert figures["completed"] == 1
    assert figures["failed"] == 3
    assert list(figures["error_counts"].items()) == [("timeout", 2), ("429 queue_full", 1)]
    assert len(series(records, scheduled=False)["e2el"]) == 1


def test_the_duration_lasts_until_the_last_failure() -> None:
    figures = totals([answered(0.5), failed("timeout", ended=10.0)])
    assert figures["duration"] == 10.0
    assert figures["request_throughput"] == pytest.approx(0.1)


def test_rates() -> None:
    records = [
        answered(2.0, tokens=10),
        answered(1.0, tokens=30),
        Record(0, 0, 1, images=4),
        Record(0, 0, 1, items=6),
    ]
    figures = totals(records)
    assert figures["output_throughput"] == pytest.approx(20)
    assert figures["total_token_throughput"] == pytest.approx(60)
    assert figures["image_throughput"] == pytest.approx(2)
    assert figures["item_throughput"] == pytest.approx(3)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=50))
def test_percentiles_are_numpys(latencies: list[float]) -> None:
    figures = statistics(series([answered(latency) for latency in latencies], scheduled=False))
    milliseconds = np.array(latencies) * 1e3
    for percentile in (50, 90, 95, 99):
        assert figures[f"p{percentile}_e2el_ms"] == pytest.approx(np.percentile(milliseconds, percentile))
    assert figures["median_e2el_ms"] == pytest.approx(figures["p50_e2el_ms"])
    assert figures["mean_e2el_ms"] == pytest.approx(milliseconds.mean())
    assert figures["std_e2el_ms"] == pytest.approx(milliseconds.std(), abs=1e-6)
    assert figures["max_e2el_ms"] == pytest.approx(milliseconds.max())


def test_a_schedule_adds_its_own_latencies() -> None:
    records = [answered(0.1, lag=0.2)]
    assert "send_lag" not in series(records, scheduled=False)
    both = series(records, scheduled=True)
    assert both["e2el"] == pytest.approx([100])
    assert both["e2el_from_schedule"] == pytest.approx([300])
    assert both["send_lag"] == pytest.approx([200])


def test_the_lag_of_failed_requests_counts() -> None:
    assert series([failed("timeout")], scheduled=True)["send_lag"] == pytest.approx([0])


def test_stream_latencies() -> None:
    stream = Record(0, 0.0, 0.4, outputs=(0.1, 0.2, 0.4), output_tokens=3)
    figures = statistics(series([stream, stream], scheduled=False))
    assert figures["p50_ttft_ms"] == pytest.approx(100)
    assert figures["mean_itl_ms"] == pytest.approx(150)
    assert figures["mean_tpot_ms"] == pytest.approx(150)


def test_nothing_answered_gives_zeroes_and_valid_json() -> None:
    latencies = series([failed("timeout")], scheduled=False)
    figures = summarize([failed("timeout")], {"e2el": 100}, latencies, 1)
    assert figures["request_throughput"] == 0
    assert figures["request_goodput"] == 0
    assert figures["good_share"] == 0
    assert b"NaN" not in orjson.dumps(figures)


def test_nothing_sent_is_no_error() -> None:
    assert totals([])["duration"] == 0
    assert goodput([], {"e2el": 1})["good_share"] == 0


def test_a_good_request_keeps_every_bound() -> None:
    stream = Record(0, 0, 0.4, outputs=(0.1, 0.4), output_tokens=2)
    assert is_good(stream, {"ttft": 100.5, "tpot": 300.5, "e2el": 400.5})
    assert not is_good(stream, {"ttft": 99, "e2el": 1000})
    assert not is_good(stream, {"ttft": 1000, "e2el": 399})
    assert not is_good(failed("timeout"), {})


def test_goodput_counts_failures_in_its_share() -> None:
    figures = goodput([answered(0.1), answered(0.9), failed("timeout"), answered(0.2)], {"e2el": 500})
    assert figures["good_share"] == pytest.approx(0.5)
    assert figures["request_goodput"] == pytest.approx(2 / 1.0)
    assert goodput([answered(0.1)], {}) == {}


def test_keys_are_vllms() -> None:
    stream = Record(0, 0, 0.4, outputs=(0.1, 0.4), output_tokens=2)
    figures = summarize([stream], {"ttft": 1}, series([stream], scheduled=False), 1)
    names = ("ttft", "tpot", "itl", "e2el")
    expected = {f"{kind}_{name}_ms" for name in names for kind in ("mean", "median", "std", "p99")}
    expected |= {"duration", "completed", "failed", "total_input_tokens", "total_output_tokens"}
    expected |= {"request_throughput", "request_goodput", "output_throughput", "total_token_throughput"}
    assert expected <= figures.keys()


def test_bounds_are_read() -> None:
    assert parse_bounds("ttft:200, tpot:50,e2e:1e3") == {"ttft": 200, "tpot": 50, "e2el": 1000}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "use ttft, tpot or e2e"),
        ("latency:3", "'latency:3' bounds nothing known"),
        ("ttft", "no number of milliseconds"),
        ("ttft:fast", "no number of milliseconds"),
        ("ttft:-1", "positive number"),
        ("ttft:nan", "positive number"),
        ("ttft:200,,e2e:1", "use ttft, tpot or e2e"),
    ],
)
def test_wrong_bounds_are_one_sentence(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_bounds(text)
