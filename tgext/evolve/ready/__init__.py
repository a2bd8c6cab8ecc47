"""Batched evolutions for the commonest cases: instances of them go into the ``evolutions`` option as they are.

:mod:`.sql` for SQLAlchemy, :mod:`.mongodb` for MongoDB.
"""
