"""The documentation holds: links lead somewhere, tables equal the code, examples run."""
