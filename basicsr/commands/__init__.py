"""The commands of ``basicsr``, one per file."""
