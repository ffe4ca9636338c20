"""Translation of a network into kernel calls: one file a family of operators, all of them listed in rules.py."""
