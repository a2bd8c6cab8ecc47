"""Passwords are stored salted and hashed, never as they are."""

import hmac
import os
from hashlib import pbkdf2_hmac


def hash_password(password: str) -> str:
    salt = os.urandom(16)
    return f'{salt.hex()}${_digest(password, salt)}'


def verify_password(password: str, stored: str) -> bool:
    salt, _, digest = stored.partition('$')
    return hmac.compare_digest(_digest(password, bytes.fromhex(salt)), digest)


def _digest(password: str, salt: bytes) -> str:
    return pbkdf2_hmac('sha256', password.encode(), salt, iterations=100_000).hex()
