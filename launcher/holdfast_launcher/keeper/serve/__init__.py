"""The serving side of a keeper: log, sessions, websockets and HTTP."""
