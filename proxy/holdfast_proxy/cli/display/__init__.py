"""How the command shows things: times, ids, tables, and the screen that shows them again."""
