"""Other implementations of the same averages, ready to be timed beside ours."""
