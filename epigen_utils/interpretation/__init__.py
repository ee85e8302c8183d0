"""What a classifier of gene sentences relies on: representations, attribution, alignment with gene sets, biomarkers."""
