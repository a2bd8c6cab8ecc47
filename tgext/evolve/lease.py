"""The distributed lock while it is held: renewed, lost, given back."""

from __future__ import annotations

import logging
import threading
import time

from .errors import LeaseLost, StoreBusy, StoreError
from .events import fields
from .points import point
from .stores.base import Grant, Owner, Renewal, Report, Requests, Store

log = logging.getLogger(__name__)

#: Reports reach the database at most this often, in seconds.
_TICK = 1.0


class Lease:
    """A granted lease, renewed by a thread of its own every third of its time.

    It is lost when the database says so, and also when it could not be renewed for one lease time
    by this process's monotonic clock: whoever reads the database's clock may have taken it then.

    :param ttl: seconds.
    """

    def __init__(self, store: Store, grant: Grant, ttl: float):
        self.store = store
        self.grant = grant
        self.ttl = ttl
        #: What people asked of the holder, as of the last renewal.
        self.requests = Requests()
        self._report = Report()
        self._renewed = time.monotonic()
        self._lost = False
        self._busy = False
        self._ended = threading.Event()
        self._nudged = threading.Event()
        self._renewing = threading.Lock()
        self._thread: threading.Thread | None = None

    @classmethod
    def take(cls, store: Store, owner: Owner, ttl: float) -> Lease | None:
        """None when somebody else holds it."""
        asked = time.monotonic()
        grant = store.acquire(owner, ttl)
        if grant is None:
            return None
        lease = cls(store, grant, ttl)
        # The time until the answer came belongs to the lease as well.
        lease._renewed = asked
        return lease

    @property
    def token(self) -> int:
        return self.grant.token

    @property
    def is_lost(self) -> bool:
        if not self._lost and not self._busy and time.monotonic() - self._renewed > self.ttl:
            self._warn('could not be renewed for %g seconds: this process holds it no longer', self.ttl)
            self._lost = True
        return self._lost

    def check(self) -> None:
        """:raises LeaseLost: when it is not held any more."""
        if self.is_lost:
            raise LeaseLost(f'the lease (token {self.token}) is held by another process now')

    def report(self, report: Report) -> None:
        """Tell everybody, soon: those who wait show it to their users."""
        self._report = report
        self._nudged.set()

    def renew(self) -> None:
        """Renew now, and know for sure.

        :raises LeaseLost: when it is not held any more.
        :raises StoreError: when the database does not answer, or is busy for a whole lease.
        """
        until = time.monotonic() + self.ttl
        while True:
            with self._renewing:
                self._renew()
            self.check()
            if not self._busy:
                return
            if time.monotonic() > until:
                raise StoreBusy(
                    'the lease could not be renewed: somebody else is writing all the time',
                    place=self.store.name,
                    remedy='It is tried again.',
                )
            self._ended.wait(0.05)

    def _renew(self) -> None:
        asked = time.monotonic()
        renewal = self.store.renew(self.grant, self.ttl, self._report)
        self._busy = renewal is Renewal.BUSY
        if renewal is Renewal.KEPT:
            self._renewed = asked
            self.requests = self.store.requests()
        elif renewal is Renewal.LOST:
            self._lost = True

    def _warn(self, message: str, *args: object) -> None:
        self._say(logging.WARNING, message, *args)

    def _say(self, level: int, message: str, *args: object, exc_info: bool = False) -> None:
        namespace = self.store.namespace
        extra = fields(namespace, id=self._report.evolution_id, token=self.token)
        log.log(
            level,
            '[%s] the lease (token %d) ' + message,
            namespace,
            self.token,
            *args,
            exc_info=exc_info,
            extra=extra,
        )

    # -- the heartbeat

    def __enter__(self) -> Lease:
        if self.store.threads:
            self._thread = threading.Thread(target=self._beat, name='tgext.evolve heartbeat', daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Stop renewing, and give it back if it is still held."""
        self._ended.set()
        self._nudged.set()
        if self._thread is not None:
            self._thread.join(self.ttl)
        if not self._lost:
            try:
                self.store.release(self.grant)
            except StoreError as error:
                self._say(logging.INFO, 'was not given back, it expires by itself: %s', error.thing)

    def _sleep(self, pause: float) -> bool:
        """Until the next renewal is due, or something new was reported; False: it is the end."""
        asleep = time.monotonic()
        if self._nudged.wait(pause):
            # However often an evolution reports, the database hears of it once in a while.
            self._ended.wait(max(0.0, min(pause, _TICK) - (time.monotonic() - asleep)))
            self._nudged.clear()
        return not self._ended.is_set()

    def _beat(self) -> None:
        away = False
        pause = self.ttl / 3
        while self._sleep(pause):
            try:
                point('before-renewal')
                with self._renewing:
                    self._renew()
                point('after-renewal')
                if away:
                    self._say(logging.INFO, 'is renewed again')
                away, pause = False, self.ttl / 3
            except StoreError as error:
                # Not renewed is not lost yet: try sooner, and let the clock decide.
                self._busy = False
                if not away:
                    self._warn('could not be renewed: %s', error.thing)
                away, pause = True, self.ttl / 10
            except Exception:
                self._say(logging.ERROR, 'could not be renewed', exc_info=True)
                pause = self.ttl / 10
            if self.is_lost:
                self._warn('was lost')
                return
