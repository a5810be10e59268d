"""CSVs to findings: statistics, figures and the report, from the committed tables alone and without torch."""
