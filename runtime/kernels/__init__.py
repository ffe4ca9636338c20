"""Kernels: one file a rule, each a frozen description of shapes and a function that emits TIR for it."""
