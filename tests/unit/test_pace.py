"""How long it will take: nothing from too little, nothing that jumps, nothing that did not hold."""

from __future__ import annotations

import pytest

from tgext.evolve.gate import Gate, Progress, Reason, Serving, Verdict
from tgext.evolve.pace import Pace


def seen(*reports, total=100):
    """A pace that saw these reports: (seconds, done)."""
    pace = Pace()
    for when, done in reports:
        pace.see(Progress(done, total, elapsed=when), now=when)
    return pace


def steadily(seconds, *, each=1.0, total=100, start=0):
    return seen(*((second, start + second * each) for second in range(seconds + 1)), total=total)


def test_a_steady_run_is_told_to_the_second():
    assert steadily(20).remaining(now=20) == pytest.approx(80)
    assert steadily(20, each=4).remaining(now=20) == pytest.approx(5)


def test_time_passes_also_without_a_report():
    pace = seen((0, 0), (10, 10), (20, 20), (30, 30))
    assert pace.remaining(now=30) == pytest.approx(70)
    assert pace.remaining(now=35) == pytest.approx(65)


@pytest.mark.parametrize('seconds', [0, 1, 2, 4])
def test_nothing_is_told_from_too_short_a_time(seconds):
    assert steadily(seconds).remaining(now=seconds) is None
    assert not steadily(seconds).is_late(now=seconds)


def test_nothing_is_told_from_too_few_steps():
    assert seen((0, 0), (10, 5)).remaining(now=10) is None
    assert seen((0, 0), (10, 5), (20, 10)).remaining(now=20) is None
    assert seen((0, 0), (10, 5), (20, 10), (30, 15)).remaining(now=30) == pytest.approx(170)


def test_one_that_was_resumed_is_not_taken_for_a_fast_one():
    """It came with half of its work done, of which this process has seen nothing."""
    assert steadily(20, each=0.5, start=50).remaining(now=20) == pytest.approx(80)


def test_one_that_gets_slower_is_followed():
    fast = [(second, second * 2.0) for second in range(21)]
    slow = [(20 + second, 40 + second * 0.5) for second in range(1, 61)]
    pace = seen(*fast, *slow)
    assert pace.remaining(now=80) == pytest.approx(60)


def test_one_odd_report_does_not_make_it_jump():
    reports = [(second, float(second)) for second in range(31)]
    before = seen(*reports, total=1000).remaining(now=30)
    after = seen(*reports, (31, 34.0), total=1000).remaining(now=31)
    assert after == pytest.approx(before, rel=0.2)


def test_thousands_of_reports_cost_nothing_and_tell_the_same():
    pace = Pace()
    for number in range(50_000):
        pace.see(Progress(number, 100_000), now=number / 1000)
    assert len(pace._samples) <= 241
    assert pace.remaining(now=50) == pytest.approx(50, rel=0.02)


def test_a_long_silence_ends_every_estimate():
    pace = steadily(20)
    assert pace.remaining(now=25) == pytest.approx(79)  # not less than all steps after this one
    assert not pace.is_late(now=25)
    assert pace.remaining(now=33) is None
    assert pace.is_late(now=33)


def test_it_is_never_less_than_nothing():
    pace = steadily(99)
    assert pace.remaining(now=104) == 0


def test_what_goes_on_after_a_silence_is_told_again():
    pace = steadily(20)
    assert pace.is_late(now=60)
    pace.see(Progress(21, 100), now=60)
    assert not pace.is_late(now=60)
    assert pace.remaining(now=60) is not None


@pytest.mark.parametrize(
    'another',
    [Progress(0, 100), Progress(21, 200), Progress(21, 100, elapsed=1), Progress(5), None],
    ids=['less is done', 'of more', 'not so long', 'without a total', 'no report'],
)
def test_another_run_begins_at_nothing(another):
    pace = steadily(20)
    pace.see(another, now=21)
    assert pace.remaining(now=21) is None
    assert not pace.is_late(now=100)


def test_what_is_done_needs_no_estimate():
    assert steadily(100).remaining(now=100) is None


def test_the_gate_watches_whatever_it_is_told(monkeypatch):
    gate = Gate()
    seen = []
    monkeypatch.setattr(gate.pace, 'see', seen.append)
    gate.move(Verdict(Serving.NOTHING, Reason.RUNNING, Progress(1, 10)))
    gate.show(Progress(2, 10))
    gate.move(Verdict(Serving.EVERYTHING, Reason.COMPLETE))
    assert seen == [Progress(1, 10), Progress(2, 10), None]
