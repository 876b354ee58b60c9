"""Where the logs come from that train and judge the root-cause model."""
