"""The command line: a module for each subcommand, and the options, console and exit codes that they share."""
