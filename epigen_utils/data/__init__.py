"""Where data come from, and what a data set is: registry, downloads, readers, the AnnData contract, gene names, simulation.

No statistics, no models: a function here gives data, checked.
"""
