"""Starts a plain server that is process 1 of a host that all others are on too, as in containers.

``python -m tests.chaos.alike PORT``. In namespaces of its own it really is process 1; elsewhere it only says so.
"""

from __future__ import annotations

import os
import socket
import sys

from tests.processes import serve, worker

HOST = 'box'


def main() -> None:
    if os.getpid() != 1:
        os.getpid = lambda: 1
    if socket.gethostname() != HOST:
        socket.gethostname = lambda: HOST
    serve.settings = lambda: {**worker.settings(), 'port': int(sys.argv[1])}
    serve.main()


if __name__ == '__main__':
    main()
