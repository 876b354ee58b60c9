"""Load tests of the running server, the eager baseline, and the demo's closing table."""
