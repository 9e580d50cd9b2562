"""The command line: thin commands over what the library offers."""
