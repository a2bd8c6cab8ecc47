"""Reads, when all is over, what the database and the witness say, and holds it against what is promised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tests.chaos.figures import Figures
from tests.processes.harness import Site
from tgext.evolve.history import SETTLED, State


def check(site: Site, figures: Figures, *, twice: Sequence[str] = (), undone: Sequence[str] = ()) -> None:
    """Every evolution of the site is done, none was lost or recorded twice, and nobody was served too early.

    What was found is counted as ``evolutions``, ``double runs``, ``lost records``, ``stuck`` and ``early 200s``, then
    asserted to be right: the figures tell of a failure as well.

    :param twice: ids of evolutions that may have come to their end more often than there are attempts on record.
    :param undone: ids that are meant not to be done in the end.
    """
    history = site.store.history()
    wrong = []

    def found(what: str, number: int, detail: str) -> None:
        figures.count(what, number)
        if number:
            wrong.append(f'{what}: {detail}')

    expected = [each for each in site.evolutions if each['id'] not in undone]
    figures.count('evolutions', len(expected))
    stuck = [each['id'] for each in expected if each['id'] not in history.settled]
    found('stuck', len(stuck), f'{stuck} are not done')
    running = [a.evolution_id for a in history.attempts if a.state is State.RUNNING]
    found('stuck', len(running), f'{running} are recorded as running, and nobody runs them')

    doubled = lost = 0
    for each in expected:
        id = each['id']
        attempts = history.of(id)
        done = [a for a in attempts if a.state in SETTLED]
        begun, ended = site.count('begin', id), site.count('end', id)
        # An attempt that was never told of cannot be done; one that was cannot be without a record.
        if len(done) > 1:
            doubled += 1
            wrong.append(f'{id!r} is recorded as done {len(done)} times')
        if begun > len(attempts):
            lost += 1
            wrong.append(f'{id!r} began {begun} times, and {len(attempts)} attempts are recorded')
        if done and done[0].state is State.DONE and not ended:
            lost += 1
            wrong.append(f'{id!r} is recorded as done and never came to its end')
        if not each.get('transactional') and ended > 1 and id not in twice and len(attempts) < ended:
            doubled += 1
            wrong.append(f'{id!r} ended {ended} times in {len(attempts)} attempts')
        tokens = [a.token for a in attempts]
        assert tokens == sorted(tokens), f'{id!r} has attempts whose tokens do not grow: {tokens}'
    # What a transaction changed is there once, however often it was tried; the rest is there at least once.
    batched = [each for each in expected if each.get('batched')]
    if expected and all(each.get('transactional') or each.get('batched') for each in expected):
        rows = Counter(site.seen)
        if (site.is_sql or not batched) and any(seen > len(expected) for seen in rows):
            doubled += 1
            wrong.append(f'{len(expected)} evolutions in transactions changed rows so often: {rows}')
        if rows.total() != site.rows or any(seen < len(expected) for seen in rows):
            lost += 1
            wrong.append(f'{len(expected)} evolutions changed rows only so often: {rows}')
    for each in batched:
        checkpoints = site.store.checkpoints(each['id'])
        if sum(checkpoint.done for checkpoint in checkpoints) != site.rows:
            lost += 1
            wrong.append(f'{each["id"]!r} has not counted {site.rows} items: {checkpoints}')
    figures.count('double runs', doubled)
    figures.count('lost records', lost)

    ids = {each['id'] for each in expected}
    last = max((line.time for line in site.lines('end') if line.about in ids), default=0.0)
    early = [line for line in site.lines('served') if line.time < last]
    closing = [each for each in expected if each.get('serving', 'nothing') == 'nothing']
    found('early 200s', len(early) if closing == expected else 0, f'{early}')

    assert not wrong, '\n'.join(wrong)
