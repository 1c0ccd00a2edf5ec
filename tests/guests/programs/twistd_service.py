"""An application for twistd, whose handlers come after the guard, and which kills itself once its loop has ended."""

import reactor_main
from twisted.application import service


class Working(service.Service):
    def startService(self):  # noqa: N802 - twisted's name
        super().startService()
        reactor_main.reactor.callWhenRunning(reactor_main.start)


application = service.Application("guest")
Working().setServiceParent(application)
