"""The boards: facts, ways to reach them, and the check that a bundle can run on one."""
