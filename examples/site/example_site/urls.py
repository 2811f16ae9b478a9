"""All addresses of the example site."""

from django.contrib.staticfiles.views import serve
from django.urls import include, path

urlpatterns = [
    path("", include("board.urls")),
    # `insecure` lets Django hand out the files of the apps without DEBUG. It means "slow, and never
    # audited for the open internet", which is fine for one page on 127.0.0.1; a real site leaves
    # this to its web server or a CDN.
    path("static/<path:path>", serve, {"insecure": True}),
]
