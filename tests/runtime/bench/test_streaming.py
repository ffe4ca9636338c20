from svitkit.runtime.bench.runner_report import StreamReport
from svitkit.runtime.bench.streaming import read_stream

MS = 1_000_000


def test_frames_that_took_longer_than_the_time_between_two_are_late() -> None:
    latencies = (5 * MS, 10 * MS, 12 * MS, 9 * MS)
    stream = read_stream(StreamReport(period_ns=10 * MS, latencies_ns=latencies), deadline_ms=None, emulated=False)
    assert (stream.fps, stream.frames, stream.deadline_ms, stream.misses) == (100.0, 4, 10.0, 1)
    assert stream.fps_reached == 100.0
    assert (stream.latency_ms.max, stream.latencies_ns) == (12.0, latencies)


def test_another_deadline_counts_other_frames() -> None:
    report = StreamReport(period_ns=10 * MS, latencies_ns=(5 * MS, 10 * MS, 12 * MS))
    stream = read_stream(report, deadline_ms=4.0, emulated=False)
    assert round(stream.fps_reached, 6) == round(3 / 0.032, 6)  # the last frame was done 2 ms late
    assert (stream.deadline_ms, stream.misses) == (4.0, 3)


def test_a_closed_loop_has_no_deadline_but_a_rate() -> None:
    stream = read_stream(StreamReport(period_ns=0, latencies_ns=(4 * MS, 6 * MS)), deadline_ms=None, emulated=True)
    assert (stream.fps, stream.deadline_ms, stream.misses, stream.fps_reached) == (None, None, None, 200.0)
    assert stream.latency_ms.emulated
