"""What ``python -m training benchmark train_failure_rca`` measures."""
