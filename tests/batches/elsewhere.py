"""The least that an executor can be: what goes to another process and what comes back is bytes.

python -m tests.batches.elsewhere      reads tasks from standard input, and answers on standard output
"""

from __future__ import annotations

import pickle
import struct
import subprocess
import sys
import threading
from concurrent.futures import Future

from tests.processes.harness import ROOT


class Elsewhere:
    """Hands one task after the other to a process of its own, which outlives many evolutions.

    It has ``submit(function, task)`` and ``shutdown(wait)``, and nothing else.
    """

    def __init__(self, worker):
        self._worker = worker
        self.futures = []
        self.shut = False

    def submit(self, function, task):
        future = Future()
        self.futures.append(future)
        question = pickle.dumps((function, task))

        def run():
            try:
                future.set_result(pickle.loads(self._worker.ask(question)))
            except Exception as error:
                future.set_exception(error)

        threading.Thread(target=run, daemon=True).start()
        return future

    def shutdown(self, wait):
        self.shut = True


class Worker:
    """The process itself."""

    def __init__(self, log):
        with open(log, 'ab') as output:
            self._process = subprocess.Popen(
                [sys.executable, '-m', 'tests.batches.elsewhere'],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
            )
        self._asking = threading.Lock()
        self.log = log

    def ask(self, question):
        with self._asking:
            write(self._process.stdin, question)
            return read(self._process.stdout)

    def close(self):
        self._process.kill()
        self._process.communicate()


def write(stream, message):
    stream.write(struct.pack('>I', len(message)) + message)
    stream.flush()


def read(stream):
    size = stream.read(4)
    if not size:
        raise EOFError
    return stream.read(struct.unpack('>I', size)[0])


def main():
    answers = sys.stdout.buffer
    sys.stdout = sys.stderr
    while True:
        try:
            function, task = pickle.loads(read(sys.stdin.buffer))
        except EOFError:
            return
        write(answers, pickle.dumps(function(task)))


if __name__ == '__main__':
    main()
