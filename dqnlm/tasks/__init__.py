"""Pure logic of tasks: what is said, what follows, what it pays, and the best that is possible; no networks."""
