"""A small Django project for the tests, under real servers: settings come from the environment."""
