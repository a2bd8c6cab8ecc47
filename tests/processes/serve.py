"""A server that nobody recognises: plain Python and waitress, which says when it starts."""

from __future__ import annotations

import os
import time

import waitress
import webob

import tgext.evolve
from tests.processes.worker import make, note, settings


def main() -> None:
    given = settings()
    if given.get('barrier') == 'make':
        _meet(given)
    app = make()
    if given.get('barrier') == 'start':
        _meet(given)
    if given.get('start', True):
        tgext.evolve.start(app)
    if 'port' not in given:
        _wait(app, given)
        return
    server = waitress.create_server(app, host='127.0.0.1', port=given['port'], threads=2)
    note('serving')
    server.run()


def _meet(given) -> None:
    """Go on at the very moment at which all others do."""
    note('met')
    # Blocks until somebody opens the other end.
    os.close(os.open(given['fifo'], os.O_RDONLY))


def _wait(app, given) -> None:
    import tg

    opened = tgext.evolve.wait(tg.config, given.get('patience', 60))
    note('open' if opened else 'closed')
    if given.get('ask'):
        # The root controller tells that it was served.
        webob.Request.blank('/').get_response(app)
    if given.get('stay'):
        while True:
            time.sleep(60)


if __name__ == '__main__':
    main()
