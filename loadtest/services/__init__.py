"""What the services on top of the server hold: one measurement each."""
