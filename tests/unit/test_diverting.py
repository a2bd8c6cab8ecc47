"""Whatever leads to the application's own database leads to the scratch one, before anything is bound."""

from __future__ import annotations

from tgext.evolve.databases import divert, made_for

SCRATCH = 'sqlite:////tmp/scratch.db'


def diverted(**conf):
    conf = {key.replace('__', '.'): value for key, value in conf.items()}
    with made_for(SCRATCH):
        divert(conf)
    return conf


def test_the_one_url():
    conf = diverted(sqlalchemy__url='postgresql://own', sqlalchemy__echo=False)
    assert conf['sqlalchemy.url'] == SCRATCH
    assert conf['sqlalchemy.echo'] is False


def test_also_where_the_application_has_it_from_elsewhere():
    assert diverted()['sqlalchemy.url'] == SCRATCH


def test_master_and_all_slaves_and_nothing_beside_them():
    conf = diverted(
        sqlalchemy__master__url='postgresql://own',
        sqlalchemy__slaves__one__url='postgresql://own2',
        sqlalchemy__slaves__two__url='postgresql://own3',
    )
    assert {value for key, value in conf.items() if key.endswith('.url')} == {SCRATCH}
    assert 'sqlalchemy.url' not in conf


def test_a_history_that_is_kept_elsewhere_is_not():
    conf = diverted(tgext__evolve__store='postgresql://history')
    assert conf['tgext.evolve.store'] == 'sqlalchemy'
    assert conf['tgext.evolve.watch'] == 0


def test_nothing_is_diverted_outside():
    conf = {'sqlalchemy.url': 'postgresql://own'}
    divert(conf)
    assert conf == {'sqlalchemy.url': 'postgresql://own'}
