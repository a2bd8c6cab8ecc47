"""Proof that a request was sent from a page of ours: a signed token, in a cookie and in a header.

It needs no session: while evolutions run, the session may be unusable.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Mapping
from typing import Any

from webob.cookies import SignedSerializer

#: The cookie that has the token, and the header that must repeat it: only a page of the same origin can read it.
COOKIE = 'tgext_evolve_token'
HEADER = 'X-Evolve-Token'

#: How long a token is good, in seconds.
LIFETIME = 8 * 3600

#: Where an application keeps a secret, in the order in which they are taken.
SECRETS = (
    'tgext.evolve.bypass_secret',
    'sa_auth.cookie_secret',
    'beaker.session.secret',
    'session.secret',
    'beaker.session.validate_key',
    'session.validate_key',
)


class Tokens:
    """Makes and checks the tokens of one application; every process of it takes those of the others.

    :param secret: what they are signed with.
    """

    def __init__(self, secret: str):
        self._serializer = SignedSerializer(secret, 'tgext.evolve.tokens', hashalg='sha256')

    @classmethod
    def of(cls, conf: Mapping[str, Any]) -> Tokens | None:
        """Signed with a secret that the application has anyway; None when it has none."""
        for name in SECRETS:
            secret = conf.get(name)
            if secret and isinstance(secret, str):
                return cls(secret)
        return None

    def make(self, who: str) -> str:
        """A new token for one person only."""
        value = {'who': who, 'until': int(time.time()) + LIFETIME, 'nonce': secrets.token_urlsafe(16)}
        token: str = self._serializer.dumps(value).decode('ascii')
        return token

    def left(self, token: str, who: str) -> float:
        """For how many seconds this token is good for this person; 0 when it is not, or is not ours."""
        try:
            value = self._serializer.loads(token.encode('ascii'))
            mine = value['who'] == who
            return max(0.0, float(value['until']) - time.time()) if mine else 0.0
        except (ValueError, KeyError, TypeError):
            return 0.0

    def agree(self, cookie: str | None, header: str | None, who: str) -> bool:
        """Do cookie and header have the same token, and is it this person's?"""
        if not cookie or not header or not cookie.isascii() or not header.isascii():
            return False
        return hmac.compare_digest(cookie, header) and self.left(cookie, who) > 0
