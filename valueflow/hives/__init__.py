"""Texts and values in one embedding space, and the judges that read it."""
