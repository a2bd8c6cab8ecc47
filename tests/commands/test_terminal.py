"""What people see at a terminal, and that pipes, NO_COLOR and a missing rich are respected."""

from __future__ import annotations

import builtins
import sys

import pytest

from tests import apps
from tgext.evolve.errors import StoreAway
from tgext.evolve.evolver import Evolver
from tgext.evolve.history import State

pytestmark = pytest.mark.parametrize('store_url', ['sqlite'], indirect=True)

ESCAPE = '\x1b['


def work(evolution):
    for done in range(1, 11):
        evolution.progress(done, 10, 'pages')


def test_a_table_with_colours(site, at_a_terminal):
    site.has(apps.evolution('one'))
    at_a_terminal()
    looked = site.type('status')
    assert looked.code == 0
    assert ESCAPE in looked.out
    assert 'one' in looked.out


def test_no_color_is_honoured(site, at_a_terminal, monkeypatch):
    monkeypatch.setenv('NO_COLOR', '1')
    site.has(apps.evolution('one'))
    at_a_terminal()
    assert '\x1b[3' not in site.type('status').out


def test_nothing_is_cut_at_a_narrow_terminal(site, at_a_terminal, monkeypatch):
    monkeypatch.setenv('COLUMNS', '60')
    monkeypatch.setenv('NO_COLOR', '1')
    id = '2026-11-' + 'x' * 70
    site.has(apps.evolution(id))
    at_a_terminal()
    shown = site.type('status').out
    assert '…' not in shown
    assert shown.count('x') >= 70


def test_plain_text_is_never_wrapped_or_coloured(site, monkeypatch):
    monkeypatch.setenv('COLUMNS', '20')
    monkeypatch.setenv('FORCE_COLOR', '1')
    id = '2026-11-' + 'x' * 150
    site.has(apps.evolution(id))
    looked = site.type('status')
    assert any(line.startswith(f'pending  {id}  ') for line in looked.out.splitlines())
    assert ESCAPE not in looked.out


def test_run_shows_a_bar(site, at_a_terminal):
    site.has(apps.evolution('one', work))
    at_a_terminal()
    ran = site.type('run')
    assert ran.code == 0
    assert '━' in ran.out
    assert '100%' in ran.out
    assert '1 done' in ran.out


def test_watch_draws_anew_until_nothing_is_left(site, at_a_terminal, monkeypatch):
    one = apps.evolution('one')
    site.has(one)
    site.hold(one, done=5, total=10)

    def finish(seconds):
        site.store.finish(site.store.history().latest('one'), State.DONE)

    monkeypatch.setattr('tgext.evolve.commands.reading.pause', finish)
    at_a_terminal()
    watched = site.type('watch')
    assert watched.code == 0
    assert '50% (5 of 10)' in watched.out
    assert 'done' in watched.out


def test_a_database_that_goes_away_is_shown_and_waited_for(site, at_a_terminal, monkeypatch):
    site.has(apps.evolution('one'))
    looked = Evolver.overview
    looks = []

    def overview(self):
        looks.append(1)
        if len(looks) == 2:
            raise StoreAway('the database is away', place='it', remedy='It is tried again.')
        if len(looks) == 3:
            raise KeyboardInterrupt
        return looked(self)

    monkeypatch.setattr(Evolver, 'overview', overview)
    monkeypatch.setattr('tgext.evolve.commands.reading.pause', lambda seconds: None)
    at_a_terminal()
    watched = site.type('watch')
    assert watched.code == 130
    assert 'the database is away' in watched.out


def test_without_rich_it_says_what_to_install_and_goes_on_in_plain_text(site, at_a_terminal, monkeypatch):
    site.has(apps.evolution('one'))
    at_a_terminal()
    monkeypatch.delitem(sys.modules, 'tgext.evolve.commands.terminal', raising=False)
    real = builtins.__import__

    def without_rich(name, *rest, **more):
        if name.partition('.')[0] == 'rich':
            raise ImportError('No module named rich')
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, '__import__', without_rich)
    looked = site.type('status')
    assert looked.code == 0
    assert "pip install 'tgext.evolve[commands]'" in looked.err
    assert ESCAPE not in looked.out
    assert 'pending  one' in looked.out


def test_json_needs_no_rich_and_has_no_colours(site, at_a_terminal):
    site.has(apps.evolution('one'))
    at_a_terminal()
    looked = site.type('status', '--json')
    assert ESCAPE not in looked.out
    assert looked.json['pending'] == ['one']
