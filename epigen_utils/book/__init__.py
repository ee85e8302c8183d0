"""Notebooks to pages: parameters, runs, report, claims, provenance, the site.

This room knows the project's notebooks; the rooms before it do not.
"""
