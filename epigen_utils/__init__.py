"""Helpers behind the notebooks: one module, one idea. See CONTRIBUTING.md for the tour."""

__version__ = "0.1.0"
