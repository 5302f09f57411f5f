"""The server side of the web page: state of the runs, tables, reports and routes."""
