"""The pages: plain functions `async def NAME(view, request) -> web.StreamResponse`, each named in
the table of routes in `server`."""
