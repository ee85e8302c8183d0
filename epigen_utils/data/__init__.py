"""Data: registry, downloads, readers, the contract of a data set (AnnData), gene names, simulation.

No statistics, no models: functions here return checked data.
"""
