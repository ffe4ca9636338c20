"""The command line: one module per group of verbs, nothing in them but options, calls and tables."""
