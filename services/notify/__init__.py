"""Telling people: channels, routing, templates, and an outbox that forgets nothing."""
