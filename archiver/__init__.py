"""What the user runs, and the codecs."""
