"""The job-failure service: why did it die, whose fault is it, who must be told."""
