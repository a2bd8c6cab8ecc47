"""A TCP proxy between the processes under test and a database server: the net, which the tests cut.

It knows nothing of any protocol but the bytes by which a test tells one message from another.
"""

from __future__ import annotations

import heapq
import itertools
import re
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any
from urllib.parse import urlsplit

#: Linux: a socket in this mode is closed without a word to the other side.
_TCP_REPAIR = 19

#: The message with which a work, or the record of one, is saved.
COMMIT = {
    'postgresql': re.compile(rb'^Q.{4}COMMIT\0', re.DOTALL),
    'mariadb': re.compile(rb'^.{4}\x03COMMIT$', re.DOTALL),
}
#: The message with which an attempt is recorded as done outside of a transaction.
RECORD = {
    'postgresql': re.compile(rb'UPDATE tgext_evolve_history SET'),
    'mariadb': re.compile(rb'UPDATE tgext_evolve_history SET'),
    'mongodb': re.compile(rb'findAndModify.*tgext_evolve_history', re.DOTALL),
}
#: What only the connection of an evolution says: any other is the store's.
WORK = re.compile(rb'UPDATE page|\x02update\x00\x05\x00\x00\x00page\x00')

Which = Callable[['Link'], bool]


def every(link: Link) -> bool:
    return True


def session(link: Link) -> bool:
    """Is this the connection of the session that an evolution works with?"""
    return link.is_session


def store(link: Link) -> bool:
    """Is this a connection of the lease and the history?"""
    return not link.is_session


class Link:
    """One connection of a client, and the one to the server that was made for it."""

    def __init__(self, client: socket.socket, server: socket.socket):
        self.client = client
        self.server = server
        self.is_session = False
        self.open = True
        #: The answer to what was sent last is to be lost.
        self.is_deaf = False
        #: When the last message is due that is on its way, per receiver.
        self.due = {client: 0.0, server: 0.0}

    def other(self, end: socket.socket) -> socket.socket:
        return self.server if end is self.client else self.client


class Proxy:
    """One way to a server, for one process or several; a thread moves the bytes.

    :param url: of the server, with the database.
    """

    def __init__(self, url: str):
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._target = (parts.hostname, parts.port)
        self._listener = self._listen(0)
        self._port = self._listener.getsockname()[1]
        place = f'127.0.0.1:{self._port}'
        user = parts.netloc.rpartition('@')[0]
        self.url = parts._replace(netloc=f'{user}@{place}' if user else place).geturl()
        if url.startswith('mongodb'):
            # Or the driver would ask the server for its address, and go round us.
            self.url += ('&' if parts.query else '?') + 'directConnection=true'
        #: How long each message is on its way, in seconds.
        self.delay = 0.0
        #: What happens to the next message of a client that fits: answer or request is lost.
        self._lose_answer: re.Pattern[bytes] | None = None
        self._lose_request: re.Pattern[bytes] | None = None
        #: Set when an answer, or a request, was lost.
        self.has_lost = threading.Event()
        self.links: list[Link] = []
        self._is_cut: Which = lambda link: False
        self._selector = selectors.DefaultSelector()
        self._orders: deque[tuple[Callable[[], Any], Future]] = deque()
        self._late: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()
        self._waker, self._wakes = socket.socketpair()
        self._selector.register(self._wakes, selectors.EVENT_READ, self._awake)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._ended = False
        self._thread = threading.Thread(target=self._run, name='proxy', daemon=True)
        self._thread.start()

    # -- what tests say

    def cut(self, which: Which = every) -> None:
        """Silently: what either side sends or says (also the end of a connection) waits until :meth:`heal`."""
        self._order(lambda: self._cut(which))

    def heal(self) -> None:
        """All is as it was; what waited arrives now, as the net's own repetitions would bring it."""
        self._order(lambda: self._cut(lambda link: False))
        self._order(self._admit)

    def refuse(self) -> None:
        """No new connections; those that are there go on."""
        self._order(self._turn_away)

    def reset(self, which: Which = every) -> None:
        """Both sides are told that the connection is gone."""
        self._order(lambda: [self._reset(link) for link in list(self.links) if which(link)])

    def vanish(self, which: Which = every) -> None:
        """Nobody is told that the connection is gone, as when a firewall has forgotten it. For root on Linux.

        Who sends hears of it; who waits for an answer does not, unless he asks.
        """

        def forget() -> None:
            for link in list(self.links):
                if which(link):
                    for end in (link.client, link.server):
                        end.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 1)
                    self._drop(link)

        self._order(forget)

    def lose_answer(self, message: re.Pattern[bytes]) -> None:
        """The next such message arrives and is answered; then the connection is reset, and the answer is lost."""
        self.has_lost.clear()
        self._lose_answer = message

    def lose_request(self, message: re.Pattern[bytes]) -> None:
        """The next such message does not arrive; the connection is reset."""
        self.has_lost.clear()
        self._lose_request = message

    def close(self) -> None:
        self.reset()
        self._ended = True
        self._waker.send(b'!')
        self._thread.join()
        for each in (self._listener, self._waker, self._wakes):
            each.close()
        self._selector.close()

    # -- the thread

    def _order(self, what: Callable[[], Any]) -> None:
        done: Future = Future()
        self._orders.append((what, done))
        self._waker.send(b'!')
        done.result(10)

    def _run(self) -> None:
        while not self._ended:
            pause = max(0.0, self._late[0][0] - time.monotonic()) if self._late else None
            for key, _ in self._selector.select(pause):
                key.data()
            while self._late and self._late[0][0] <= time.monotonic():
                heapq.heappop(self._late)[2]()

    def _awake(self) -> None:
        self._wakes.recv(1024)
        while self._orders:
            what, done = self._orders.popleft()
            try:
                done.set_result(what())
            except BaseException as error:
                done.set_exception(error)

    def _listen(self, port: int) -> socket.socket:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(('127.0.0.1', port))
        listener.listen(128)
        listener.setblocking(False)
        return listener

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except BlockingIOError:
            return
        client.setblocking(True)
        try:
            server = socket.create_connection(self._target, 5)
        except OSError:
            _abort(client)
            return
        server.settimeout(None)
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = Link(client, server)
        self.links.append(link)
        self._attend(link)

    def _attend(self, link: Link) -> None:
        """Read from a link, or leave what comes where it is."""
        wanted = not self._is_cut(link)
        for end in (link.client, link.server):
            registered = end in self._selector.get_map()
            if wanted and not registered:
                self._selector.register(end, selectors.EVENT_READ, lambda end=end: self._move(link, end))
            elif registered and not wanted:
                self._selector.unregister(end)

    def _cut(self, which: Which) -> None:
        self._is_cut = which
        for link in self.links:
            self._attend(link)

    def _turn_away(self) -> None:
        self._selector.unregister(self._listener)
        self._listener.close()

    def _admit(self) -> None:
        if self._listener.fileno() < 0:
            self._listener = self._listen(self._port)
            self._selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def _move(self, link: Link, source: socket.socket) -> None:
        """Something came from one end of a link."""
        if not link.open or self._is_cut(link):
            return
        try:
            data = source.recv(1 << 16)
        except OSError:
            self._reset(link)
            return
        if source is link.server:
            if link.is_deaf:
                self._reset(link)
                self.has_lost.set()
                return
        elif self._is_lost(link, data):
            return
        sink = link.other(source)
        if not data:
            # Ours to read no more; what goes the other way may still come.
            self._selector.unregister(source)
        due = link.due[sink] = max(link.due[sink], time.monotonic() + self.delay)
        if due <= time.monotonic():
            self._send(link, sink, data)
        else:
            heapq.heappush(self._late, (due, next(self._number), lambda: self._send(link, sink, data)))

    def _is_lost(self, link: Link, data: bytes) -> bool:
        """Look at what a client says."""
        if WORK.search(data):
            link.is_session = True
            self._attend(link)
        if self._lose_request is not None and self._lose_request.search(data):
            self._lose_request = None
            self._reset(link)
            self.has_lost.set()
            return True
        if self._lose_answer is not None and self._lose_answer.search(data):
            self._lose_answer = None
            link.is_deaf = True
        return False

    def _send(self, link: Link, sink: socket.socket, data: bytes) -> None:
        if not link.open:
            return
        if self._is_cut(link):
            # It was on its way when the net was cut: it arrives when that is back.
            due = link.due[sink] = max(link.due[sink], time.monotonic() + 0.05)
            heapq.heappush(self._late, (due, next(self._number), lambda: self._send(link, sink, data)))
            return
        try:
            if data:
                sink.sendall(data)
            else:
                self._drop(link)
        except OSError:
            self._reset(link)

    def _reset(self, link: Link) -> None:
        for end in (link.client, link.server):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        self._drop(link)

    def _drop(self, link: Link) -> None:
        if not link.open:
            return
        link.open = False
        self.links.remove(link)
        for end in (link.client, link.server):
            if end in self._selector.get_map():
                self._selector.unregister(end)
            end.close()


def _abort(end: socket.socket) -> None:
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    end.close()
