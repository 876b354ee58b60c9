"""Log lines at stream speed: from files, pipes and shippers to anomalies and alerts."""
