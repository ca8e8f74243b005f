"""Tests that leave no trace, and count their statements.

Nothing of this is imported before it is used.
"""
