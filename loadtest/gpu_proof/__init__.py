"""Parity and speed of every way to run the models on a GPU, beside the card's own ceilings."""
