"""A small MCP server for the tests, made with the mcp package's own server side; a real process.

python tests/mcp_server.py stdio
python tests/mcp_server.py http PORT
"""

from __future__ import annotations

import os
import socket
import sys

import anyio
from mcp.server.mcpserver import Context, Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("test-server", log_level="ERROR")


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
def order(number: str) -> dict[str, object]:
    """Look up an order."""
    return {"number": number, "status": "new", "items": [1, 2]}


@server.tool(structured_output=False)
def picture() -> Image:
    """Show a picture."""
    return Image(data=b"\x89PNG not really", format="png")


@server.tool()
def fails() -> str:
    """Fail."""
    raise ToolError("the kitchen is on fire")


@server.tool()
async def slow(seconds: float) -> str:
    """Take its time."""
    await anyio.sleep(seconds)
    return "slept"


@server.tool()
def environment(name: str) -> str:
    """A variable of the environment, or where the server runs and as what."""
    own = {"cwd": os.getcwd(), "pid": str(os.getpid())}
    return own.get(name, os.environ.get(name, "unset"))


@server.tool(structured_output=False)
async def learn(ctx: Context) -> str:
    """Have one tool more from now on."""

    def taught() -> str:
        """Was not there before."""
        return "taught"

    server.add_tool(taught, name="taught")
    await ctx.notify_tools_changed()
    return "learnt"


@server.tool()
def flood() -> str:
    """Say a lot on stderr, far more than a pipe holds."""
    for _ in range(2000):
        sys.stderr.write("x" * 1000 + "\n")
    sys.stderr.flush()
    return "said"


@server.tool()
def stop() -> str:
    """End at once, in the middle of the call."""
    sys.stderr.write("it stops here\n")
    sys.stderr.flush()
    os._exit(3)


def main() -> None:
    if sys.argv[1] == "stdio":
        server.run("stdio")
        return
    import uvicorn

    listening = socket.create_server(("127.0.0.1", int(sys.argv[2])))
    print(listening.getsockname()[1], flush=True)
    app = server.streamable_http_app(host="127.0.0.1", stateless_http="stateless" in sys.argv)
    uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[listening])


if __name__ == "__main__":
    main()
