"""A WSGI application."""

import guest

guest.module()


@guest.job
def answer():
    return guest.work()


def app(environ, start_response):
    body = answer()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
