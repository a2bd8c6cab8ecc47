"""What the public is told: the truth, and no more of it than it should know."""

from __future__ import annotations

import pytest

from tgext.evolve.gate import Progress, Reason, Serving, Verdict
from tgext.evolve.options import Options
from tgext.evolve.pace import Pace
from tgext.evolve.wording import Situation, Told


class Known(Pace):
    """A pace that knows the end, or that there was a long silence."""

    def __init__(self, seconds=None, late=False):
        super().__init__()
        self.seconds = seconds
        self.late = late

    def remaining(self, now=None):
        return self.seconds

    def is_late(self, now=None):
        return self.late


def told(reason='running', *, serving='nothing', pace=None, options=None, **verdict):
    verdict = Verdict(Serving(serving), Reason(reason), **verdict)
    return Told.of(verdict, Options(**(options or {})), pace or Pace())


@pytest.mark.parametrize('reason', list(Reason))
def test_every_reason_has_words(reason):
    said = told(reason.value)
    assert said.title
    assert said.text.endswith('.')


def test_situations_are_told_apart():
    titles = {told(reason).title for reason in ('running', 'waiting', 'paused', 'failed', 'database-away', 'down')}
    assert len(titles) == 6
    assert told('running', serving='reads').situation is Situation.READING


@pytest.mark.parametrize('reason', ['failed', 'cancelled', 'database-refuses', 'predecessor', 'other-namespace'])
def test_a_failure_is_not_called_a_moment(reason):
    said = told(reason)
    assert said.situation is Situation.FAILED
    assert 'moment' not in said.prose
    assert 'We are looking into it' in said.text


def test_the_message_of_who_closed_it_stands_before_every_other_text():
    said = told('down', message='Back on Sunday.', options={'page_text': 'We are small.', 'page_title': 'Acme'})
    assert (said.title, said.text, said.note) == ('Acme', 'Back on Sunday.', '')


def test_an_own_text_does_not_hide_that_something_went_wrong():
    options = {'page_title': 'Acme', 'page_text': 'Tea is ready.'}
    assert told(options=options).prose == 'Acme. Tea is ready.'
    failed = told('failed', options=options)
    assert failed.text == 'Tea is ready.'
    assert 'We are looking into it' in failed.note


def test_details_need_the_option():
    given = {'detail': "not done yet: 'secret-id'", 'progress': Progress(1, 4, 'user 4711')}
    for said in (told(**given).prose, str(told(**given).fields())):
        assert 'secret-id' not in said
        assert '4711' not in said
    shown = told(**given, options={'page_details': True})
    assert shown.fields()['details'] == "not done yet: 'secret-id' · user 4711"
    assert "'secret-id'" in shown.prose


@pytest.mark.parametrize(
    ('seconds', 'words'),
    [
        (0, 'about 10 seconds left'),
        (10.1, 'about 20 seconds left'),
        (85, 'about 90 seconds left'),
        (91, 'about 2 minutes left'),
        (5300, 'about 89 minutes left'),
        (5401, 'about 2 hours left'),
    ],
)
def test_an_estimate_is_as_coarse_as_it_is_uncertain(seconds, words):
    said = told(progress=Progress(3, 10), pace=Known(seconds))
    assert said.left == words
    assert said.prose.endswith(f'Current step: 30%, {words}.')


def test_without_an_estimate_there_is_only_the_progress():
    assert told(progress=Progress(3, 10)).prose.endswith('Current step: 30%.')
    assert told(progress=Progress(3, 10), pace=Known(late=True)).left == 'taking longer than expected'


@pytest.mark.parametrize(('done', 'percent'), [(0, '0%'), (29, '29%'), (57, '57%'), (99.9, '99%'), (100, '100%')])
def test_it_is_not_done_before_it_is_done(done, percent):
    assert told(progress=Progress(done, 100)).percent == percent


@pytest.mark.parametrize('reason', ['down', 'failed', 'paused', 'database-away'])
def test_progress_says_nothing_where_nobody_waits_for_it(reason):
    said = told(reason, progress=Progress(3, 10), pace=Known(60))
    assert not said.has_progress
    assert (said.percent, said.left) == ('', '')
