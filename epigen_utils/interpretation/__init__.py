"""What a classifier of gene sentences relies on: representations, attribution, attention's alignment with gene sets, biomarkers."""
