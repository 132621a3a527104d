"""Forgetting: `answer` drives every method; a method moves parameters and nothing else."""

from recunlearn_jax.unlearn.base import Memory, Method, NoSettings, Problem
from recunlearn_jax.unlearn.driver import answer, prepare
from recunlearn_jax.unlearn.methods import METHODS, register

__all__ = ["METHODS", "Memory", "Method", "NoSettings", "Problem", "answer", "prepare", "register"]
