"""Data sets of tables, whose columns are real numbers or categories."""
