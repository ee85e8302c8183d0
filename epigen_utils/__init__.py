"""Helpers behind the notebooks: one room, one subject; one module, one idea. See CONTRIBUTING.md for the tour."""

__version__ = "0.1.0"
