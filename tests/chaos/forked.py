"""Starts a process that forks in mid-run, when the file ``fork`` is there: parent and child go on alike."""

from __future__ import annotations

import os

import tgext.evolve
from tests.processes import serve
from tests.processes.worker import make, note, settings, wait_for_file


def main() -> None:
    app = make()
    tgext.evolve.start(app)
    wait_for_file('fork')
    if not os.fork():
        note('child')
        tgext.evolve.start(app)
    serve._wait(app, settings())


if __name__ == '__main__':
    main()
