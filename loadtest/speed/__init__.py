"""Speed against eager PyTorch: ``compare``, and the search for better settings."""
