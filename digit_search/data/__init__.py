"""From CSV files to validated Arrow tables and row splits, without torch or Ray."""
