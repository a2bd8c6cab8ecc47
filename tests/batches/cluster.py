"""A Dask cluster of real processes on this host."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from tests.batches.site import environment
from tests.processes.harness import ROOT, free_port
from tests.servers import _guard


class Cluster:
    """A scheduler, and nannies with a worker each, as the commands of Dask start them; without a dashboard."""

    def __init__(self, directory):
        self._directory = directory
        self._processes = []
        self._guards = []
        self.port = free_port()
        self.address = f'tcp://127.0.0.1:{self.port}'
        self.scheduler = self._start(
            'dask_scheduler', '--host', '127.0.0.1', '--port', str(self.port), '--no-dashboard', '--no-show'
        )
        self.nannies = [self.nanny(), self.nanny()]

    def nanny(self):
        return self._start(
            'dask_worker',
            *(self.address, '--nthreads', '1', '--nworkers', '1', '--no-dashboard', '--host', '127.0.0.1'),
            *('--memory-limit', '0', '--local-directory', str(self._directory / 'scratch')),
        )

    def _start(self, module, *arguments):
        with open(self._directory / f'{module}.log', 'ab') as output:
            process = subprocess.Popen(
                [sys.executable, '-m', f'distributed.cli.{module}', *arguments],
                cwd=ROOT,
                env=environment(),
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._processes.append(process)
        # When the tests themselves are killed it ends too, and a nanny's worker with it.
        self._guards.append(_guard(process.pid, self._directory / 'scratch'))
        return process

    def log(self, name='dask_worker'):
        return (self._directory / f'{name}.log').read_text(errors='replace')

    def close(self):
        for process in self._processes:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
        for guard in self._guards:
            guard.kill()
            guard.communicate()
        for name in ('dask_scheduler', 'dask_worker'):
            print(f'-- {name}\n{self.log(name)[-6000:]}')
