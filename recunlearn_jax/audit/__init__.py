"""Checks that a request was answered, beyond recall on the forget set."""

from recunlearn_jax.audit.base import Case, Check, Planted, Subject
from recunlearn_jax.audit.case import make_case
from recunlearn_jax.audit.checks import CHECKS, register
from recunlearn_jax.audit.examine import examine

__all__ = ["CHECKS", "Case", "Check", "Planted", "Subject", "examine", "make_case", "register"]
