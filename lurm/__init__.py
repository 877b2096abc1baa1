"""General-purpose user vectors from behavior logs, after LURM (arXiv 2110.11337)."""
