"""One kill -9 and the way back from it, for the test that promises something of it and for the benchmark."""

from __future__ import annotations

import time
from collections.abc import Mapping

from tests.processes.harness import Site

#: Seconds for a machine that runs other things at the same time.
SLACK = 5.0


def held(url: str) -> dict[str, object]:
    """The evolution whose process is killed in the middle of it, as this database can do it."""
    return {'id': 'one', 'does': 'hold', 'transactional': not url.startswith('mongodb')}


def recover(sites: Mapping[str, Site]) -> dict[str, float]:
    """Kill what runs each site's evolution; the seconds until a process that waits has answered its first 200.

    All of them at the same time: most of it is waiting. The evolution has run again by then.

    :raises AssertionError: after lease + poll + 1 s, and some slack, there was no 200.
    """
    holders = {name: site.fork() for name, site in sites.items()}
    for name, site in sites.items():
        site.until_told('half', 'one', holders[name].pid)
    waiters = {name: site.fork() for name, site in sites.items()}
    for waiter in waiters.values():
        assert waiter.first_answer()[0] == 503
    killed = {}
    for name, holder in holders.items():
        killed[name] = time.monotonic()
        holder.kill()
        # Whoever runs it again is not held.
        sites[name].go()
    seconds: dict[str, float] = {}
    while len(seconds) < len(sites):
        for name in sorted(set(sites) - set(seconds)):
            passed = time.monotonic() - killed[name]
            if waiters[name].first_answer()[0] == 200:
                seconds[name] = time.monotonic() - killed[name]
            options = sites[name].options
            assert passed <= options['lease'] + options['poll'] + 1 + SLACK, (
                f'{name}: no 200 after {passed:.1f} s\n{waiters[name].log}'
            )
        time.sleep(0.01)
    for process in (*holders.values(), *waiters.values()):
        process.reap()
    return seconds
