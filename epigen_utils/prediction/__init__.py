"""Two-class prediction on bulk samples: cohorts, comparison of models with baselines and controls, transfer."""
