"""Lease and history in SQLite, PostgreSQL, MariaDB and MySQL."""

from .store import SQLAlchemyStore

__all__ = ['SQLAlchemyStore']
