"""A program that runs uvicorn itself."""

import sys

import asgi
import guest
import uvicorn


@guest.main
def main():
    uvicorn.run(asgi.app, uds=sys.argv[1])


main()
