"""A Flask application; run as a program, on its own development server."""

import sys

import guest
from flask import Flask

guest.module()
app = Flask("guest")


@app.route("/")
@guest.job
def answer():
    return guest.work()


@guest.main
def main():
    app.run(host=f"unix://{sys.argv[1]}")


if __name__ == "__main__":
    main()
