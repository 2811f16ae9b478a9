"""Read by `gunicorn example_site.wsgi` when started in this directory.

Plain gunicorn: four sync workers, each of which answers one request at a time.
"""

workers = 4
control_socket_disable = True  # gunicorn 25 and later would leave a socket in the home directory
