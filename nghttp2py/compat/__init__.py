"""Names of other libraries, for programs that change an import and go on."""
