"""What can go wrong, said with the thing, the place and the remedy."""

from __future__ import annotations

import pickle

import pytest

from tgext.evolve import errors

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.EvolveError)]


@pytest.mark.parametrize('kind', KINDS)
def test_every_error_says_what_and_where_and_what_to_do(kind):
    error = kind('it broke', place='a file', remedy='Mend it.')
    assert str(error) == 'it broke (in a file). Mend it.'
    assert (error.thing, error.place, error.remedy) == ('it broke', 'a file', 'Mend it.')


@pytest.mark.parametrize('kind', KINDS)
def test_every_error_survives_its_way_to_another_process(kind):
    error = pickle.loads(pickle.dumps(kind('it broke', place='a file', remedy='Mend it.')))
    assert (type(error), error.place, str(error)) == (kind, 'a file', 'it broke (in a file). Mend it.')


@pytest.mark.parametrize('kind', [errors.LeaseLost, errors.Cancelled])
def test_a_broad_except_does_not_swallow_the_end_of_a_run(kind):
    assert not issubclass(kind, Exception)


def test_every_error_has_a_word_of_its_own():
    assert all(kind.__doc__ for kind in KINDS)
