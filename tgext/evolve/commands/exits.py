"""How the command ends: its exit codes, and what is wrong in one line."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Those above 2 are the ones of ``sysexits.h`` and of shells."""

    #: It was done; of ``check``: nothing is pending.
    DONE = 0
    #: Of ``check``: something is pending. Else: it failed, or only a person can go on.
    FAILED = 1
    #: The command line cannot be understood.
    USAGE = 2
    #: There is no evolution of that id.
    NO_SUCH_ID = 65
    #: There is no such ini file.
    NO_SUCH_INI = 66
    #: The database is away, or refuses.
    UNAVAILABLE = 69
    #: ``create`` would have to overwrite something.
    CANNOT_CREATE = 73
    #: Somebody else holds the lease, or evolutions are paused: try again later.
    LATER = 75
    #: The ini or the application cannot be used; tgext.evolve is not plugged, or disabled.
    CONFIGURATION = 78
    #: Ctrl-C.
    INTERRUPTED = 130
    #: SIGTERM.
    TERMINATED = 143


class Problem(Exception):
    """What ends the command, for one line on stderr.

    :param kind: for scripts, in a word or two; stable.
    :param thing: what is wrong.
    :param remedy: what to do or to type next.
    """

    def __init__(self, code: Exit, kind: str, thing: str, remedy: str = ''):
        self.code = code
        self.kind = kind
        self.thing = ' '.join(thing.split())
        self.remedy = ' '.join(remedy.split())
        super().__init__(f'{self.thing}{"" if self.thing.endswith((".", "!", "?")) else "."} {self.remedy}'.strip())
