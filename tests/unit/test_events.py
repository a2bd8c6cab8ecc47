"""Listeners hear everything in order, and none of them can break a run."""

from __future__ import annotations

import logging
import threading

import pytest

from tgext.evolve.events import Event, Listeners, What


def test_each_hears_each_event_in_the_order_of_joining():
    heard = []
    listeners = Listeners()
    listeners.add(lambda event: heard.append(('first', event.what)))
    listeners.add(lambda event: heard.append(('second', event.what)))
    listeners(Event(What.STARTED, 'here', 'a'))
    listeners(Event(What.FINISHED, 'here', 'a'))
    assert heard == [
        ('first', What.STARTED),
        ('second', What.STARTED),
        ('first', What.FINISHED),
        ('second', What.FINISHED),
    ]


@pytest.mark.parametrize('error', [ValueError('no'), SystemExit(3)])
def test_one_that_raises_is_logged_and_the_others_still_hear(caplog, error):
    def broken(event):
        raise error

    heard = []
    listeners = Listeners()
    listeners.add(broken)
    listeners.add(heard.append)
    event = Event(What.STARTED, 'here', 'a')
    with caplog.at_level(logging.ERROR, 'tgext.evolve'):
        listeners(event)
    assert heard == [event]
    [record] = caplog.records
    assert record.exc_info[1] is error
    assert record.evolution_id == 'a'


def test_ctrl_c_goes_through_in_the_main_thread_only(caplog):
    def interrupted(event):
        raise KeyboardInterrupt

    listeners = Listeners()
    listeners.add(interrupted)
    with pytest.raises(KeyboardInterrupt):
        listeners(Event(What.PROGRESS, 'here', 'a'))
    thread = threading.Thread(target=listeners, args=[Event(What.PROGRESS, 'here', 'a')])
    thread.start()
    thread.join()
    assert len(caplog.records) == 1


def test_one_that_was_removed_hears_nothing_more():
    heard = []
    listeners = Listeners()
    listeners.add(heard.append)
    listeners.remove(heard.append)
    listeners(Event(What.OPENED, 'here'))
    assert heard == []


def test_what_log_collectors_index():
    extra = Event(What.FINISHED, 'here', 'a', attempt=2, token=7, seconds=1.23456).extra
    assert extra['evolution_event'] == 'finished'
    assert (extra['evolution_id'], extra['evolution_attempt'], extra['evolution_token']) == ('a', 2, 7)
    assert extra['evolution_duration'] == 1.235
