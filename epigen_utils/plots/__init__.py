"""Figures only: each function takes an axes and returns it; figures that lay out their own axes say so.

Nothing is computed here that a table would show.
"""
