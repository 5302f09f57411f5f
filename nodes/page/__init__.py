"""The server side of the panels: live runs, tables, reports and downloads."""
