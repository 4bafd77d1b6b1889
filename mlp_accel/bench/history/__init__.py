"""Speed over commits: results that are kept, where they change, and commits that are built and measured again."""
