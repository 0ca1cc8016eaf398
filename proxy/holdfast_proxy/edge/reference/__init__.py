"""The API as data: one table of calls, the OpenAPI document and the page made from it."""
