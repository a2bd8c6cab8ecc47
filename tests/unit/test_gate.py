"""The gate: closed until it is told otherwise, and passing only for who is armed."""

from __future__ import annotations

import json
import math
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgext.evolve.gate import Gate, Progress, Reason, Serving, Verdict

OPEN = Verdict(Serving.EVERYTHING, Reason.COMPLETE)
READS = Verdict(Serving.READS, Reason.PENDING)
CLOSED = Verdict(Serving.NOTHING, Reason.RUNNING)


class TestGate:
    def test_starts_closed(self):
        gate = Gate()
        assert (gate.is_open, gate.passing) == (False, False)
        assert (gate.verdict.serving, gate.verdict.reason) == (Serving.NOTHING, Reason.STARTING)

    @given(st.lists(st.sampled_from([OPEN, READS, CLOSED, 'arm', 'disarm']), max_size=20))
    def test_passes_only_when_armed_and_open(self, steps):
        gate, armed, verdict = Gate(), False, None
        for step in steps:
            if isinstance(step, Verdict):
                gate.move(step)
                verdict = step
            else:
                getattr(gate, step)()
                armed = step == 'arm'
            assert gate.passing is (armed and verdict is OPEN)
            assert gate.is_open is (verdict is OPEN)

    def test_moving_tells_what_was_before(self):
        gate = Gate()
        assert gate.move(CLOSED).reason is Reason.STARTING
        assert gate.move(OPEN) is CLOSED
        assert gate.verdict is OPEN

    def test_waiting_ends_when_it_opens(self):
        gate = Gate()
        for pause, verdict in ((0.02, READS), (0.04, OPEN)):
            threading.Timer(pause, gate.move, [verdict]).start()
        assert gate.wait(10)
        assert gate.is_open

    def test_waiting_ends_when_the_time_is_up(self):
        started = time.monotonic()
        assert not Gate().wait(0.05)
        assert 0.04 <= time.monotonic() - started < 5

    def test_waiting_for_an_open_gate_takes_no_time(self):
        gate = Gate()
        gate.move(OPEN)
        assert gate.wait(0)
        assert gate.wait()

    def test_a_child_does_not_inherit_a_lock_that_nobody_gives_back(self):
        gate = Gate()
        gate._moved.acquire()  # as at a fork, by a thread that the child does not have
        gate.disarm()
        done = threading.Thread(target=lambda: (gate.move(OPEN), gate.arm()), daemon=True)
        done.start()
        done.join(5)
        assert gate.passing


class TestLettingThrough:
    @pytest.mark.parametrize('method', ['GET', 'HEAD', 'OPTIONS'])
    def test_reads(self, method):
        assert [v.lets_through(method) for v in (CLOSED, READS, OPEN)] == [False, True, True]

    @pytest.mark.parametrize('method', ['POST', 'PUT', 'PATCH', 'DELETE', 'PROPFIND', 'get', ''])
    def test_everything_else(self, method):
        assert [v.lets_through(method) for v in (CLOSED, READS, OPEN)] == [False, False, True]


class TestServing:
    @given(st.lists(st.sampled_from([s.value for s in Serving])))
    def test_the_strictest_is_what_all_allow(self, levels):
        expected = next((s for s in ('nothing', 'reads') if s in levels), 'everything')
        assert Serving.strictest(levels).value == expected

    def test_an_unknown_level_is_as_strict_as_can_be(self):
        assert Serving.strictest(['everything', 'some']) is Serving.NOTHING

    def test_ranks_go_from_strict_to_lax(self):
        assert [s.rank for s in (Serving.NOTHING, Serving.READS, Serving.EVERYTHING)] == [0, 1, 2]


numbers = st.floats(allow_nan=True, allow_infinity=True)


class TestProgress:
    @given(numbers, st.none() | numbers, st.none() | numbers)
    def test_whatever_is_reported_can_be_told(self, done, total, elapsed):
        progress = Progress(done, total, None, elapsed)
        told = [progress.done, progress.total, progress.elapsed, progress.fraction, progress.remaining]
        json.dumps(told, allow_nan=False)
        assert progress.fraction is None or 0 <= progress.fraction <= 1
        assert progress.remaining is None or math.isfinite(progress.remaining)

    def test_the_rest_takes_as_long_as_its_share(self):
        progress = Progress(25, 100, elapsed=10)
        assert (progress.fraction, progress.remaining) == (0.25, 30)

    @pytest.mark.parametrize('progress', [Progress(5), Progress(0, 10, elapsed=3), Progress(5, 0), Progress(5, 10)])
    def test_what_cannot_be_told_is_not_guessed(self, progress):
        assert progress.remaining is None

    def test_more_than_all_is_all(self):
        assert Progress(12, 10, elapsed=3).fraction == 1
        assert Progress(12, 10, elapsed=3).remaining == 0
