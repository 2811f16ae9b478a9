"""What not every site needs: each is an app of its own in ``INSTALLED_APPS``."""
