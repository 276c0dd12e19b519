"""Names of other libraries, for programs that only change an import."""
