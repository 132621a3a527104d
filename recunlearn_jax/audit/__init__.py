"""Checks that a request was answered, beyond recall on the forget set."""
