"""A small wiki that evolves: the sample application of tgext.evolve."""
