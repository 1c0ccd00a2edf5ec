"""Where main runs: a plain thread, or a task of asyncio or trio."""
