"""The ring's own audit: what is wrong with records and with what is derived, and its repair."""
