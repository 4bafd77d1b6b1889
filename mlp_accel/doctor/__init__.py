"""What can be wrong with an installation, one file for each kind."""
