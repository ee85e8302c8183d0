"""Students distilled from a frozen teacher: training, comparison, costs, export: paper B, sections 2 and 3."""
