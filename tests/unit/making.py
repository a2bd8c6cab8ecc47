"""Plans and histories in one line, and what generates them."""

from __future__ import annotations

from hypothesis import strategies as st

from tgext.evolve.evolution import Evolution
from tgext.evolve.gate import Serving
from tgext.evolve.history import Attempt, State
from tgext.evolve.plan import Plan, PlannedEvolution

#: The fingerprint of what :func:`one` makes, unless it is told another.
CODE = 'the-code'


def one(id, *, code=CODE, **attributes):
    """A planned evolution that nobody runs, with a fingerprint of its own choice."""
    attributes['serving'] = Serving(attributes.get('serving', 'nothing'))
    made = PlannedEvolution(id=id, evolution=None, origin=f'module_of.{id}', **attributes)
    vars(made)['fingerprint'] = code
    return made


def at(id, state='done', *, token=1, attempt=1, code=CODE, **columns):
    """An attempt as a store reads it."""
    return Attempt(id, attempt, token, 'somebody', State(state), fingerprint=code, **columns)


def ids(evolutions):
    return [each.id for each in evolutions]


def an_evolution(**attributes):
    """An Evolution class with these attributes, and an evolve() that does nothing."""
    attributes.setdefault('evolve', lambda self: None)
    attributes.setdefault('__module__', __name__)
    return type('Made', (Evolution,), attributes)


@st.composite
def written(draw, most=12, ids=None):
    """Evolutions as somebody may write them: any order, any levels, dependencies without cycles."""
    names = ids or [f'e{number}' for number in range(draw(st.integers(0, most)))]
    ranked = draw(st.permutations(names))  # dependencies point backwards here
    made = []
    for number, name in enumerate(ranked):
        needed = draw(st.lists(st.sampled_from(ranked[:number]), max_size=3, unique=True)) if number else []
        made.append(
            one(
                name,
                depends_on=tuple(needed),
                serving=draw(st.sampled_from(Serving)),
                transactional=draw(st.booleans()),
                rerunnable=draw(st.sampled_from([True, False, None])),
            )
        )
    return draw(st.permutations(made))


def plans(**options):
    return written(**options).map(Plan)


def naive_order(evolutions, done=()):
    """The order of a plan, as one would do it by hand: again and again the best of those that may run."""
    left = [each for each in evolutions if each.id not in done]
    placed = set(done)
    order = []
    while left:
        ready = [each for each in left if all(id in placed for id in each.depends_on)]
        best = min(ready, key=lambda each: ['nothing', 'reads', 'everything'].index(each.serving.value))
        left.remove(best)
        placed.add(best.id)
        order.append(best)
    return order
