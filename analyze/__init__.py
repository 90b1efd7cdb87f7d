"""Every number, table and figure of the study, recomputed from stores on a laptop; no model is loaded."""
