"""Migrations of a state only: there is no table."""
