"""Batched evolutions on real databases."""
