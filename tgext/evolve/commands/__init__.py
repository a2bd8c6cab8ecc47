"""``gearbox evolve``: what operators type. Every verb reads or does one thing, and starts nothing else."""

from .command import EvolveCommand

__all__ = ['EvolveCommand']
