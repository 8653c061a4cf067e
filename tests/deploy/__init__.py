"""The files of deploy/, as far as a machine without a cluster can tell."""
