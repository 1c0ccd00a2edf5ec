"""The smallest guarded program that is async. Use it when main is a coroutine.

`run="asyncio"` makes a plain function of `main`, which runs the loop; "uvloop" and "trio" do the same with theirs.
With `@guard` alone it stays a coroutine function, for `asyncio.run(main())`.
"""

import asyncio

from cleanup_guard import guard, on_exit


async def say_goodbye() -> None:
    await asyncio.sleep(0.1)  # as if it closed a connection
    print("goodbye", flush=True)


@guard(run="asyncio")
async def main() -> None:
    on_exit(say_goodbye)
    print("ready: press Ctrl-C, or send SIGTERM", flush=True)
    await asyncio.sleep(3600)


if __name__ == "__main__":
    main()
