"""What the stages agree on: the manifest of a run and the tree of errors. stdlib + pydantic."""
