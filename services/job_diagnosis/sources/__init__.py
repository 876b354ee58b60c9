"""Where a failed job's log is fetched from when it is named and not sent."""
